"""The Gates and Compare pages in a real Chromium: links, slider, Play, a run that grows, narrow and dark."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from apt_core.run_format import RunInfo
from apt_core.run_writer import RunWriter

pytestmark = pytest.mark.browser

PATIENCE_MS = 60_000
HEATMAP = ".js-plotly-plot .heatmaplayer image"
LENGTHS = [8] * 4


class LiveRun:
    """A run that this process is writing: it is running for as long as nobody closes it."""

    def __init__(self, folder: Path) -> None:
        info = RunInfo(metric_name="accuracy", num_layers=4, prefix_lengths=LENGTHS, total_steps=200)
        self.writer = RunWriter(folder, info)
        self.step = 0

    def grow(self, steps: int) -> None:
        for _ in range(steps):
            self.step += 1
            gate = np.random.default_rng(self.step).uniform(0.1, 0.9, (4, 8))
            self.writer.append_gates(self.step, gate, np.full((4, 8), 0.01), np.ones(4))
        self.writer.flush_gates()


@pytest.fixture
def live(folder) -> Iterator[LiveRun]:
    run = LiveRun(folder / "live")
    run.grow(8)
    yield run
    if not run.writer._stopped.is_set():
        run.writer.finish()


def figure_title(page: Page, text: str):
    return page.locator(".js-plotly-plot .gtitle").filter(has_text=re.compile(f"^{re.escape(text)}$"))


def step_slider(page: Page):
    return page.locator(".st-key-step_slider input[type=range]")


def test_link_restores_the_whole_view_and_keeps_it_over_a_reload(page, address):
    query = "run=runs%2Ffirst&step=7&show=token+gate&scale=log&order=heaviest+first&tokens=1.1&tokens=6.16"
    page.goto(f"{address}/gates?{query}&difference=true&minus=runs%2Fsecond&minus_step=3&panel=Loss+and+metric")
    for _ in range(2):
        page.wait_for_selector(HEATMAP)
        expect(figure_title(page, "Token gate at step 7")).to_be_visible()
        expect(figure_title(page, "Token gate: step 7 - runs/second step 3")).to_be_visible()
        expect(page.get_by_text("virtual tokens of each layer, heaviest first")).to_be_visible()
        expect(page.get_by_text("mean token gate (log scale)")).to_be_visible()
        expect(page.get_by_text("layer 6.16")).to_be_visible()
        expect(figure_title(page, "Training")).to_be_visible()
        page.reload()


def test_address_names_the_run_also_where_none_was_chosen(page, address):
    page.goto(f"{address}/gates")
    page.wait_for_url(re.compile(r"/gates\?run=runs%2F\w+"))
    page.wait_for_selector(HEATMAP)
    page.get_by_role("link", name="Budget").click()
    page.wait_for_url(re.compile(r"/budget\?.*run=runs%2F\w+"))


def test_view_is_kept_across_pages(page, address):
    page.goto(f"{address}/gates?run=runs%2Ffirst&step=7&scale=log")
    expect(figure_title(page, "Weight at step 7")).to_be_visible()
    page.get_by_role("link", name="Budget").click()
    expect(page.get_by_role("heading", name="Budget")).to_be_visible()
    page.get_by_role("link", name="Gates").click()
    expect(figure_title(page, "Weight at step 7")).to_be_visible()
    expect(page.get_by_text("(log scale)")).to_be_visible()


def test_arrow_keys_move_every_panel_and_the_link(page, address):
    page.goto(f"{address}/gates?run=runs%2Ffirst")
    expect(figure_title(page, "Weight at step 40")).to_be_visible()
    before = page.locator(HEATMAP).first.get_attribute("href")
    step_slider(page).focus()
    page.keyboard.press("ArrowLeft")
    expect(figure_title(page, "Weight at step 39")).to_be_visible()
    expect(figure_title(page, "Layers at step 39")).to_be_visible()
    expect(page.locator(HEATMAP).first).not_to_have_attribute("href", before)
    page.wait_for_url("**step=39**")
    expect(step_slider(page)).to_be_focused()


def test_play_shows_other_steps_and_stop_keeps_one(page, address):
    page.goto(f"{address}/gates?run=runs%2Ffirst")
    expect(figure_title(page, "Weight at step 40")).to_be_visible()
    page.get_by_role("button", name="Play").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.wait_for_url(re.compile(r"[?&]step=\d"))
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    page.wait_for_function(
        """() => {
            const step = document.querySelector('.st-key-step_slider input[type=range]').value;
            const title = document.querySelector('.js-plotly-plot .gtitle');
            return title && step < 40 && title.textContent === `Weight at step ${step}`;
        }"""
    )


def test_running_run_grows_without_a_reload_and_then_finishes(page, address, live):
    page.goto(f"{address}/gates?run=runs%2Flive")
    expect(figure_title(page, "Weight at step 8")).to_be_visible()
    expect(page.get_by_text("running", exact=True)).to_be_visible()
    before = page.locator(HEATMAP).first.get_attribute("href")
    page.evaluate("window.notReloaded = true")
    writing = threading.Thread(target=live.grow, args=(16,))
    writing.start()
    expect(figure_title(page, "Weight at step 24")).to_be_visible()
    writing.join()
    expect(page.locator(HEATMAP).first).not_to_have_attribute("href", before)
    live.writer.finish(metrics={"validation": {"accuracy": 0.75}})
    expect(page.get_by_text("finished", exact=True)).to_be_visible()
    expect(page.get_by_text("0.750")).to_be_visible()
    assert page.evaluate("window.notReloaded")


def test_chosen_step_selection_and_zoom_are_kept_while_the_run_grows(page, address, folder):
    live = LiveRun(folder / "live2")
    try:
        live.grow(16)
        page.goto(f"{address}/gates?run=runs%2Flive2&step=5&show=token+gate")
        expect(figure_title(page, "Token gate at step 5")).to_be_visible()
        page.wait_for_selector(HEATMAP)
        page.evaluate("document.querySelector('.js-plotly-plot').setAttribute('data-first', 'kept')")
        live.grow(16)
        expect(page.get_by_text("recorded: 32, from 1 to 32")).to_be_visible()
        assert step_slider(page).input_value() == "5"
        expect(figure_title(page, "Token gate at step 5")).to_be_visible()
        # the same figure, not one drawn anew: a zoom into it would still be there
        expect(page.locator(".js-plotly-plot").first).to_have_attribute("data-first", "kept")
        expect(page.get_by_role("switch", name="Follow the newest step")).not_to_be_checked()
    finally:
        live.writer.finish()


def test_nothing_is_drawn_while_a_running_run_does_not_change(page, address, folder):
    live = LiveRun(folder / "live3")
    received: list[int] = []
    try:
        live.grow(8)
        page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: received.append(len(frame or ""))))
        page.goto(f"{address}/gates?run=runs%2Flive3")
        expect(figure_title(page, "Weight at step 8")).to_be_visible()
        expect(figure_title(page, "When each weight settled")).to_have_count(0)
        page.wait_for_load_state("networkidle")
        page.evaluate("new Promise(done => setTimeout(done, 1000))")
        received.clear()
        page.evaluate("new Promise(done => setTimeout(done, 5000))")  # two looks at the files
        assert received, "the page did not look again"
        assert max(received) < 2_000  # no figure among what was sent
        assert sum(received) < 20_000
    finally:
        live.writer.finish()


def test_compare_by_link_folds_nothing_and_draws_every_run(page, address):
    page.goto(f"{address}/compare?run=runs%2Ffirst&compared=runs%2Ffirst&compared=runs%2Fsecond")
    for title in ("Validation accuracy", "Metric against trained parameters", "Layers, at the end of training"):
        expect(figure_title(page, title)).to_be_visible()
    expect(page.get_by_role("heading", name="Settings that differ")).to_be_visible()


@pytest.mark.parametrize("kind", ["CSV", "Parquet"])
def test_numbers_of_a_figure_download(page, address, tmp_path, kind):
    page.goto(f"{address}/gates?run=runs%2Ffirst&step=7")
    expect(figure_title(page, "Weight at step 7")).to_be_visible()
    page.get_by_role("button", name="Data").first.click()
    with page.expect_download() as download:
        page.get_by_role("button", name=kind).click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.name == f"first-weight-step-7.{kind.lower()}"
    assert path.read_bytes()[:4] == (b"step" if kind == "CSV" else b"PAR1")


@pytest.mark.parametrize("kind", ["PNG", "SVG"])
def test_camera_button_saves_the_figure(page, address, kind):
    page.goto(f"{address}/gates?run=runs%2Ffirst&step=7")
    expect(figure_title(page, "Weight at step 7")).to_be_visible()
    if kind == "SVG":
        page.get_by_role("radio", name="SVG").click()
        expect(page.locator(".js-plotly-plot .modebar-btn[data-title='Download plot']").first).to_be_attached()
    page.locator(".js-plotly-plot").first.hover()
    with page.expect_download() as download:
        page.locator(".js-plotly-plot").first.locator(".modebar-btn[data-title^='Download plot']").click()
    assert download.value.suggested_filename == f"first-weight-step-7.{kind.lower()}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_figures_are_visible_and_fit_the_window(browser, address, scheme, width):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(f"{address}/gates?run=runs%2Ffirst&difference=true")
    page.wait_for_selector(HEATMAP)
    expect(figure_title(page, "Weight: step 40 - step 1")).to_be_visible(timeout=PATIENCE_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for figure in page.locator(".js-plotly-plot").all():
        box = figure.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    colour = page.evaluate("getComputedStyle(document.querySelector('.js-plotly-plot .gtitle')).fill")
    lightness = sum(map(int, re.findall(r"\d+", colour)[:3]))
    assert lightness > 500 if scheme == "dark" else lightness < 200
    context.close()
