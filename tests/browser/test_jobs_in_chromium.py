"""Jobs in a real Chromium, with real trainings of the offline backbone: from a budget to Compare."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from apt_core.jobs import LocalJobs
from apt_core.jobs.commands import JOBS_FOLDER
from apt_core.processes import marked_processes
from apt_core.run_format import RUN_FILE, read_run_info
from tests.apt_core.jobs.programs import program, until

pytestmark = pytest.mark.browser

PROJECT = Path(__file__).parents[2]
STARTED_MS = 300_000
"""loading the libraries and the backbone, on a busy machine"""
PATIENCE_MS = 60_000
GRACE_SECONDS = 5


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """A recorded run of the built-in task, with settings that train two steps an epoch; no job is left afterwards."""
    root = tmp_path / "runs"
    shutil.copytree(PROJECT / "sample_runs" / "pydoc-topic-apt", root / "sample")
    path = root / "sample" / RUN_FILE
    content = json.loads(path.read_text())
    content["training"] |= {"shots": 2, "max_length": 16}
    path.write_text(json.dumps(content))
    yield root
    jobs = LocalJobs(root / JOBS_FOLDER)
    for job in jobs.list():
        jobs.cancel(job.id, grace_seconds=0)


@pytest.fixture
def jobs_of_every_kind(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder whose jobs run, wait, have failed and were cancelled; their names are wider than a phone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "runs"
    (root / JOBS_FOLDER).mkdir(parents=True)
    jobs = LocalJobs(root / JOBS_FOLDER, program=program(tmp_path), slots=1)
    failed = jobs.submit(["fail"], root / ("failed" * 15))
    until(lambda: jobs.status(failed.id) == "failed")
    at_work = [jobs.submit(["sleep", "x" * 300], root / (f"run-{number}" * 15)) for number in range(3)]
    jobs.cancel(at_work.pop().id)
    until(lambda: jobs.status(at_work[0].id) == "running")
    yield root
    for job in jobs.list():
        jobs.cancel(job.id, grace_seconds=0)


def submit(page: Page, address: str, epochs: int) -> None:
    page.goto(f"{address}/budget?run=runs%2Fsample")
    box = page.get_by_role("spinbutton", name="Epochs")
    box.fill(str(epochs))
    box.press("Enter")
    page.get_by_text("More settings").click()
    page.get_by_text("Measure what the tokens are worth afterwards").click()
    expect(page.get_by_text(re.compile(f"--epochs {epochs} .*--no-measure")).first).to_be_visible()
    page.get_by_role("button", name="Retrain with these lengths").click()
    expect(page.get_by_role("heading", name="Jobs of this run")).to_be_visible()


def steps_done(page: Page) -> int:
    """What the bar says, once it says something."""
    bar = page.get_by_text(re.compile(r"^step [\d,]+ of "))
    expect(bar).to_be_visible(timeout=STARTED_MS)
    return int(re.search(r"[\d,]+", bar.inner_text())[0].replace(",", ""))


def cancel(page: Page) -> None:
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_text("Retry goes on from its last checkpoint")).to_be_visible()
    page.get_by_role("button", name="Cancel this job").click()


@pytest.mark.slow
def test_retraining_is_watched_outlives_the_app_is_cancelled_resumed_and_compared(page, folder, start_app):
    jobs = LocalJobs(folder / JOBS_FOLDER)
    with start_app([folder]) as app:
        submit(page, app.address, epochs=500)
        page.get_by_role("button", name="Gates, live").click(timeout=STARTED_MS)
        shown = page.get_by_role("combobox", name="Run").first
        expect(shown).to_have_value(re.compile("^runs/sample-pruned48"), timeout=STARTED_MS)  # not the one looked at
        page.goto(f"{app.address}/budget?run=runs%2Fsample")
        page.get_by_role("link", name="All jobs").click()
        expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
        first = steps_done(page)
        expect(page.get_by_text("training loss (nats)")).to_be_visible()
        expect(page.get_by_text(re.compile(r"^step .* · (about .*|less than a minute) left"))).to_be_visible()
        expect(page.get_by_text("1 running").first).to_be_visible()
        page.reload()
        assert steps_done(page) >= first
        app.process.kill()
    (job,) = jobs.list()
    assert jobs.status(job.id) == "running"

    with start_app([folder]) as app:
        page.goto(f"{app.address}/jobs")
        expect(page.get_by_text("retrain: running on")).to_be_visible()
        reached = steps_done(page)
        assert reached >= first
        cancel(page)
        expect(page.get_by_text("retrain: cancelled")).to_be_visible()
        deadline = time.monotonic() + GRACE_SECONDS
        while marked_processes(job.id):
            assert time.monotonic() < deadline, "a process is left"
        assert page.get_by_text("was cancelled elsewhere").count() == 0

        page.get_by_role("button", name="Retry", exact=True).click()
        expect(page.get_by_text("train: running on")).to_be_visible(timeout=STARTED_MS)
        page.get_by_text("Log", exact=True).first.click()
        resumed = page.get_by_text(re.compile(r"resuming .* after step \d+"))
        expect(resumed).to_be_visible(timeout=STARTED_MS)  # the log stays open while the page is drawn again
        assert int(re.search(r"after step (\d+)", resumed.inner_text())[1]) > 0
        cancel(page)
        expect(page.get_by_text(re.compile("^.*train: cancelled")).first).to_be_visible()

        submit(page, app.address, epochs=1)
        page.get_by_role("link", name="Runs", exact=True).click()  # the notice comes wherever one is
        expect(page.get_by_role("heading", name="Runs")).to_be_visible()
        notice = page.get_by_test_id("stToast").filter(has_text="sample-pruned48-2: retrain has finished")
        expect(notice).to_be_visible(timeout=STARTED_MS)
        page.get_by_role("link", name="Jobs", exact=True).click()
        finished = page.get_by_test_id("stMain").get_by_role("button", name="Compare")
        finished.click()
        expect(page.get_by_role("heading", name="Compare")).to_be_visible()
        expect(page.get_by_text("runs/sample-pruned48-2").first).to_be_visible()
    assert read_run_info(folder / "sample-pruned48-2").parent == "sample"


def test_every_kind_of_job_fits_the_window_in_light_and_dark(browser, jobs_of_every_kind, start_app):
    with start_app([jobs_of_every_kind]) as app:
        for scheme, width in (("light", 1280), ("dark", 390)):
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page = context.new_page()
            page.goto(f"{app.address}/jobs")
            expect(page.get_by_text("out of luck")).to_be_visible(timeout=PATIENCE_MS)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.get_by_role("button", name="Command").first.click()
            expect(page.get_by_text("run folder: ").last).to_be_visible(timeout=PATIENCE_MS)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            context.close()


def test_notice_of_a_failure_stays_until_it_is_read(page, jobs_of_every_kind, start_app, tmp_path):
    jobs = LocalJobs(jobs_of_every_kind / JOBS_FOLDER, program=program(tmp_path), slots=1)
    with start_app([jobs_of_every_kind]) as app:
        page.goto(app.address)
        expect(page.get_by_role("link", name="1 running, 1 waiting")).to_be_visible()
        assert page.get_by_test_id("stToast").count() == 0
        for job in jobs.list():
            jobs.cancel(job.id, grace_seconds=0)
        failed = jobs.submit(["fail"], jobs_of_every_kind / "other")
        until(lambda: jobs.status(failed.id) == "failed")
        notice = page.get_by_test_id("stToast").filter(has_text="other: fail has failed")
        expect(notice).to_be_visible()
        expect(page.get_by_test_id("stToast").filter(has_text="was cancelled elsewhere").first).to_be_visible()
        page.get_by_role("link", name="Jobs", exact=True).click()
        expect(page.get_by_role("heading", name="Ended")).to_be_visible()
        expect(notice).to_be_visible()
        expect(page.get_by_test_id("stToast").filter(has_text="was cancelled elsewhere")).to_have_count(0)
        expect(notice).to_be_visible()
