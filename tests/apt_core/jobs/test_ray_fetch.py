"""Fetching a run that a node has copied to storage, and settling one whose job has ended elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apt_core.errors import AptError
from apt_core.jobs import JobReport
from apt_core.jobs.ray_fetch import fetch_run, settle_run
from apt_core.jobs.run_copy import RunCopy
from apt_core.run_format import read_run_info, status_of, update_finished_run


@pytest.fixture
def copy(tmp_path) -> RunCopy:
    return RunCopy((tmp_path / "storage").as_uri(), "place")


@pytest.fixture
def source(record_run, tmp_path, copy) -> Path:
    """A run on a node, half done and copied."""
    folder = record_run(tmp_path / "node", steps=2)
    update_finished_run(folder, status="interrupted", updated_at="2026-01-01T00:00:00+00:00")
    copy.save(folder)
    return folder


def test_fetched_run_is_the_copy_and_a_newer_one_replaces_it(source, copy, tmp_path):
    folder = tmp_path / "here" / "run"
    assert fetch_run(copy, folder)
    assert read_run_info(folder) == read_run_info(source)
    (folder / "old").write_text("")
    (folder / "notes.json").write_text("mine")
    assert fetch_run(copy, folder)
    assert (folder / "old").exists()
    update_finished_run(source, status="finished", updated_at="2026-01-01T00:00:01+00:00")
    copy.save(source)
    assert fetch_run(copy, folder)
    assert read_run_info(folder).status == "finished"
    assert [path.name for path in folder.parent.iterdir()] == ["run"]
    assert not (folder / "old").exists()
    assert (folder / "notes.json").read_text() == "mine"


def test_run_that_has_gone_further_here_stays(source, copy, tmp_path):
    fetch_run(copy, tmp_path / "run")
    update_finished_run(tmp_path / "run", status="finished", updated_at="2026-01-02T00:00:00+00:00")
    assert fetch_run(copy, tmp_path / "run")
    assert read_run_info(tmp_path / "run").status == "finished"


def test_other_things_in_the_folder_stay(source, copy, record_run, tmp_path):
    other = record_run(tmp_path / "other", steps=1)
    update_finished_run(other, created_at="2020-01-01T00:00:00+00:00")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(AptError, match="already holds a run"):
        fetch_run(copy, other)
    with pytest.raises(AptError, match="new or empty"):
        fetch_run(copy, tmp_path / "full")
    assert (tmp_path / "full" / "file").read_text() == "mine"
    assert read_run_info(other).created_at == "2020-01-01T00:00:00+00:00"


def test_nothing_copied_makes_no_folder(copy, tmp_path):
    assert not fetch_run(copy, tmp_path / "run")
    assert not (tmp_path / "run").exists()


ENDED = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("state", "host", "seconds", "status"),
    [
        ("cancelled", "elsewhere", 0, "interrupted"),
        ("failed", "elsewhere", -30, "interrupted"),
        ("cancelled", "elsewhere", 3, "running"),  # somebody has gone on with it
        ("lost", "elsewhere", 0, "running"),  # its node may only be out of reach
        ("cancelled", None, 0, "running"),  # of this machine, where the process is looked for
    ],
)
def test_run_of_a_job_that_was_seen_to_end_is_settled(record_run, tmp_path, state, host, seconds, status):
    folder = record_run(tmp_path / "run", steps=2)
    info = read_run_info(folder)
    alive = (ENDED + timedelta(seconds=seconds)).isoformat(timespec="seconds")
    update_finished_run(folder, status="running", host=host or info.host, updated_at=alive)
    settle_run(folder, JobReport(state, ended_at=ENDED.isoformat(timespec="milliseconds")))
    assert read_run_info(folder).status == status


def test_settling_lets_a_run_be_gone_on_with_at_once(record_run, tmp_path):
    folder = record_run(tmp_path / "run", steps=2)
    now = datetime.now(UTC)
    update_finished_run(folder, status="running", host="elsewhere", updated_at=now.isoformat(timespec="seconds"))
    assert status_of(read_run_info(folder)) == "running"
    settle_run(folder, JobReport("cancelled", ended_at=now.isoformat(timespec="milliseconds")))
    assert status_of(read_run_info(folder)) == "interrupted"


def test_what_is_no_run_is_left(tmp_path):
    settle_run(tmp_path / "missing", JobReport("failed", ended_at=ENDED.isoformat()))
    settle_run(tmp_path, JobReport("failed"))
    assert not list(tmp_path.iterdir())
