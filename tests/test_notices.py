"""The notices in the sidebar, with jobs whose states are told."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from apt_core.sweep_process import only_driver
from tests.app_pages import TIMEOUT, button, page, rerun, texts
from tests.apt_core.sweep_world import SPEC, begun, record
from tests.told_jobs import ToldJobs, show_told_jobs


@pytest.fixture
def jobs(tmp_path, monkeypatch) -> ToldJobs:
    return show_told_jobs(tmp_path, monkeypatch)


def test_what_ended_before_the_session_began_is_no_news(jobs):
    jobs.add("old", "failed")
    assert not page("notices").toast


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("finished", "b: retrain has finished. Compare shows it"),
        ("failed", "b: retrain has failed. The Jobs page shows why"),
        ("lost", "b: retrain is lost"),
        ("cancelled", "b: retrain was cancelled elsewhere"),
    ],
)
def test_end_is_told_once_in_each_session(jobs, state, words):
    job = jobs.add("b", "running")
    app, other = page("notices"), page("notices")
    assert not app.toast
    jobs.tell(job, state)
    app = rerun(app)
    assert words in texts(app.toast)
    assert not rerun(app).toast
    assert words in texts(rerun(other).toast)


def test_job_that_was_submitted_and_ended_between_two_looks_is_told(jobs):
    app = page("notices")
    jobs.add("b", "finished")
    assert "b: retrain has finished" in texts(rerun(app).toast)


def test_what_this_browser_cancelled_is_no_news(jobs):
    job = jobs.add("b", "running")
    app = AppTest.from_string(
        "from analysis.pages import jobs, notices\nnotices.show()\njobs.show()", default_timeout=TIMEOUT
    )
    app, other = rerun(app), page("notices")
    app = rerun(button(app, "Cancel this job").click())
    assert not app.toast
    assert not rerun(app).toast
    assert "was cancelled elsewhere" in texts(rerun(other).toast)
    assert jobs.report(job.id).state == "cancelled"


def test_end_of_a_sweep_is_told_once_and_as_a_whole(jobs, record_run):
    recorded = begun(jobs.root / "grid", SPEC.replace(', "pydoc-entities"', ""))
    with only_driver(recorded.folder):
        app, other = page("notices"), page("notices")
        assert not app.toast
    app = rerun(app)
    assert "grid: the sweep has ended, 0 of 6 trainings done. The Sweeps page says why" in texts(app.toast)
    assert not rerun(app).toast
    for training in recorded.plan:
        record(record_run, recorded, training, [1, 2, training.total - 3])
    assert "grid: the sweep is complete" in texts(rerun(other).toast)
