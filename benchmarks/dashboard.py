"""How fast the dashboard is on runs of any size, in a real Chromium: ``python -m benchmarks.dashboard``.

Writes synthetic runs with the project's own writer (many small ones, a long one, a wide one), starts the app on them
and measures from the browser: time to the first heatmap, a step of the slider (time until the server has answered, and
what it sends), a change of page, and the memory of the app; then a slider step with eight sessions at once. How long
the same browser takes for a page with nothing but one Plotly heatmap of the same size is measured in the same run: no
page made with Streamlit can be faster. Both by the page's own clock, to the frame after that of the picture.
A slider step is measured three ways: processor time of the server; from the browser's message to the end of the script
(where both share the cores, the browser's drawing slows it); and from the key to the changed picture (with Streamlit's
pause for further keys, and the drawing).
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from apt_core.run_format import RunInfo
from apt_core.run_writer import RunWriter
from benchmarks.running_app import CHROMIUM, FLAGS, App, running_app

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "dashboard.json"
HEATMAP = ".js-plotly-plot .heatmaplayer image"
PATIENCE_MS = 120_000
WATCH = """
const look = () => requestAnimationFrame(() => {
  const picture = document.querySelector("%s")
  if (picture && picture.getBoundingClientRect().width) requestAnimationFrame((now) => { window.heatmapSeen = now })
  else look()
})
look()
"""
GOALS = {
    "first heatmap, cold (s)": 5.0,
    "first heatmap, warm (s)": 2.0,
    "slider step (ms)": 50.0,
    "slider step (kB)": 300.0,
    "memory (MB)": 700.0,
    "8 sessions against 1": 2.0,
}
SESSIONS = 8
WARM = 5
SETTLED_MS = 150
PAUSE_MS = 700
"""between two steps of one session: a person reads the figure"""


def write_run(folder: Path, steps: int, num_layers: int, num_tokens: int, seed: int) -> None:
    """A finished run with random gates that drift; 64 rows are drawn and taken in turn."""
    draw = np.random.default_rng(seed)
    gates = draw.uniform(0.05, 0.95, (64, num_layers, num_tokens)).astype(np.float32)
    spread = draw.uniform(0, 0.1, (num_layers, num_tokens)).astype(np.float32)
    scale = draw.uniform(0.5, 1.5, num_layers).astype(np.float32)
    info = RunInfo(
        task="pydoc-topic",
        model="synthetic",
        metric_name="accuracy",
        num_layers=num_layers,
        prefix_lengths=[num_tokens] * num_layers,
        apt_config={"token_gate": "hidden", "layer_scale": True},
        num_parameters={"prefix": 768 * num_layers * num_tokens, "head": 100, "frozen": 10_000},
        total_steps=steps,
        seed=seed,
    )
    writer = RunWriter(folder, info)
    for step in range(1, steps + 1):
        writer.append_gates(step, gates[step % 64], spread, scale)
        if step % max(1, steps // 20) == 0:
            writer.append_metrics({"step": step, "loss": 1 / step, "eval_accuracy": step / steps})
    writer.finish(metrics={"validation": {"accuracy": 0.5, "loss": 1.0}}, seconds=1.0)


BARE = """import numpy as np
import plotly.graph_objects as go
import streamlit as st

shape = int(st.query_params["layers"]), int(st.query_params["tokens"])
st.title("One heatmap")
st.plotly_chart(go.Figure(go.Heatmap(z=np.random.default_rng(1).random(shape, np.float32))))
"""


@contextmanager
def bare_page() -> Iterator[App]:
    """An app that shows one heatmap and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "app.py").write_text(BARE)
        shutil.copytree(ROOT / ".streamlit", Path(folder, ".streamlit"))
        with running_app(Path(folder), []) as app:
            yield app


class Traffic:
    """What a page's web sockets send and receive, with the browser's own times."""

    def __init__(self, context: BrowserContext, page: Page) -> None:
        self._sent: list[float] = []
        self._received: list[tuple[float, float]] = []
        self._finished: list[float] = []
        session = context.new_cdp_session(page)
        session.send("Network.enable")
        session.on("Network.webSocketFrameSent", lambda event: self._sent.append(event["timestamp"]))
        session.on("Network.webSocketFrameReceived", self._note)

    def _note(self, event: dict[str, Any]) -> None:
        if event["response"]["opcode"] != 2:  # all of Streamlit's are binary, which arrives as base64
            return
        payload = base64.b64decode(event["response"]["payloadData"])
        self._received.append((event["timestamp"], len(payload)))
        if ForwardMsg.FromString(payload).WhichOneof("type") == "script_finished":
            self._finished.append(event["timestamp"])

    def clear(self) -> None:
        self._sent.clear()
        self._received.clear()
        self._finished.clear()

    def answer(self) -> tuple[float, float]:
        """Milliseconds from the first message out to the end of the script it started, and kB of all that came in."""
        milliseconds = 1_000 * (self._finished[0] - self._sent[0])
        return milliseconds, sum(size for _, size in self._received) / 1_000


class Step(NamedTuple):
    """One step of the slider."""

    server: float
    """ms from the browser's message to the word that the script has ended: the script, and both ways of the socket"""
    seen: float
    """ms from the key to the changed picture: with Streamlit's pause for further keys, and drawing"""
    size: float
    """kB that came in"""


def wait_until_idle(page: Page) -> None:
    """Until the server says that the script has run to its end."""
    page.wait_for_selector('[data-testid=stApp][data-test-script-state="notRunning"]', timeout=PATIENCE_MS)


def first_heatmap(context: BrowserContext, address: str) -> tuple[Page, Traffic, float]:
    """A new page with a heatmap, and the seconds until it is visible."""
    page = context.new_page()
    traffic = Traffic(context, page)
    page.add_init_script(WATCH % HEATMAP)
    page.goto(address)
    page.wait_for_function("window.heatmapSeen", timeout=PATIENCE_MS)
    seconds = page.evaluate("window.heatmapSeen") / 1_000
    wait_until_idle(page)
    return page, traffic, seconds


def slider_step(page: Page, traffic: Traffic) -> Step:
    """One step back."""
    picture = page.locator(HEATMAP).first
    before = picture.get_attribute("href")
    page.locator("[data-testid=stSlider] input[type=range]").first.focus()
    page.wait_for_timeout(SETTLED_MS)
    traffic.clear()
    started = time.perf_counter()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "([selector, before]) => document.querySelector(selector)?.getAttribute('href') !== before",
        arg=[HEATMAP, before],
        timeout=PATIENCE_MS,
        polling="raf",
    )
    seen = 1_000 * (time.perf_counter() - started)
    wait_until_idle(page)
    page.wait_for_timeout(SETTLED_MS)
    server, size = traffic.answer()
    return Step(server, seen, size)


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "n": len(values),
    }


def processor_seconds(process: psutil.Process) -> float:
    """Spent by the server so far, all threads."""
    times = process.cpu_times()
    return times.user + times.system


def measure_run(
    browser: Browser,
    address: str,
    bare_address: str,
    repetitions: int,
    process: psutil.Process,
    memory: Callable[[], None],
) -> dict[str, Any]:
    """One run's page: cold, warm, slider."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, _, cold = first_heatmap(context, address)
    memory()
    warm, bare = [], []
    for _ in range(WARM):
        page.close()
        page, traffic, seconds = first_heatmap(context, address)
        warm.append(seconds)
        other, _, seconds = first_heatmap(context, bare_address)
        bare.append(seconds)
        other.close()
    slider_step(page, traffic)  # the first one loads what all others find loaded
    before = processor_seconds(process)
    steps = [slider_step(page, traffic) for _ in range(repetitions)]
    processor = 1_000 * (processor_seconds(process) - before) / repetitions
    memory()
    context.close()
    return {
        "first heatmap, cold (s)": round(cold, 3),
        "first heatmap, warm (s)": spread(warm),
        "a page with one heatmap only, warm (s)": spread(bare),
        "slider step, processor time of the server, mean (ms)": round(processor, 1),
        "slider step, message to answer (ms)": spread([step.server for step in steps]),
        "slider step, key to changed picture (ms)": spread([step.seen for step in steps]),
        "slider step (kB)": spread([step.size for step in steps]),
    }


def measure_pages(browser: Browser, address: str, repetitions: int) -> dict[str, Any]:
    """Milliseconds from a click in the navigation to the other page's end."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("h1", timeout=PATIENCE_MS)
    wait_until_idle(page)
    times: dict[str, list[float]] = {}
    for _ in range(repetitions):
        for name in ("Gates", "Compare", "Runs"):
            started = time.perf_counter()
            page.get_by_test_id("stSidebarNav").get_by_role("link", name=name).click()
            page.get_by_role("heading", name=name, exact=True).wait_for(timeout=PATIENCE_MS)
            wait_until_idle(page)
            times.setdefault(f"to {name} (ms)", []).append(1_000 * (time.perf_counter() - started))
    context.close()
    return {name: spread(values) for name, values in times.items()}


def measure_sessions(browser: Browser, address: str, rounds: int, memory: Callable[[], None]) -> dict[str, Any]:
    """A slider step alone, and with eight sessions whose people each step every ``PAUSE_MS``."""
    result = {}
    for count in (1, SESSIONS):
        sessions = []
        for _ in range(count):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            page, traffic, _ = first_heatmap(context, address)
            slider_step(page, traffic)
            sessions.append((context, page, traffic))
        times = []
        for _ in range(rounds):
            for _, page, traffic in sessions:
                times.append(slider_step(page, traffic).server)
                page.wait_for_timeout(PAUSE_MS / count)
        memory()
        result[f"{count} session{'s' if count > 1 else ''} (ms)"] = spread(times)
        for context, _, _ in sessions:
            context.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small runs: shows that it works, measures little")
    parser.add_argument("--folder", type=Path, help="where to write the runs, about 6 GB [default: a temporary one]")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"JSON file [default: {RESULTS.relative_to(ROOT)}]")
    arguments = parser.parse_args()
    sizes = {"long": (100_000, 24, 64), "wide": (20_000, 96, 256)}
    small, repetitions = 200, 20
    if arguments.quick:
        sizes, small, repetitions = {"long": (400, 24, 64), "wide": (100, 96, 256)}, 10, 3
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        runs = Path(folder) / "runs"
        for number in range(small):
            write_run(runs / f"small-{number:03d}", 40, 6, 16, number)
        for name, size in sizes.items():
            print(f"writing {name}: {size}", file=sys.stderr)
            write_run(runs / name, *size, seed=1)
        result = measure(runs, sizes, repetitions)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def measure(runs: Path, sizes: dict[str, tuple[int, int, int]], repetitions: int) -> dict[str, Any]:
    """All figures for the app on ``runs``."""
    result: dict[str, Any] = {
        "goals": GOALS,
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "runs in the folder": len(list(runs.iterdir())),
    }
    with (
        bare_page() as bare,
        running_app(ROOT, [runs]) as app,
        sync_playwright() as playwright,
    ):
        process, highest = psutil.Process(app.process.pid), 0

        def memory() -> None:
            nonlocal highest
            highest = max(highest, process.memory_info().rss)

        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        memory()
        result["memory at the start (MB)"] = round(highest / 1e6)
        for name, (steps, num_layers, num_tokens) in sizes.items():
            address = f"{app.address}/gates?run=runs%2F{name}"
            result[f"{steps:,} x {num_layers} x {num_tokens}"] = measure_run(
                browser,
                address,
                f"{bare.address}?layers={num_layers}&tokens={num_tokens}",
                repetitions,
                process,
                memory,
            )
        result["pages"] = measure_pages(browser, app.address, 3)
        memory()
        result["sessions"] = measure_sessions(browser, f"{app.address}/gates?run=runs%2Fwide", repetitions // 2, memory)
        result["highest memory (MB)"] = round(highest / 1e6)
        browser.close()
    return result


if __name__ == "__main__":
    main()
