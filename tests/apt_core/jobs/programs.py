"""Small real programs that stand for trainings, and what tests of jobs wait with."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from apt_core.jobs import Job, LocalJobs
from apt_core.jobs.job_files import JobRecord, read_record

DEADLINE_SECONDS = 120
"""far more than anything here takes on a busy machine"""

TRAINER = """
import os, signal, subprocess, sys, time
what = sys.argv[1]
if what == "succeed":
    print("\\rstep 1 of 2\\rstep 2 of 2")
    print("done")
elif what == "fail":
    print("about to fail")
    raise SystemExit("out of luck")
elif what == "environment":
    print(repr(os.environ.get(sys.argv[2])))
elif what == "here":
    print(os.getcwd())
elif what == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    child += "; print('child ready', flush=True); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
    print("trainer ready", flush=True)
    time.sleep(600)
elif what == "sleep":
    print("asleep", flush=True)
    time.sleep(600)
elif what == "orphan":
    child = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    child += "; print('child pid', os.getpid(), flush=True); time.sleep(600)"
    started = subprocess.Popen([sys.executable, "-c", child], env={}, start_new_session=True, stdout=subprocess.PIPE)
    print(started.stdout.readline().decode(), flush=True)
    if sys.argv[2] == "wait":
        time.sleep(600)
elif what == "gated":  # one line at the start, one at the end; between them it waits for one byte
    def write(line):
        with open(sys.argv[2], "a") as file:
            file.write(line + "\\n")
    name = os.environ["APT_JOB_ID"]
    write("start " + name)
    print("started", flush=True)
    with open(sys.argv[3], "rb", buffering=0) as gate:
        gate.read(1)
    write("end " + name)
"""


class Gate:
    """Lets gated programs end, one for each ``open``, and knows which have started and ended."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "log"
        self._fifo = folder / "gate"
        os.mkfifo(self._fifo)
        self._descriptor = os.open(self._fifo, os.O_RDWR)  # with a reader that never reads, no byte is lost
        self.arguments = ["gated", str(self._log), str(self._fifo)]

    def open(self) -> None:
        os.write(self._descriptor, b"x")

    def lines(self) -> list[tuple[str, str]]:
        """(start or end, job id), in order."""
        text = self._log.read_text() if self._log.exists() else ""
        return [tuple(line.split()) for line in text.splitlines()]

    def started(self) -> list[str]:
        return [job_id for what, job_id in self.lines() if what == "start"]

    def ended(self) -> list[str]:
        return [job_id for what, job_id in self.lines() if what == "end"]

    def close(self) -> None:
        os.close(self._descriptor)


def program(folder: Path) -> list[str]:
    """The command that runs ``TRAINER``, which is written to ``folder``."""
    script = folder / "trainer.py"
    script.write_text(TRAINER)
    return [sys.executable, "-S", str(script)]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def hanging(jobs: LocalJobs, run_folder: Path) -> Job:
    """A job whose trainer and the trainer's child ignore SIGTERM, once both run."""
    job = jobs.submit(["hang"], run_folder)
    until(lambda: "trainer ready" in jobs.logs(job.id) and "child ready" in jobs.logs(job.id))
    return job


def record_of(jobs: LocalJobs, job: Job) -> JobRecord:
    """What is on disk, without the look that ends what a dead supervisor left behind."""
    return read_record(jobs.folder / job.id)
