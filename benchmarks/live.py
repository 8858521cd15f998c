"""Live runs under stress: ``python -m benchmarks.live``.

A writer at 200 steps a second is killed (SIGKILL) at random moments and started again on a run of its own, 20 times in
a minute, while a reader reads without pause and three browser sessions look at the gates. Counted: reads with torn or
wrong data, errors on a page, steps lost per kill, and how long a killed run still counts as running.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from apt_core.errors import AptError
from apt_core.gate_log import GateLog
from apt_core.run_format import read_run_info, status_of
from benchmarks.running_app import CHROMIUM, FLAGS, running_app

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "live.json"
PATIENCE_MS = 60_000
WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from apt_core.run_format import RunInfo
from apt_core.run_writer import RunWriter

layers, tokens, rate = 24, 64, 200
writer = RunWriter(Path(sys.argv[1]), RunInfo(task="live", num_layers=layers, prefix_lengths=[tokens] * layers))
started, step = time.monotonic(), 0
while True:
    step += 1
    gate = np.full((layers, tokens), (step % 1000 + 0.5) / 1001, np.float32)  # every value tells its step
    writer.append_gates(step, gate, gate / 10, np.full(layers, float(step), np.float32))
    print(step, flush=True)
    time.sleep(max(0.0, started + step / rate - time.monotonic()))
"""


def check(log: GateLog) -> None:
    """Every row must be the row of its step, and none missing.

    Raises:
        ValueError: on the first that is not.
    """
    if log.steps.tolist() != list(range(1, len(log) + 1)):
        raise ValueError("steps are missing or repeated")
    for step in {1, len(log) // 2, len(log)} - {0} if len(log) else ():
        row = log.at(step)
        expected = np.float32((step % 1000 + 0.5) / 1001)
        if not (row.layer_scale == step).all() or not (row.token_gate == expected).all():
            raise ValueError(f"step {step} holds another step's values")


class Reader(threading.Thread):
    """Reads the newest run's gates without pause."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.folder: Path | None = None
        self.reads, self.problems, self.stopped = 0, [], threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.005):
            folder = self.folder
            if folder is None or not (folder / "run.json").exists():
                continue
            try:
                check(GateLog(folder / "gates"))
                read_run_info(folder)
                self.reads += 1
            except (AptError, ValueError, OSError) as problem:
                self.problems.append(f"{folder.name}: {problem}")


def start_writer(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    process.stdout.readline()
    return process


def kill(process: subprocess.Popen, folder: Path) -> dict[str, float]:
    """Kills a writer; steps written and lost, and seconds until the run counts as interrupted."""
    process.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    lines = process.stdout.read().split()
    process.wait()
    while status_of(read_run_info(folder)) == "running":
        time.sleep(0.02)
    noticed = time.monotonic() - killed
    log = GateLog(folder / "gates")
    check(log)
    done = int(lines[-1]) if lines else 1
    return {"steps": done, "lost": done - len(log), "noticed after (s)": round(noticed, 3)}


def errors_on(page: Page) -> list[str]:
    shown = page.locator("[data-testid=stException], [data-testid=stAlertContentError]").all_inner_texts()
    return [re.sub(r"\s+", " ", text)[:300] for text in shown]


def measure(runs: Path, seconds: float, kills: int, seed: int) -> dict[str, Any]:
    """The whole minute."""
    draw = random.Random(seed)
    reader, page_errors, records, alone = Reader(), [], [], []
    pauses = [draw.uniform(0.4, 1.6) for _ in range(kills)]
    pauses = [pause * seconds / sum(pauses) for pause in pauses]
    with running_app(ROOT, [runs]) as app, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        pages = [browser.new_context(viewport={"width": 1280, "height": 900}).new_page() for _ in range(3)]
        for page in pages:
            page.on("pageerror", lambda error: page_errors.append(str(error)))
        reader.start()
        for number, pause in enumerate(pauses):
            folder = runs / f"live-{number:02d}"
            process = start_writer(folder)
            reader.folder = folder
            address = f"{app.address}/gates?run=runs%2F{folder.name}"
            moment = time.monotonic() + pause
            for page in pages[number % 3 : number % 3 + 1] if number >= 3 else pages:
                page.goto(address, wait_until="commit", timeout=PATIENCE_MS)
            while time.monotonic() < moment:
                pages[0].wait_for_timeout(min(100, max(1, 1_000 * (moment - time.monotonic()))))
                for page in pages:
                    page_errors += errors_on(page)
            records.append(kill(process, folder))
            alone.append(records[-1]["steps"] / pause)
        started = time.monotonic()
        last = runs / f"live-{kills - 1:02d}"
        pages[0].goto(f"{app.address}/gates?run=runs%2F{last.name}", timeout=PATIENCE_MS)
        pages[0].get_by_text("interrupted", exact=False).first.wait_for(timeout=PATIENCE_MS)
        shown = time.monotonic() - started
        for page in pages:
            page_errors += errors_on(page)
        browser.close()
    reader.stopped.set()
    reader.join(10)
    return {
        "kills": kills,
        "seconds": seconds,
        "steps per second of the writers": round(sum(alone) / len(alone), 1),
        "steps written": sum(record["steps"] for record in records),
        "most steps lost in a kill": max(record["lost"] for record in records),
        "longest until interrupted (s)": max(record["noticed after (s)"] for record in records),
        "interrupted shown on a page opened after the last kill (s)": round(shown, 3),
        "reads": reader.reads,
        "torn or wrong reads": reader.problems,
        "errors on pages": sorted(set(page_errors)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long all writers run together [default: 60]")
    parser.add_argument("--kills", type=int, default=20, help="how many writers are killed [default: 20]")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills [default: 0]")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"JSON file [default: {RESULTS.relative_to(ROOT)}]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        runs.mkdir()
        result = measure(runs, arguments.seconds, arguments.kills, arguments.seed)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
