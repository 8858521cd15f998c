"""What a job writes and on which device, and what takes its place when it is retried."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from apt_core.__main__ import app
from apt_core.command_line import run_typer
from apt_core.config import TrainSettings
from apt_core.errors import AptError, AptFileExistsError, AptFileNotFoundError
from apt_core.jobs import Job, LocalJobs
from apt_core.jobs.job_arguments import check_run_folder, device_of
from apt_core.jobs.job_files import write_job
from apt_core.jobs.retry import ran_out_of_memory, retry_arguments
from apt_core.memory import ran_out, too_large
from apt_core.run_format import update_finished_run
from apt_core.tasks import TASKS, infer_task
from apt_core.tasks.source import DataSource
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


@pytest.mark.parametrize(
    ("arguments", "size", "accumulation"),
    [
        (["train", "--out", "run"], 8, 2),
        (["train", "--task", "rte", "--out", "run"], 4, 2),  # the task's own batch is 8
        (["train", "--out", "run", "--batch-size", "32", "--seed", "3"], 16, 2),
        (["train", "--batch-size=6", "--gradient-accumulation-steps", "3", "--task=rte", "--out", "run"], 3, 6),
        (["train", "--batch-size", "64", "--out", "run", "--batch-size", "24"], 12, 2),  # the last one counts
        (["train", "--task", "nonsense", "--out", "run"], 8, 2),
        (["retrain", "old", "--prefix-lengths", "1,2", "--out=run"], 10, 6),
        (["retrain", "old", "--batch-size", "10", "--out=run"], 5, 6),
        (["retrain", "missing", "--out=run"], 8, 2),
        (["train", "--batch-size", "15", "--out", "run"], 5, 3),  # 7 would make steps of other examples
    ],
)
def test_half_the_batch_is_half_of_what_is_typed_or_of_the_task_or_run(
    tmp_path, record_run, arguments, size, accumulation
):
    record_run(tmp_path / "old", steps=2, training={"batch_size": 20, "gradient_accumulation_steps": 3})
    made = Job("0001-a", arguments, str(tmp_path / "run"), "2026-01-01T00:00:00.000+00:00", str(tmp_path))
    again = retry_arguments(made, "failed", halve_batch=True)
    flags = ["--batch-size", str(size), "--gradient-accumulation-steps", str(accumulation)]
    assert again[-4:] == flags
    batch = {"--batch-size", "--gradient-accumulation-steps"}
    assert not batch & {word.partition("=")[0] for word in again[:-4]}
    others = [word for word in arguments if word.startswith("--") and word.partition("=")[0] not in batch]
    assert [word for word in again[:-4] if word.startswith("--")] == others


def test_task_that_need_not_be_named_has_no_batch_of_its_own():
    """So that the default is right where the task is what the columns say, or the first."""
    sources = ({"label_column": "y"}, {"tags_column": "z"})
    inferred = [infer_task(DataSource(train_file="a", **columns)) for columns in sources]
    for name in ("pydoc-topic", *inferred):
        assert not TASKS[name].training.keys() & {"batch_size", "gradient_accumulation_steps"}


def test_interrupted_run_goes_on_with_half_its_own_batch(tmp_path, record_run):
    training = {"batch_size": 8, "gradient_accumulation_steps": 2}
    folder = record_run(tmp_path / "run", steps=2, training=training)
    update_finished_run(folder, status="failed")
    resumed = ["train", "--out", str(folder), "--resume", "--batch-size", "4", "--gradient-accumulation-steps", "4"]
    typed = ["train", "--batch-size", "64", "--out", "run"]  # the run was gone on with meanwhile
    assert retry_arguments(job(folder, typed), "failed", halve_batch=True) == resumed
    # refused before the run was touched
    smaller = [*resumed[:4], "--batch-size", "2", "--gradient-accumulation-steps", "8"]
    assert retry_arguments(job(folder, resumed), "failed", halve_batch=True) == smaller


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--out", "run", "--batch-size", "1"], r"batch_size: got 1; accepted: 2 or more, to be halved"),
        (["train", "--out", "run", "--batch-size", "x"], "batch_size: got 'x'"),
        (["measure", "run"], "halve-batch: got 'measure'; accepted: train or retrain"),
        (["transfer", "run", "--out", "x"], "smaller --batch-size"),
    ],
)
def test_no_batch_to_halve_is_said(tmp_path, arguments, message):
    with pytest.raises(AptError, match=message):
        retry_arguments(job(tmp_path / "run", arguments), "failed", halve_batch=True)


@pytest.mark.parametrize(
    "log",
    [
        f"train: 10%\nerror: {ran_out(TrainSettings(batch_size=4), Path('run'), 8)}",
        f"train: 10%|error: {too_large(TrainSettings(), 8, 9e9, 5e9)}",
        f"error: {too_large(TrainSettings(), 0, 9e9, 5e9)}",
        "error: out of memory at batch size 4; ...\n" + "torchrun says more\n" * 40,
    ],
)
def test_want_of_memory_is_told_from_a_log(log):
    assert ran_out_of_memory(log)


@pytest.mark.parametrize(
    "log",
    [
        "",
        "error: lr: got 2.0; accepted: ...",
        "note: a text about being out of memory at batch size 4",
        "error: out of memory at batch size 4; ...\n" + "trained on\n" * 60,
    ],
)
def test_other_ends_are_not(log):
    assert not ran_out_of_memory(log)


def test_training_that_the_system_killed_counts_as_out_of_memory_and_is_retried_with_half_the_batch(tmp_path):
    kill = [sys.executable, "-S", "-c", f"import os; os.kill(os.getpid(), {signal.SIGKILL.value})"]
    jobs = LocalJobs(tmp_path / "jobs", program=kill, slots=1)
    killed = jobs.submit(["train", "--out", "run"], tmp_path / "run")
    until(lambda: jobs.status(killed.id) == "failed")
    assert ran_out_of_memory(jobs.logs(killed.id))
    again = jobs.retry(killed.id, halve_batch=True)
    assert again.arguments == ["train", "--out", "run", "--batch-size", "8", "--gradient-accumulation-steps", "2"]
    until(lambda: jobs.status(again.id) == "failed")
    other = LocalJobs(tmp_path / "jobs", program=[sys.executable, "-S", "-c", "raise SystemExit('no')"], slots=1)
    failed = other.submit(["train", "--out", "run"], tmp_path / "run")
    until(lambda: other.status(failed.id) == "failed")
    assert not ran_out_of_memory(other.logs(failed.id))


def test_command_retries_with_half_the_batch(tmp_path, monkeypatch, capsys):
    runs = tmp_path / "runs"
    jobs = LocalJobs(runs / ".jobs", program=[sys.executable, "-S", "-c", "raise SystemExit('no')"])
    failed = jobs.submit(["train", "--out", "run", "--device", "cpu"], tmp_path / "run")
    until(lambda: jobs.status(failed.id) == "failed")
    monkeypatch.setattr(sys, "argv", ["apt_core", "jobs", "retry", failed.id, "--runs", str(runs), "--halve-batch"])
    with pytest.raises(SystemExit, match="0"):
        run_typer(app)
    again = capsys.readouterr().out.strip()
    jobs.cancel(again)
    assert {job.id: job.arguments[-4:] for job in jobs.list()}[again] == [
        "--batch-size", "8", "--gradient-accumulation-steps", "2"
    ]  # fmt: skip


def test_retry_of_a_run_that_finished_or_still_trains_is_refused(tmp_path, record_run):
    folder = record_run(tmp_path / "run", steps=2)
    with pytest.raises(AptError, match="is finished; accepted: an interrupted run"):
        retry_arguments(job(folder, [*TRAIN, "--no-measure"]), "lost")
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


@pytest.mark.parametrize("flag", ["--no-memory-check", "--no-measure"])
def test_retry_says_again_what_the_run_does_not_know(tmp_path, record_run, flag):
    folder = record_run(tmp_path / "run", steps=2)
    update_finished_run(folder, status="interrupted")
    again = retry_arguments(job(folder, [*TRAIN, flag]), "cancelled")
    assert again == ["train", "--out", str(folder), "--resume", flag]
    assert retry_arguments(job(folder, again), "lost") == again


def test_retry_measures_a_finished_run_that_was_yet_to_be_measured(tmp_path, record_run):
    folder = record_run(tmp_path / "run", steps=2)
    assert retry_arguments(job(folder), "lost") == ["measure", str(folder)]
    with pytest.raises(AptError, match=r"whose run .* is finished"):
        retry_arguments(job(folder), "lost", halve_batch=True)
    (folder / "measures.json").write_text("{}")
    with pytest.raises(AptError, match=r"whose run .* is finished"):
        retry_arguments(job(folder), "lost")


def test_resumed_job_is_retried_as_it_was_typed(tmp_path, record_run):
    """It may have ended before its run took what was typed."""
    folder = record_run(tmp_path / "run", steps=2, training={"batch_size": 16})
    update_finished_run(folder, status="interrupted")
    typed = ["train", "--out", str(folder), "--resume", "--data-dir", "/new", "--batch-size", "8"]
    assert retry_arguments(job(folder, typed), "lost") == typed
    halved = [*typed[:-2], "--batch-size", "4", "--gradient-accumulation-steps", "2"]
    assert retry_arguments(job(folder, typed), "failed", halve_batch=True) == halved


def test_secret_that_was_not_kept_is_not_submitted(tmp_path):
    with pytest.raises(AptError, match=r"hold no secret of the environment\. Submit its command again"):
        retry_arguments(job(tmp_path / "run", ["train", "--data-dir", "/home/***/data", "--out", "run"]), "lost")


@pytest.mark.parametrize("words", [["retrain"], ["retrain", "--prefix-lengths", "1,2", "old", "--out", "new"]])
def test_run_that_is_retrained_comes_before_the_options(tmp_path, words):
    with pytest.raises(AptError, match=r"retrain: got .*accepted: RUN first, then its options"):
        LocalJobs(tmp_path / ".jobs").submit(words, tmp_path / "new")
    assert not (tmp_path / ".jobs").exists()


def test_command_that_is_no_jobs_is_not_retried(tmp_path):
    """A folder of jobs may have come from anywhere."""
    jobs = LocalJobs(tmp_path / ".jobs")
    planted = replace(job(tmp_path / "run", ["push", "run", "me/mine"]), directory=str(tmp_path))
    (jobs.folder / planted.id).mkdir(parents=True)
    write_job(jobs.folder / planted.id, planted)
    with pytest.raises(AptError, match="command: got 'push'; accepted: train, retrain, transfer, measure, evaluate"):
        jobs.retry(planted.id)
