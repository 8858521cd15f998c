"""Jobs as the Budget page shows them: place in the queue, cancel, retry."""

from __future__ import annotations

import sys

import pytest
from streamlit.testing.v1 import AppTest

from analysis.pages import retrain
from apt_core.jobs import LocalJobs
from apt_core.jobs.commands import JOBS_FOLDER
from tests.apt_core.jobs.programs import until


@pytest.fixture
def on_page(one_slot, tmp_path, monkeypatch) -> LocalJobs:
    """The small programs' jobs, where the page finds them."""
    monkeypatch.setattr(sys, "argv", ["app.py", "--runs", str(tmp_path / "runs")])
    monkeypatch.setattr(one_slot, "folder", tmp_path / "runs" / JOBS_FOLDER)
    one_slot.folder.mkdir(parents=True)
    yield one_slot
    for job in one_slot.list():
        one_slot.cancel(job.id, grace_seconds=0)


def shown() -> AppTest:
    app = AppTest.from_string("from analysis.pages import retrain\nretrain.show_jobs()", default_timeout=60).run()
    assert not app.exception
    return app


def test_queued_job_shows_its_place_and_can_be_cancelled_and_retried(on_page, gate, tmp_path):
    running = on_page.submit(gate.arguments, tmp_path / "running")
    until(lambda: on_page.status(running.id) == "running")
    queued = [on_page.submit(["fail"], tmp_path / f"queued-{number}") for number in (1, 2)]
    app = shown()
    text = "\n".join(str(element.value) for element in app.markdown).replace("\\", "")
    assert "gated: running on cpu-0" in text
    assert "fail: queued, number 1 in line" in text
    assert "fail: queued, number 2 in line" in text
    app.button(key=f"cancel {queued[0].id}").click().run()
    assert on_page.status(queued[0].id) == "cancelled"
    assert on_page.report(queued[1].id).position == 1
    app = shown()
    app.button(key=f"retry {queued[0].id}").click().run()
    assert not app.exception
    newest = on_page.list()[0]
    assert (newest.arguments, newest.run_folder) == (queued[0].arguments, queued[0].run_folder)
    assert on_page.report(newest.id).position == 2


def test_what_runs_and_what_comes_next_is_shown_before_the_newest(on_page, gate, tmp_path):
    running = on_page.submit(gate.arguments, tmp_path / "first")
    until(lambda: on_page.status(running.id) == "running")
    queued = [on_page.submit(gate.arguments, tmp_path / f"queued-{number}") for number in range(retrain.JOBS_SHOWN)]
    app = shown()
    keys = [button.key for button in app.button]
    assert keys == [f"cancel {job.id}" for job in (running, *queued[:-1])]
    assert app.caption[0].value.startswith("1 more: ")


def test_retry_that_is_refused_says_why(on_page, gate, tmp_path):
    running = on_page.submit(gate.arguments, tmp_path / "run")
    until(lambda: on_page.status(running.id) == "running")
    on_page.cancel(running.id)
    again = on_page.submit(gate.arguments, tmp_path / "run")
    app = shown()
    app.button(key=f"retry {running.id}").click().run()
    assert f"Job {again.id} writes it".replace("-", "\\-") in app.error[0].value
    assert len(on_page.list()) == 2


def test_reader_may_neither_cancel_nor_retry(on_page, gate, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--read-only"])
    on_page.submit(gate.arguments, tmp_path / "run")
    ended = on_page.submit(["fail"], tmp_path / "ended")
    on_page.cancel(ended.id)
    assert not shown().button
