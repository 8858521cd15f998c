"""The Jobs page with real processes: place in the queue, cancel, retry, an app that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analysis import job_book
from apt_core.jobs import LocalJobs
from apt_core.jobs.commands import JOBS_FOLDER
from apt_core.processes import marked_processes
from tests.apt_core.jobs.programs import hanging, until

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def on_page(one_slot, tmp_path, monkeypatch) -> LocalJobs:
    """The small programs' jobs, where the page finds them."""
    monkeypatch.setattr(sys, "argv", ["app.py", "--runs", str(tmp_path / "runs")])
    monkeypatch.setattr(job_book, "FRESH_SECONDS", 0)
    monkeypatch.setattr(one_slot, "folder", tmp_path / "runs" / JOBS_FOLDER)
    monkeypatch.setattr("apt_core.jobs.local.check_command", lambda arguments: None)  # they are no commands of ours
    one_slot.folder.mkdir(parents=True)
    yield one_slot
    for job in one_slot.list():
        one_slot.cancel(job.id, grace_seconds=0)


def shown() -> AppTest:
    app = AppTest.from_string("from analysis.pages import jobs\njobs.show()", default_timeout=60).run()
    assert not app.exception
    return app


def text_of(app: AppTest) -> str:
    return "\n".join(str(element.value) for element in app.markdown).replace("\\", "")


def test_queued_job_shows_its_place_and_can_be_cancelled_and_retried(on_page, gate, tmp_path):
    running = on_page.submit(gate.arguments, tmp_path / "running")
    until(lambda: on_page.status(running.id) == "running")
    queued = [on_page.submit(["fail"], tmp_path / f"queued-{number}") for number in (1, 2)]
    app = shown()
    text = text_of(app)
    assert "gated: running on cpu-0" in text
    assert "fail: queued, number 1 in line" in text
    assert "fail: queued, number 2 in line" in text
    assert "cpu-0: running" in text
    app.button(key=f"cancel {queued[0].id}").click().run()
    assert on_page.status(queued[0].id) == "cancelled"
    assert on_page.report(queued[1].id).position == 1
    app = shown()
    app.button(key=f"retry {queued[0].id}").click().run()
    assert not app.exception
    newest = on_page.list()[0]
    assert (newest.arguments, newest.run_folder) == (queued[0].arguments, queued[0].run_folder)
    assert on_page.report(newest.id).position == 2


def test_running_job_shows_the_memory_of_all_its_processes(on_page, tmp_path):
    hanging(on_page, tmp_path / "run")
    (memory,) = shown().metric
    assert memory.label == "memory"
    assert "its 3 processes" in memory.help


def test_job_that_fails_while_the_page_is_open_says_why(on_page, tmp_path):
    job = on_page.submit(["fail"], tmp_path / "run")
    until(lambda: on_page.status(job.id) == "failed")
    app = shown()
    assert "out of luck" in app.error[0].value
    assert "fail: failed" in text_of(app)


def test_retry_that_is_refused_says_why(on_page, gate, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    ended = on_page.submit(gate.arguments, tmp_path / "run")
    on_page.cancel(ended.id)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").rmdir()
    app = shown()
    app.button(key=f"retry {ended.id}").click().run()
    assert "still exists; its paths start there" in app.error[0].value.replace("\\", "")
    assert on_page.list() == [ended]


def test_retry_of_what_somebody_else_has_tried_again_shows_that_instead(on_page, gate, tmp_path):
    ended = on_page.submit(gate.arguments, tmp_path / "run")
    on_page.cancel(ended.id)
    app = shown()
    again = on_page.submit(gate.arguments, tmp_path / "run")
    app.button(key=f"retry {ended.id}").click().run()
    assert not app.exception
    assert [job.id for job in on_page.list()] == [again.id, ended.id]
    assert f"Done again as job {again.id}." in [element.value.replace("\\", "") for element in app.caption]


def test_reader_may_neither_cancel_nor_retry(on_page, gate, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--read-only"])
    on_page.submit(gate.arguments, tmp_path / "run")
    ended = on_page.submit(["fail"], tmp_path / "ended")
    on_page.cancel(ended.id)
    assert not shown().button


def test_app_that_was_killed_leaves_a_job_that_the_next_one_shows_and_cancels(on_page, tmp_path):
    """The first app submits from a page and is killed with all its threads; the second one is this process."""
    script = f"""
import os, signal, sys
sys.argv = {sys.argv!r}
from streamlit.testing.v1 import AppTest
from apt_core.jobs import LocalJobs
jobs = LocalJobs({str(on_page.folder)!r}, program={on_page._program!r}, slots=1)
page = f'''
from apt_core.jobs import LocalJobs
LocalJobs({{str(jobs.folder)!r}}, program={{jobs._program!r}}, slots=1).submit(["hang"], {str(tmp_path / "run")!r})
from analysis.pages import jobs
jobs.show()
'''
app = AppTest.from_string(page, default_timeout=60).run()
assert not app.exception
os.kill(os.getpid(), signal.SIGKILL)
"""
    first = subprocess.run([sys.executable, "-c", script], check=False, start_new_session=True, cwd=PROJECT)
    assert first.returncode == -signal.SIGKILL
    (job,) = on_page.list()
    until(lambda: "trainer ready" in on_page.logs(job.id) and "child ready" in on_page.logs(job.id))
    app = shown()
    assert "hang: running on cpu-0" in text_of(app)
    assert len(marked_processes(job.id)) == 3  # supervisor, trainer, child; the last two ignore SIGTERM
    begun = time.monotonic()
    app.button(key=f"cancel {job.id}").click().run(timeout=60)
    assert on_page.status(job.id) == "cancelled"
    assert marked_processes(job.id) == []
    assert time.monotonic() - begun < 5 + 20  # five seconds of grace, and a busy machine
    app = shown()
    app.button(key=f"retry {job.id}").click().run()
    assert [each.run_folder for each in on_page.list()] == [job.run_folder] * 2
