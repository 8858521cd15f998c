"""``python -m apt_core jobs`` as a person types it; trainings are small programs, but for the last test."""

from __future__ import annotations

import json
import os
import re
import signal
import sys

import pytest

from apt_core.__main__ import app
from apt_core.command_line import run_typer
from apt_core.jobs import LocalJobs
from apt_core.jobs.commands import JOBS_FOLDER
from apt_core.jobs.job_files import read_record
from apt_core.processes import marked_processes
from apt_core.run_format import read_run_info
from tests.apt_core.jobs.programs import until


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs a command line in-process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["program", *words])
        with pytest.raises(SystemExit) as ending:
            run_typer(app)
        captured = capsys.readouterr()
        return ending.value.code, captured.out, captured.err

    return run


@pytest.fixture
def in_runs(one_slot, tmp_path, monkeypatch) -> LocalJobs:
    """The small programs' jobs, where ``--runs`` finds them."""
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(one_slot, "folder", tmp_path / "runs" / JOBS_FOLDER)
    yield one_slot
    for job in one_slot.list():
        one_slot.cancel(job.id, grace_seconds=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("submit", "command: got ''; accepted: train, retrain or transfer, with --out DIR; or measure RUN"),
        ("submit export run --out new", "command: got 'export run --out new'"),
        ("submit train --task pydoc-topic", "--out with the new run's folder"),
        ("submit train --out new --epochs many", "--epochs"),
        ("submit train --out new --no-such-flag", "No such option: --no-such-flag"),
        ("submit train --out new --slots 0", "slots: got 0; accepted: how many jobs may run at once"),
        ("submit train --out full", "out: got "),
        ("submit train --out new --device cuda", "device: got 'cuda'; accepted: auto or cpu"),
        ("submit retrain --out new", "Missing argument 'run'"),
        ("submit evaluate full", "which has no run.json; accepted: a run folder"),
        ("submit evaluate", "Missing argument 'run'"),
        ("retry nope", "job: got 'nope'; accepted: an id"),
        ("cancel nope", "job: got 'nope'; accepted: an id"),
        ("logs nope --follow", "job: got 'nope'; accepted: an id"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_queued(call, tmp_path, words, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    code, out, err = call("jobs", *words.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not list(tmp_path.glob("runs/.jobs/*/job.json"))


def test_list_shows_place_device_and_times(call, in_runs, gate, tmp_path):
    jobs = [in_runs.submit(gate.arguments, tmp_path / name) for name in ("first", "second", "third")]
    until(lambda: len(gate.started()) == 1 and in_runs.report(jobs[1].id).position == 1)
    code, out, _ = call("jobs", "list")
    head, *lines = out.splitlines()
    assert code == 0
    assert head.split() == ["id", "state", "device", "submitted", "started", "ended", "command", "run"]
    assert [line.split()[:3] for line in lines[:2]] == [[jobs[2].id, "queued", "2"], [jobs[1].id, "queued", "1"]]
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
    assert re.fullmatch(rf"{jobs[0].id} +running +cpu-0 +{time} +{time} +- +gated +{tmp_path}/first", lines[2])
    gate.open()
    until(lambda: in_runs.status(jobs[0].id) == "finished")
    rows = json.loads(call("jobs", "list", "--json")[1])
    assert [(row["id"], row["run"]) for row in rows] == [(job.id, job.run_folder) for job in reversed(jobs)]
    assert rows[2]["submitted_at"] <= rows[2]["started_at"] <= rows[2]["ended_at"]
    assert (rows[2]["status"], rows[2]["exit_code"], rows[0]["started_at"]) == ("finished", 0, None)


def test_cancel_and_logs(call, in_runs, gate, tmp_path):
    job = in_runs.submit(gate.arguments, tmp_path / "run")
    until(lambda: gate.started())
    until(lambda: in_runs.logs(job.id))
    assert call("jobs", "logs", job.id)[1] == "started\n"
    assert call("jobs", "cancel", job.id)[1] == f"{job.id}  cancelled\n"
    assert call("jobs", "logs", job.id, "--follow")[1] == "started\n"


def test_list_without_jobs_says_so(call):
    assert call("jobs", "list")[1] == "no jobs in runs/.jobs\n"
    assert call("jobs", "list", "--json")[1] == "[]\n"


@pytest.fixture
def files(tmp_path) -> list[str]:
    """A task of four short texts."""
    options = []
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.csv").write_text("text,label\ngood,a\nbad,b\nfine,a\npoor,b\n")
        options += [f"--{split}-file", f"{split}.csv"]
    return options


@pytest.mark.slow
def test_training_that_died_with_its_machine_is_retried_to_the_same_metrics(call, in_runs, files, tmp_path):
    def done(words: str) -> str:
        code, out, err = call("jobs", *words.split())
        assert code == 0, err
        return out.strip()

    settings = " ".join(files) + " --batch-size 2 --epochs 8 --num-virtual-tokens 2 --device cpu"
    whole = done(f"submit train --task text-classification {settings} --out runs/whole --slots 1")
    cut = done(f"submit train --task text-classification {settings} --out runs/cut --slots 1")
    checkpoints = tmp_path / "runs" / "cut" / "checkpoints"
    until(lambda: in_runs.status(cut) == "failed" or list(checkpoints.glob("checkpoint-*/trainer_state.json")))
    assert in_runs.status(cut) == "running", in_runs.logs(cut)
    record = read_record(in_runs.folder / cut)
    for pid in (record.pid, record.trainer_pid):
        os.kill(pid, signal.SIGKILL)
    until(lambda: in_runs.status(cut) != "running")  # a process that has died holds its locks a moment longer
    assert (in_runs.status(whole), in_runs.status(cut)) == ("finished", "lost")
    assert not marked_processes(cut)

    again = done(f"retry {cut}")
    assert "after step" in done(f"logs {again} --follow")
    assert in_runs.status(again) == "finished"
    one, other = (read_run_info(tmp_path / "runs" / name) for name in ("whole", "cut"))
    assert (one.metrics, one.best_step, one.step) == (other.metrics, other.best_step, other.step)

    measured = done("submit evaluate --split test runs/cut")
    (tmp_path / "runs" / "whole").rename(tmp_path / "runs" / "renamed")
    until(lambda: in_runs.status(measured) == "finished")
    assert read_run_info(tmp_path / "runs" / "cut").metrics["test"]
    assert len(json.loads(done("list --json"))) == 4
