"""The real app in a real Chromium, on runs recorded by the project's own writer."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PATIENCE_MS = 60_000
HEATMAP = ".js-plotly-plot .heatmaplayer image"


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


def test_no_browser_is_sent_anywhere_else(page, address):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for name in ("", "gates?run=runs%2Ffirst", "compare?run=runs%2Ffirst"):
        page.goto(f"{address}/{name}")
        page.wait_for_selector('[data-testid=stApp][data-test-script-state="notRunning"]')
        expect(page.locator("h1").first).to_be_visible()
    assert len(asked) > 50
    assert {url for url in asked if not url.startswith((address, "data:", "blob:"))} == set()


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


PAGES = ("gates", "compare", "errors", "tasks", "evidence", "budget", "investment", "pilot", "jobs", "sweeps")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_pages_fit_the_window_in_light_and_dark(browser, address, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    for name in ("", *PAGES):
        page.goto(f"{address}/{name}")
        page.wait_for_selector("h1", timeout=PATIENCE_MS)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
