"""The real app in a real Chromium, on runs recorded by the project's own writer."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

pytestmark = pytest.mark.browser

APP = Path(__file__).parents[2] / "app.py"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 60_000
HEATMAP = ".js-plotly-plot .heatmaplayer image"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, record_run) -> Path:
    root = tmp_path_factory.mktemp("app") / "runs"
    record_run(root / "first", steps=40, created_at="2026-03-02T00:00:00+00:00")
    record_run(root / "second", steps=12, created_at="2026-03-01T00:00:00+00:00", seed=5)
    (root / "broken").mkdir()
    (root / "broken" / "run.json").write_text("{")
    return root


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory) -> Iterator[str]:
    """The running app."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("log") / "app.log").open("w")
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(APP),
        "--server.port",
        str(port),
        "--",
        "--runs",
        str(folder),
    ]
    process = subprocess.Popen(command, cwd=APP.parent, stdout=log, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert process.poll() is None, Path(log.name).read_text()
            assert time.monotonic() < deadline, "the app did not start"
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)
    log.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no browser at {CHROMIUM}; install Chromium or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    assert errors == []
    assert page.locator("[data-testid=stException]").count() == 0
    context.close()


def test_first_page_shows_runs_and_one_click_later_a_heatmap(page, address):
    page.goto(address)
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    expect(page.get_by_text("2 runs, newest first")).to_be_visible()
    expect(page.get_by_role("heading", name="Not readable")).to_be_visible()
    page.get_by_role("button", name="Open the newest").click()
    page.wait_for_selector(HEATMAP)
    shape = page.evaluate("(() => { const z = document.querySelector('.js-plotly-plot').data[0].z;"
                          "const plain = z.bdata ? z.shape : [z.length, z[0].length];"
                          "return String(plain); })()")  # fmt: skip
    assert re.sub(r"\s", "", shape) == "6,16"


def test_row_of_the_table_opens_that_run(page, address):
    page.goto(address)
    table = page.get_by_test_id("stDataFrame").first
    table.locator("canvas").first.wait_for()
    place = table.bounding_box()
    for _ in range(5):  # the grid listens a moment after it is drawn
        page.mouse.click(place["x"] + 60, place["y"] + 85)  # its second row
        try:
            page.wait_for_url("**/gates?run=runs%2Fsecond", timeout=5_000)
            break
        except PlaywrightTimeout:
            continue
    page.wait_for_selector(HEATMAP)
    assert "run=runs%2Fsecond" in page.url


def test_slider_and_arrow_keys_go_step_by_step(page, address):
    page.goto(f"{address}/gates?run=runs%2Ffirst")
    page.wait_for_selector(HEATMAP)
    expect(page.get_by_text("Weight at step 40")).to_be_visible()
    before = page.locator(HEATMAP).first.get_attribute("href")
    page.locator("[data-testid=stSlider] input[type=range]").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text("Weight at step 39")).to_be_visible()
    expect(page.locator(HEATMAP).first).not_to_have_attribute("href", before)


def test_deep_link_opens_run_and_view(page, address):
    page.goto(f"{address}/gates?run=runs%2Fsecond&show=token+gate")
    expect(page.get_by_text("Token gate at step 12")).to_be_visible()


def test_budget_page_shows_lengths_and_the_command(page, address):
    page.goto(f"{address}/budget?run=runs%2Ffirst&method=topk")
    expect(page.get_by_text(re.compile("retrain .*first --prefix-lengths")).first).to_be_visible()
    page.get_by_role("spinbutton", name="Total virtual tokens").fill("24")
    page.keyboard.press("Enter")
    expect(page.get_by_text(re.compile("first-pruned24-1")).first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_the_window_in_light_and_dark(browser, address, scheme, width):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    for name in ("", "gates", "budget", "compare"):
        page.goto(f"{address}/{name}")
        page.wait_for_selector("h1", timeout=PATIENCE_MS)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


@pytest.mark.slow
def test_retrain_from_the_app_trains_and_appears_with_its_parent(page, address, folder):
    """Budget page, one click, a real training in a process of its own with the offline backbone, then Compare."""
    train = [sys.executable, "-m", "apt_core", "train", "--out", str(folder / "real"), "--shots", "2", "--epochs", "1"]
    subprocess.run([*train, "--max-length", "16"], cwd=APP.parent, check=True, capture_output=True)
    page.goto(f"{address}/budget?run=runs%2Freal")
    page.get_by_role("button", name="Retrain with these lengths").click()
    expect(page.get_by_role("heading", name="Retrainings")).to_be_visible()
    finished = page.get_by_test_id("stMain").get_by_role("link", name="Compare")
    expect(finished).to_be_visible(timeout=180_000)
    finished.click()
    expect(page.get_by_role("heading", name="Compare")).to_be_visible()
    expect(page.get_by_text("runs/real-pruned48-1").first).to_be_visible()
    assert (folder / "real-pruned48-1" / "run.json").is_file()
