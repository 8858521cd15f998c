"""The real app in a real Chromium, on runs recorded by the project's own writer: fixtures for every browser test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from benchmarks.running_app import CHROMIUM, FLAGS, App, running_app

PROJECT = Path(__file__).parents[2]
PATIENCE_MS = 60_000


@pytest.fixture(scope="session")
def start_app() -> Callable[..., AbstractContextManager[App]]:
    """The app on folders of runs: ``with start_app([folder], "--read-only") as app``."""
    return partial(running_app, PROJECT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, record_run) -> Path:
    root = tmp_path_factory.mktemp("app") / "runs"
    record_run(root / "first", steps=40, created_at="2026-03-02T00:00:00+00:00")
    record_run(root / "second", steps=12, created_at="2026-03-01T00:00:00+00:00", seed=5)
    (root / "broken").mkdir()
    (root / "broken" / "run.json").write_text("{")
    return root


@pytest.fixture(scope="module")
def address(folder, start_app) -> Iterator[str]:
    """The running app."""
    with start_app([folder]) as app:
        yield app.address


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
    assert page.locator("[data-testid=stException]").all_inner_texts() == []
    context.close()
