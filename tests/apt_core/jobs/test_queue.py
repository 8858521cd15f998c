"""The queue with real processes: order, slots, cancelling, and supervisors that die in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from apt_core.errors import AptError
from apt_core.jobs import Job, LocalJobs
from apt_core.jobs.job_files import number_of
from apt_core.jobs.queue import drawing, ticket_file
from apt_core.processes import marked_processes
from tests.apt_core.jobs.programs import Gate, record_of, until

SUBMITTER = """
import sys
from pathlib import Path
from apt_core.errors import AptError
from apt_core.jobs import LocalJobs
jobs = LocalJobs({folder!r}, program={program!r}, slots={slots})
print("ready", flush=True)
sys.stdin.readline()
for name in sys.argv[1:]:
    try:
        print(jobs.submit({arguments!r}, Path({root!r}) / name).id, flush=True)
    except AptError as problem:
        print("refused", str(problem).splitlines()[0], flush=True)
"""


def submit_at_once(jobs: LocalJobs, gate: Gate, root: Path, *names: list[str]) -> list[list[str]]:
    """One process for each list of run folders, all let go together; what each of them printed."""
    script = SUBMITTER.format(
        folder=str(jobs.folder), program=jobs._program, slots=jobs._slots, arguments=gate.arguments, root=str(root)
    )
    submitters = [
        subprocess.Popen([sys.executable, "-c", script, *own], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for own in names
    ]
    for submitter in submitters:
        assert submitter.stdout.readline() == "ready\n"
    for submitter in submitters:
        submitter.stdin.write("go\n")
        submitter.stdin.flush()
    return [submitter.communicate()[0].splitlines() for submitter in submitters]


def gated(jobs: LocalJobs, gate: Gate, root: Path, count: int) -> list[Job]:
    return [jobs.submit(gate.arguments, root / f"run-{number}") for number in range(count)]


def kill(pid: int) -> None:
    process = psutil.Process(pid)
    process.kill()
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.slow
def test_twenty_jobs_of_three_processes_run_once_in_order_two_at_a_time(jobs, gate, tmp_path):
    names = [[f"{process}-{number}" for number in range(7 if process < 2 else 6)] for process in range(3)]
    printed = submit_at_once(jobs, gate, tmp_path, *names)
    order = sorted((job_id for lines in printed for job_id in lines), key=number_of)
    assert [number_of(job_id) for job_id in order] == list(range(1, 21))
    assert [job.id for job in reversed(jobs.list())] == order
    until(lambda: len(gate.started()) == 2)
    assert set(gate.started()) == set(order[:2])  # both start at once, which is first is the system's choice
    until(lambda: jobs.report(order[2]).position == 1)
    assert [jobs.report(job_id).position for job_id in order] == [None, None, *range(1, 19)]
    assert [jobs.status(job_id) for job_id in order] == ["running"] * 2 + ["queued"] * 18

    cancelled = [order[number - 1] for number in (3, 6, 7, 13, 20)]
    for job_id in cancelled:
        jobs.cancel(job_id)
        assert jobs.status(job_id) == "cancelled"
    expected = [job_id for job_id in order if job_id not in cancelled]
    for done in range(1, 16):
        gate.open()
        until(lambda done=done: len(gate.ended()) == done and len(gate.started()) == min(done + 2, 15))
        assert set(gate.started()) == set(expected[: done + 2])
    until(lambda: all(jobs.status(job_id) == "finished" for job_id in expected))
    assert [jobs.status(job_id) for job_id in cancelled] == ["cancelled"] * 5
    assert [jobs.report(job_id).started_at for job_id in cancelled] == [None] * 5
    assert Counter(gate.lines()) == Counter({(what, job_id): 1 for what in ("start", "end") for job_id in expected})
    together = 0
    for what, _ in gate.lines():
        together += 1 if what == "start" else -1
        assert together <= 2
    started = [jobs.report(job_id).started_at for job_id in expected]
    assert started == sorted(started)


def test_no_number_is_drawn_twice(tmp_path):
    def draw() -> None:
        for _ in range(50):
            with drawing(tmp_path) as number:
                (tmp_path / f"{number}-a").mkdir()

    with ThreadPoolExecutor(4) as pool:
        for drawn in [pool.submit(draw) for _ in range(4)]:
            drawn.result()
    assert sorted(number_of(path.name) for path in tmp_path.glob("*-a")) == list(range(1, 201))


def test_one_run_folder_asked_for_at_once_gets_one_job(one_slot, gate, tmp_path):
    names = [f"run-{number}" for number in range(5)]
    printed = submit_at_once(one_slot, gate, tmp_path, names, names, names)
    for answers in zip(*printed, strict=True):
        assert sum(not answer.startswith("refused out: got") for answer in answers) == 1
    folders = [job.run_folder for job in one_slot.list()]
    assert sorted(folders) == [str(tmp_path / name) for name in names]


def test_run_folder_of_a_job_is_refused_to_other_folders_of_jobs(one_slot, gate, tmp_path):
    (job,) = gated(one_slot, gate, tmp_path, 1)
    other = LocalJobs(tmp_path / "other", program=one_slot._program)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(AptError, match=f"accepted: a folder that no job writes. Job {job.id} writes it"):
        other.submit(["succeed"], tmp_path / "link" / "run-0")
    assert other.list() == []
    gate.open()
    until(lambda: one_slot.status(job.id) == "finished")
    assert not list(tmp_path.glob("cache/*/*/runs/*"))  # nothing is left of what held the folder
    again = other.submit(["succeed"], tmp_path / "run-0")
    until(lambda: other.status(again.id) == "finished")


def test_supervisor_killed_in_the_queue_is_lost_and_holds_nobody_up(one_slot, gate, tmp_path):
    first, second, third, fourth = gated(one_slot, gate, tmp_path, 4)
    until(lambda: gate.started() == [first.id] and record_of(one_slot, second).pid and record_of(one_slot, third).pid)
    kill(record_of(one_slot, second).pid)
    kill(record_of(one_slot, third).pid)
    assert one_slot.report(fourth.id).position == 1
    assert one_slot.report(second.id)[:3] == ("lost", None, None)
    assert not ticket_file(one_slot.folder, second.id).exists()
    gate.open()
    until(lambda: gate.started() == [first.id, fourth.id])  # nobody has looked at the third
    assert one_slot.status(third.id) == "lost"
    gate.open()
    until(lambda: one_slot.status(fourth.id) == "finished")
    assert gate.started() == [first.id, fourth.id]


def test_slot_of_a_killed_supervisor_is_cleared_by_the_next_job_without_anybody_looking(one_slot, gate, tmp_path):
    first = one_slot.submit(["hang"], tmp_path / "run")
    until(lambda: "trainer ready" in one_slot.logs(first.id) and "child ready" in one_slot.logs(first.id))
    (second,) = gated(one_slot, gate, tmp_path, 1)
    until(lambda: record_of(one_slot, second).pid)
    kill(record_of(one_slot, first).pid)
    until(lambda: gate.started() == [second.id])
    assert marked_processes(first.id) == []  # its trainer and the trainer's child ignore SIGTERM
    assert record_of(one_slot, first).state == "lost"


def test_cancel_of_the_running_job_lets_the_next_one_start(one_slot, gate, tmp_path):
    first, second = gated(one_slot, gate, tmp_path, 2)
    until(lambda: gate.started() == [first.id])
    one_slot.cancel(first.id)
    until(lambda: gate.started() == [first.id, second.id])
    assert one_slot.status(first.id) == "cancelled"


def test_jobs_of_a_machine_that_went_down_are_lost_and_can_be_queued_again(one_slot, gate, tmp_path):
    running, queued = gated(one_slot, gate, tmp_path, 2)
    until(lambda: gate.started() == [running.id] and record_of(one_slot, queued).pid)
    record = record_of(one_slot, running)
    for pid in (record_of(one_slot, queued).pid, record.pid, record.trainer_pid):
        os.kill(pid, signal.SIGKILL)
    until(lambda: one_slot.status(running.id) != "running" and one_slot.status(queued.id) != "queued")
    assert not any(marked_processes(job.id) for job in (running, queued))
    assert [one_slot.status(job.id) for job in (running, queued)] == ["lost", "lost"]
    assert one_slot.report(queued.id).started_at is None
    again = [one_slot.retry(job.id) for job in (queued, running)]
    for job, old in zip(again, (queued, running), strict=True):
        assert (job.arguments, job.run_folder) == (old.arguments, old.run_folder)
        assert number_of(job.id) > number_of(queued.id)
        gate.open()
        until(lambda job=job: one_slot.status(job.id) == "finished")
    assert gate.started() == [running.id, *(job.id for job in again)]
    assert one_slot.status(running.id) == "lost"


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system does not say who waits for a lock")
def test_waiting_supervisors_sleep_on_a_lock(one_slot, gate, tmp_path):
    jobs = gated(one_slot, gate, tmp_path, 4)
    until(lambda: gate.started() and all(record_of(one_slot, job).pid for job in jobs))
    sleeping = [psutil.Process(record_of(one_slot, job).pid) for job in jobs[2:]]
    until(lambda: all(blocked_on_a_lock(process) for process in sleeping))


def blocked_on_a_lock(process: psutil.Process) -> bool:
    """Whether the system lists the process as one that waits for a lock (``->`` in /proc/locks)."""
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(str(process.pid) in words for words in waiting)


def test_more_slots_of_a_later_submitter_do_not_let_it_overtake(one_slot, jobs, gate, tmp_path):
    first, second = gated(one_slot, gate, tmp_path, 2)
    third = jobs.submit(gate.arguments, tmp_path / "third")
    until(lambda: gate.started() == [first.id] and record_of(jobs, third).pid)
    assert jobs.report(third.id).position == 2
    gate.open()
    until(lambda: len(gate.started()) == 3)  # the third takes the slot that only it knows of
    assert set(gate.started()[1:]) == {second.id, third.id}
    assert jobs.report(second.id).started_at <= jobs.report(third.id).started_at
    assert (jobs.report(second.id).device, jobs.report(third.id).device) == ("cpu-0", "cpu-1")


GPUS = ("GPU-11111111-aaaa", "GPU-22222222-bbbb")


@pytest.fixture
def gpus(tmp_path, monkeypatch) -> None:
    """An ``nvidia-smi`` that names two GPUs."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nprintf '%s\\n' " + " ".join(GPUS) + "\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")


def visible_to(jobs: LocalJobs, job: Job) -> str | None:
    return psutil.Process(record_of(jobs, job).trainer_pid).environ().get("CUDA_VISIBLE_DEVICES")


@pytest.mark.usefixtures("gpus")
def test_gpu_has_one_job_at_a_time_of_all_folders(jobs, gate, tmp_path):
    other = LocalJobs(tmp_path / "other", program=jobs._program)
    first = jobs.submit(gate.arguments, tmp_path / "first")
    until(lambda: record_of(jobs, first).trainer_pid)
    second = other.submit([*gate.arguments, "--device", "cuda"], tmp_path / "second")
    until(lambda: record_of(other, second).trainer_pid)
    third = jobs.submit([*gate.arguments, "--device=cuda"], tmp_path / "third")
    on_cpu = jobs.submit([*gate.arguments, "--device", "cpu"], tmp_path / "cpu")
    until(lambda: record_of(jobs, on_cpu).trainer_pid)
    assert jobs.report(third.id)[:2] == ("queued", 1)
    assert jobs.report(on_cpu.id).device == "cpu-0"
    assert [visible_to(jobs, first), visible_to(other, second), visible_to(jobs, on_cpu)] == [*GPUS, ""]
    jobs.cancel(first.id)
    until(lambda: record_of(jobs, third).trainer_pid)
    assert visible_to(jobs, third) == GPUS[0]
    other.cancel(second.id)


@pytest.mark.usefixtures("gpus")
def test_hidden_gpus_are_not_used(jobs, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    job = jobs.submit(["environment", "CUDA_VISIBLE_DEVICES"], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "finished")
    assert (jobs.report(job.id).device, jobs.logs(job.id)) == (GPUS[1], repr(GPUS[1]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    job = jobs.submit(["environment", "CUDA_VISIBLE_DEVICES"], tmp_path / "other")
    until(lambda: jobs.status(job.id) == "finished")
    assert (jobs.report(job.id).device, jobs.logs(job.id)) == ("cpu-0", "''")


def test_gpu_asked_for_where_none_is_is_refused(jobs, tmp_path):
    with pytest.raises(AptError, match=r"device: got 'cuda'; accepted: auto or cpu\. No GPU is visible here"):
        jobs.submit(["train", "--device", "cuda"], tmp_path / "run")
    assert jobs.list() == []


def test_damaged_files_of_the_queue_hold_nobody_up(one_slot, gate, tmp_path):
    first, second = gated(one_slot, gate, tmp_path, 2)
    until(lambda: gate.started() == [first.id])
    tickets = ticket_file(one_slot.folder, "x").parent
    (tickets / "0001-abc").write_text("{")
    (tickets / "nonsense").write_text(json.dumps(["cpu-0"]))
    (one_slot.folder / "queue" / "slots" / "cpu-0").write_bytes(b"\xff\x00")
    assert one_slot.report(second.id).position == 1
    gate.open()
    gate.open()
    until(lambda: one_slot.status(second.id) == "finished")
