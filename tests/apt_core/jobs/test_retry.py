"""What a job writes and on which device, and what takes its place when it is retried."""

from __future__ import annotations

import pytest

from apt_core.errors import AptError, AptFileExistsError, AptFileNotFoundError
from apt_core.jobs import Job
from apt_core.jobs.job_arguments import check_run_folder, device_of
from apt_core.jobs.retry import retry_arguments
from apt_core.run_format import update_finished_run
from tests.apt_core.jobs.programs import until

TRAIN = ["train", "--task", "copa", "--out", "run", "--seed", "3"]
RETRAIN = ["retrain", "old", "--prefix-lengths", "1,2", "--out=run"]


def job(folder, arguments=TRAIN) -> Job:
    return Job("0001-a", arguments, str(folder), "2026-01-01T00:00:00.000+00:00", "/")


@pytest.mark.parametrize("state", ["failed", "cancelled", "lost"])
@pytest.mark.parametrize("arguments", [TRAIN, RETRAIN])
@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_retry_goes_on_with_what_the_job_left(tmp_path, record_run, state, arguments, status):
    folder = tmp_path / "run"
    assert retry_arguments(job(folder, arguments), state) == arguments
    record_run(folder, steps=2)
    update_finished_run(folder, status=status)
    assert retry_arguments(job(folder, arguments), state) == ["train", "--out", str(folder), "--resume"]


@pytest.mark.parametrize("arguments", [["measure", "run"], ["evaluate", "run"], ["transfer", "run", "--out", "x"]])
def test_retry_of_what_goes_on_by_itself_says_the_same_again(tmp_path, record_run, arguments):
    folder = record_run(tmp_path / "run", steps=2)
    assert retry_arguments(job(folder, arguments), "lost") == arguments


def test_retry_of_a_run_that_finished_or_still_trains_is_refused(tmp_path, record_run):
    folder = record_run(tmp_path / "run", steps=2)
    with pytest.raises(AptError, match="is finished; accepted: an interrupted run"):
        retry_arguments(job(folder), "lost")
    update_finished_run(folder, status="running")  # by this process, which lives
    with pytest.raises(AptError, match="is running; accepted: an interrupted run"):
        retry_arguments(job(folder), "lost")


def test_retry_of_a_damaged_run_says_so(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(AptError, match="damaged"):
        retry_arguments(job(tmp_path), "failed")


def test_retry_after_an_end_while_preparing_leaves_a_folder_that_is_empty(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert retry_arguments(job(tmp_path / "run"), "cancelled") == TRAIN
    check_run_folder(TRAIN, tmp_path / "run")
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "checkpoints" / "file").write_text("")
    retry_arguments(job(tmp_path / "run"), "cancelled")
    assert (tmp_path / "run" / "checkpoints" / "file").exists()


def test_retry_of_a_job_that_finished_or_waits_is_refused(one_slot, gate, tmp_path):
    done = one_slot.submit(["succeed"], tmp_path / "done")
    until(lambda: one_slot.status(done.id) == "finished")
    running = one_slot.submit(gate.arguments, tmp_path / "running")
    queued = one_slot.submit(["succeed"], tmp_path / "queued")
    until(lambda: one_slot.status(running.id) == "running")
    for other, words in ((done, "finished.*another --out"), (running, "running.*Cancel it"), (queued, "queued")):
        with pytest.raises(AptError, match=words):
            one_slot.retry(other.id)


def test_retried_job_starts_where_the_first_did(one_slot, gate, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    one_slot.submit(gate.arguments, "first")
    job = one_slot.submit(["here"], "run")
    one_slot.cancel(job.id)
    monkeypatch.chdir(tmp_path)
    again = one_slot.retry(job.id)
    assert again.run_folder == str(tmp_path / "here" / "run")
    gate.open()
    until(lambda: one_slot.status(again.id) == "finished")
    assert one_slot.logs(again.id) == str(tmp_path / "here")


def test_retry_where_the_first_directory_is_gone_says_so(one_slot, gate, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    one_slot.submit(gate.arguments, "first")
    job = one_slot.submit(["here"], tmp_path / "run")
    one_slot.cancel(job.id)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").rmdir()
    with pytest.raises(AptError, match=r"whose folder .*here still exists"):
        one_slot.retry(job.id)


def test_folder_of_a_new_run_is_new_and_that_of_a_measured_run_is_there(tmp_path, record_run):
    run = record_run(tmp_path / "run", steps=2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    check_run_folder(TRAIN, tmp_path / "new")
    for arguments in (["measure", "run"], ["evaluate", "run"], ["train", "--resume"]):
        check_run_folder(arguments, run)
        with pytest.raises(AptFileNotFoundError, match=r"which has no run\.json; accepted: a run folder"):
            check_run_folder(arguments, tmp_path / "new")
    for arguments in (TRAIN, RETRAIN, ["transfer", "a"]):
        with pytest.raises(AptFileExistsError, match="already holds a run"):
            check_run_folder(arguments, run)
    for arguments in (TRAIN, RETRAIN):
        with pytest.raises(AptError, match="new or empty"):
            check_run_folder(arguments, tmp_path / "full")
    check_run_folder(["transfer", "a"], tmp_path / "full")  # goes on with what is there


@pytest.mark.parametrize(
    ("arguments", "device"),
    [
        (["train"], "auto"),
        (["train", "--device", "cpu"], "cpu"),
        (["train", "--device=cuda", "--out", "x"], "cuda"),
        (["train", "--device", "cuda", "--device", "cpu"], "cpu"),  # the last one counts, as it does for the command
        (["train", "--device"], "auto"),
        (["train", "--device", "tpu"], "auto"),
        (["retrain", "run"], "cpu"),
        (["evaluate", "run", "--device", "cuda"], "cuda"),
        (["measure", "run"], "cpu"),
        (["evaluate", "--split", "test", "run"], "cpu"),
        (["train", "--out", "run", "--resume"], "cpu"),
        (["retrain"], "auto"),
        (["retrain", "missing"], "auto"),
        ([], "auto"),
    ],
)
def test_device_is_what_is_typed_or_what_the_run_had(tmp_path, record_run, arguments, device):
    record_run(tmp_path / "run", steps=2, training={"device": "cpu"})
    assert device_of(arguments, tmp_path, tmp_path / "run") == device
