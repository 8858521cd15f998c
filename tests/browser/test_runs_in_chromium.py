"""The Runs page in a real Chromium: filter, open, delete and undo, rename, and hostile runs that must do nothing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from benchmarks.running_app import running_app

pytestmark = pytest.mark.browser

ROW, HEADER = 35, 35
"""heights in the table, in pixels"""
BOX, OPEN = 16, 75
"""centres of the first two columns, in pixels from its left"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, record_run) -> Path:
    root = tmp_path_factory.mktemp("app") / "runs"
    for day, (name, task) in enumerate((("old", "copa"), ("middle", "pydoc-topic"), ("new", "copa")), start=1):
        record_run(root / name, steps=20, task=task, created_at=f"2026-03-0{day}T00:00:00+00:00")
    record_run(root / "child", steps=20, parent="old", created_at="2026-02-01T00:00:00+00:00")
    return root


def table_of(page: Page):
    table = page.get_by_test_id("stDataFrame").first
    table.locator("canvas").first.wait_for()
    return table


def click_in_table(page: Page, row: int, x: float) -> None:
    place = table_of(page).bounding_box()
    page.mouse.click(place["x"] + x, place["y"] + HEADER + ROW * row + ROW / 2)


def select(page: Page, row: int) -> None:
    """Ticks the box of a row; the grid listens a moment after it is drawn."""
    for _ in range(8):
        click_in_table(page, row, BOX)
        try:
            page.get_by_text("1 selected").wait_for(timeout=15_000)  # a second click would take the first one back
            return
        except PlaywrightTimeout:
            continue
    raise AssertionError(f"row {row} was not selected")


def test_filter_is_in_the_link_and_kept_across_pages(page, address):
    page.goto(address)
    expect(page.get_by_text("4 runs, newest first")).to_be_visible()
    page.locator("input[aria-label=Search]").fill("copa")
    page.keyboard.press("Enter")
    expect(page.get_by_text("2 of 4 runs, newest first")).to_be_visible()
    page.wait_for_url("**q=copa*")
    page.get_by_role("link", name="Compare").click()
    expect(page.get_by_role("heading", name="Compare", exact=True)).to_be_visible()
    page.get_by_role("link", name="Runs").click()
    expect(page.get_by_text("2 of 4 runs, newest first")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(page.get_by_text("4 runs, newest first")).to_be_visible()


def test_link_opens_with_filter_and_group(page, address):
    page.goto(f"{address}/?group=task&value=pydoc-topic")
    expect(page.locator("[role=gridcell]", has_text="runs/middle").first).to_be_attached()
    expect(page.locator("[role=gridcell]", has_text="runs/new")).to_have_count(0)


def test_open_button_of_a_row_opens_that_run(page, address):
    page.goto(address)
    for _ in range(8):
        click_in_table(page, 1, OPEN)
        try:
            page.wait_for_url("**/gates?run=runs%2Fmiddle*", timeout=4_000)
            break
        except PlaywrightTimeout:
            continue
    expect(page.get_by_role("heading", name="Gates", exact=True)).to_be_visible()
    assert "run=runs%2Fmiddle" in page.url


def test_selected_run_is_opened_by_keyboard(page, address):
    page.goto(address)
    select(page, 2)
    page.get_by_role("button", name="Gates").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/gates?run=runs%2Fold*")


def test_delete_asks_and_undo_brings_the_run_back(page, address, folder):
    page.goto(address)
    select(page, 0)
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text(str(folder / "new"))).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert (folder / "new").is_dir()
    page.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Deleted new.")).to_be_visible()
    expect(page.get_by_text("3 runs, newest first")).to_be_visible()
    assert not (folder / "new").exists()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("4 runs, newest first")).to_be_visible()
    assert (folder / "new" / "run.json").is_file()


def test_rename_and_tag_by_the_edit_dialog(page, address, folder):
    page.goto(address)
    select(page, 1)
    page.get_by_role("button", name="Edit").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox", name="Name").fill("renamed")
    dialog.get_by_role("textbox", name="Notes").fill("longer prefix")
    dialog.get_by_role("combobox").fill("paper")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # closes the list of tags, which covers the rest
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    expect(page.locator("[role=gridcell]", has_text="runs/renamed").first).to_be_attached()
    assert (folder / "renamed" / "notes.json").is_file()
    assert not (folder / "middle").exists()
    (folder / "renamed" / "notes.json").unlink()
    (folder / "renamed").rename(folder / "middle")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("query", ["", "?group=task", "?q=nonsense"])
def test_page_fits_the_window(browser, address, scheme, width, query):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{address}/{query}")
    expect(page.get_by_text("newest first").or_(page.get_by_text("No run fits")).first).to_be_visible(timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


@pytest.fixture(scope="module")
def hostile_address(tmp_path_factory, record_run, start_app) -> Iterator[str]:
    """The app on the malformed runs whose names and texts try to be more than text."""
    path = Path(__file__).parents[1] / "analysis" / "malformed.py"
    spec = importlib.util.spec_from_file_location("malformed_in_browser", path)
    malformed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(malformed)
    base = tmp_path_factory.mktemp("hostile")
    outside = record_run(base / "outside", steps=5)
    for case in malformed.CASES:
        if "hostile" in case.name:
            case.write(record_run(base / "runs" / case.name, steps=12), outside)
    with start_app([base / "runs"]) as app:
        yield app.address


@pytest.mark.parametrize(
    "place",
    [
        "?columns=task&columns=model&columns=notes&columns=tags",
        "?group=task",
        "gates?run=runs%2Ffield-task-hostile",
        "gates?run=runs%2Ffailed-hostile",
        "gates?run=runs%2Ffield-model-hostile",
        "budget?run=runs%2Ffield-training-hostile",
        "compare?run=runs%2Ffield-task-hostile",
    ],
)
def test_hostile_texts_run_and_load_nothing(page, hostile_address, place):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: asked.append("dialog") or dialog.dismiss())
    page.goto(f"{hostile_address}/{place}")
    page.wait_for_selector("h1")
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0)
    assert [url for url in asked if "127.0.0.1:9/" in url or url == "dialog"] == []
    assert page.locator("a[href^='javascript']").count() == 0
    assert page.locator("[data-testid=stMain] img[src*='x.png'], [data-testid=stMain] .katex").count() == 0


def test_selected_runs_are_compared(page, address):
    page.goto(f"{address}/compare?run=runs%2Fmiddle")
    expect(page.get_by_role("heading", name="Compare", exact=True)).to_be_visible()
    page.get_by_role("link", name="Runs").click()
    select(page, 0)
    click_in_table(page, 2, BOX)
    expect(page.get_by_text("2 selected")).to_be_visible()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name="Compare", exact=True)).to_be_visible()
    chosen = page.get_by_test_id("stMultiSelect").first
    expect(chosen.get_by_text("runs/new")).to_be_visible()
    expect(chosen.get_by_text("runs/old")).to_be_visible()


def test_page_that_is_left_before_its_end_does_not_deafen_the_next(page, folder, tmp_path):
    """On a slow machine a run of the app still goes on when the next page has been drawn, and ends after it."""
    project = Path(__file__).parents[2]
    for name in ("analysis", "apt_core", ".streamlit"):
        (tmp_path / name).symlink_to(project / name)
    script = (project / "app.py").read_text()
    slow = script.replace("\nfreeze_imports()\n", "\nfreeze_imports()\n__import__('time').sleep(2)\n")
    assert slow != script
    (tmp_path / "app.py").write_text(slow)
    with running_app(tmp_path, [folder]) as app:
        for _ in range(3):
            page.goto(f"{app.address}/compare?run=runs%2Fmiddle")
            expect(page.get_by_role("heading", name="Compare", exact=True)).to_be_visible()
            page.get_by_role("link", name="Runs").click()
            select(page, 0)
