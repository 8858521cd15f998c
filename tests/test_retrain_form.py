"""The Retrain form of the Budget page, and the jobs below it, with jobs whose states are told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from apt_core.errors import AptValueError
from apt_core.jobs import Job
from tests.app_pages import button, field, labels, page, rerun, texts
from tests.told_jobs import ToldJobs, names, show_told_jobs


@pytest.fixture
def jobs(tmp_path, monkeypatch) -> ToldJobs:
    return show_told_jobs(tmp_path, monkeypatch)


@pytest.fixture
def root(jobs) -> Path:
    """The folder of runs."""
    return jobs.root


def form(root: Path, record_run, **fields) -> AppTest:
    record_run(root / "a", steps=20, **fields)
    return page("budget")


def commands(app: AppTest) -> list[str]:
    return [line for code in app.code for line in code.value.splitlines() if " retrain " in line]


def test_every_seed_is_one_job_with_its_command_to_copy(jobs, root, record_run):
    app = form(root, record_run)
    app = rerun(field(app.text_input, "Seeds").set_value("1-3"))
    shown = commands(app)
    assert len(shown) == 6
    assert [line.split()[-1] for line in shown[:3]] == [str(root / f"a-pruned48-s{seed}") for seed in (1, 2, 3)]
    app = rerun(button(app, "Retrain with these lengths, 3 seeds").click())
    assert ["python -m apt_core " + " ".join(job.arguments) for job in reversed(jobs.jobs)] == shown[:3]
    assert names(app) == ["a-pruned48-s1", "a-pruned48-s2", "a-pruned48-s3"]
    assert "Queued: a-pruned48-s1, a-pruned48-s2, a-pruned48-s3" in texts(app.toast)


def test_seeds_that_are_none_are_said_and_nothing_can_be_started(jobs, root, record_run):
    app = form(root, record_run)
    app = rerun(field(app.text_input, "Seeds").set_value("1,one"))
    assert "seeds: got '1,one'; accepted: up to 20 different whole numbers" in texts(app.error)
    assert commands(app) == []
    assert not [label for label in labels(app) if label.startswith("Retrain")]


def test_gpu_that_is_not_there_is_said(jobs, root, record_run):
    app = form(root, record_run)
    app = rerun(field(app.selectbox, "Device").set_value("cuda"))
    assert "No GPU is visible to this app" in texts(app.error)
    assert commands(app) == []


def test_smaller_batch_with_accumulation_is_the_same_training(jobs, root, record_run):
    app = form(root, record_run)
    assert "--batch-size" not in commands(app)[0]
    app = rerun(field(app.number_input, "Batch size").set_value(4))
    assert "4 examples for each optimizer step; the run had 16" in texts(app.warning)
    app = rerun(field(app.number_input, "Batches for each step").set_value(4))
    assert "16 examples for each optimizer step, as in the run" in texts(app.caption)
    assert "--batch-size 4 --gradient-accumulation-steps 4" in commands(app)[0]
    app = rerun(app.checkbox[0].uncheck())
    assert "--no-measure" in commands(app)[0]


def test_same_training_twice_at_once_is_refused(jobs, root, record_run):
    app = form(root, record_run)
    app = rerun(button(app, "Retrain with these lengths").click())
    app = rerun(button(app, "Retrain with these lengths").click())
    assert len(jobs.jobs) == 1
    assert "which job 0001-a trains just so" in texts(app.error)


def test_submission_that_fails_halfway_says_how_many_are_queued(jobs, root, record_run, monkeypatch):
    submit = jobs.submit

    def once(arguments: Sequence[str], run_folder: str | Path) -> Job:
        if jobs.jobs:
            raise AptValueError("jobs: nothing was queued: the disk is full.")
        return submit(arguments, run_folder)

    monkeypatch.setattr(jobs, "submit", once)
    app = form(root, record_run)
    app = rerun(field(app.text_input, "Seeds").set_value("1,2"))
    app = rerun(button(app, "Retrain with these lengths, 2 seeds").click())
    assert "the disk is full. The 1 before it are queued." in texts(app.error)
    assert "Queued: a-pruned48-s1" in texts(app.toast)


def test_budget_page_lists_the_jobs_of_its_run_only(jobs, root, record_run):
    jobs.add("other", "running", "retrain", str(root / "z"))
    for number in range(6):
        jobs.add(f"a-pruned48-s{number}", "queued", position=number + 1)
    jobs.add("a", "finished", "measure", str(root / "a"))
    assert names(form(root, record_run)) == [f"a-pruned48-s{number}" for number in range(4)]


def test_settings_of_a_damaged_run_do_not_break_the_form(jobs, root, record_run):
    app = form(root, record_run, training={"epochs": 99_999, "batch_size": 0, "seed": 1})
    assert field(app.number_input, "Epochs").value == 10_000
    assert field(app.number_input, "Batch size").value == 1
