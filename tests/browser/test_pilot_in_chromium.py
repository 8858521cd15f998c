"""The Pilot page in a real Chromium, with real trainings: from an empty folder to a report that opens offline."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from analysis.pilot_files import find_pilots
from analysis.runs import find_runs

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TRAINED_MS = 300_000
QUESTION = "Will half of the virtual tokens do?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Empty: there is no run and no pilot yet."""
    return tmp_path_factory.mktemp("pilot") / "runs"


@pytest.fixture(scope="module")
def address(folder, start_app) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APT_SLOTS", "2")  # of one thread each
        with start_app([folder]) as app:
            yield app.address


def fill(page: Page, label: str, value: int) -> None:
    box = page.get_by_role("spinbutton", name=label)
    box.fill(str(value))
    box.press("Enter")
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0)


def step(page: Page, words: str, timeout: int | None = None) -> None:
    expect(page.get_by_text(re.compile(f"^{words}$")).first).to_be_visible(timeout=timeout)


def test_from_an_empty_folder_to_a_report_that_opens_offline(page, browser, address, folder, tmp_path):
    page.goto(f"{address}/pilot")
    page.get_by_role("textbox", name="Question").fill(QUESTION)
    fill(page, "Examples per class", 4)
    fill(page, "Epochs", 1)
    fill(page, "Seeds", 2)
    page.get_by_text("More settings").click()
    fill(page, "Full length", 4)
    fill(page, "Sub-words per text", 16)
    page.get_by_role("button", name="Check the data and make the pilot").click()
    step(page, "2 · Train · now")

    page.get_by_role("button", name="Start the training").click()
    expect(page.get_by_text(re.compile("-full-s1 · (queued|running)")).first).to_be_visible()
    page.reload()  # nothing of it is in the page's memory
    step(page, "4 · Budget · now", TRAINED_MS)
    step(page, "3 · Audit · done", TRAINED_MS)

    page.get_by_role("combobox", name="Share out by").click()
    page.get_by_role("option", name="first-order effect").click()
    expect(page.get_by_text("sums of first-order effect")).to_be_visible()
    page.get_by_role("button", name="Use these lengths").click()
    start = page.get_by_role("button", name=re.compile("Start all . trainings"))
    start.click()
    step(page, "6 · Decision · done", TRAINED_MS)
    expect(page.get_by_text(re.compile("^(Prune|Keep the full length|Undecided)")).first).to_be_visible()

    ((name, pilot),) = find_pilots(folder).pilots.items()
    runs = find_runs([folder]).runs
    assert {run.status for run in runs} == {"finished"}
    assert len(runs) == 2 * len(pilot.arms)
    assert {run.info.total_tokens for run in runs} == {24, 12}

    with page.expect_download() as download:
        page.get_by_role("button", name="Download the report").click()
    report = tmp_path / "report.html"
    download.value.save_as(report)
    _check_report(browser, report, name, folder)


def _check_report(browser, report: Path, name: str, folder: Path) -> None:
    """It opens from the disk, asks for nothing else, and shows its figures in light and dark."""
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 1000, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        asked: list[str] = []
        said: list[str] = []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.on("pageerror", lambda error, said=said: said.append(str(error)))
        page.on("console", lambda message, said=said: said.append(message.text))
        page.goto(report.as_uri())
        expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()
        for figure in ("metric-by-arm", "prefix-lengths", "gate-profile", "deletion-curve"):
            drawn = page.locator(f"#{figure} .main-svg").first
            expect(drawn).to_be_visible()
            assert drawn.bounding_box()["height"] > 200
        expect(page.get_by_text(f"runs/{name}-full-s1").first).to_be_visible()
        assert page.get_by_text(str(folder)).count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 1000
        assert asked == [report.as_uri()]
        assert said == []
        context.close()
