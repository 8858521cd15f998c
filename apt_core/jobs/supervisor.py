"""The process that watches over one job: waits for its turn, starts the training, writes how it ended.

Started as ``python -m apt_core.jobs.supervisor FOLDER CLAIM-FILE ALIVE TICKET CLAIM PROGRAM...``, where the three are
descriptors of locks that whoever submitted the job has taken for it; not for people.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import psutil

from apt_core.jobs import locks
from apt_core.jobs.devices import slot_environment
from apt_core.jobs.job_files import CANCEL_FILE, LOG_FILE, JobRecord, now, read_job, write_record
from apt_core.jobs.log_file import why_killed
from apt_core.jobs.process_tree import end_job
from apt_core.jobs.queue import read_ticket, take_slot, ticket_file, wait_for_turn
from apt_core.jobs.report import GRACE_SECONDS, report

LOOK_SECONDS = 1.0
"""between two looks whether the job is to end"""
NOT_STARTED = 127
"""exit code of a program that could not be started, as in a shell"""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Held(NamedTuple):
    """Descriptors of the locks that a job has from its submission on."""

    alive: int
    ticket: int
    claim: int


def supervise(folder: Path, claim_file: Path, held: Held, command: list[str]) -> None:
    """Waits for a slot, runs ``command`` with its output in ``folder/log.txt`` and writes how that went."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # while it waits, whoever cancels may simply end this process
    for descriptor in held:
        os.set_inheritable(descriptor, False)
    record = JobRecord(pid=os.getpid())
    _write(folder, record)
    ticket = read_ticket(ticket_file(folder.parent, folder.name))
    wait_for_turn(ticket.path)
    device, slot = take_slot(ticket, folder, report)
    signal.signal(signal.SIGTERM, lambda *_: None)  # from here on they end the training, and this one writes the end
    if not _is_cancelled(folder):
        _adopt_orphans()
        record = replace(record, state="running", device=device, started_at=now())
        record = _run(folder, record, command, held, slot)
        end_job(folder.name, GRACE_SECONDS)
    ticket.path.unlink(missing_ok=True)
    ending = "finished" if record.exit_code == 0 else "cancelled" if _is_cancelled(folder) else "failed"
    locks.remove(claim_file, held.claim)  # before the end is seen: the folder may then be submitted again
    _write(folder, replace(record, state=ending, ended_at=now()))


def _run(folder: Path, record: JobRecord, command: list[str], held: Held, slot: int) -> JobRecord:
    """Starts the training, lets the next job have its turn, and waits for the end."""
    with (folder / LOG_FILE).open("ab") as log:
        try:
            trainer = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(slot, held.claim),
                env={**os.environ, **slot_environment(record.device or "")},
                preexec_fn=_end_with_parent,
            )
        except OSError as problem:
            _say(folder, f"{command[0]} could not be started: {problem.strerror}")
            return replace(record, exit_code=NOT_STARTED)
    with contextlib.suppress(psutil.Error):
        started = psutil.Process(trainer.pid).create_time()
        record = replace(record, trainer_pid=trainer.pid, trainer_started=started)
    _write(folder, record)
    locks.remove(ticket_file(folder.parent, folder.name), held.ticket)
    code = None
    while code is None:
        if _is_cancelled(folder):  # who asked may have looked before there was a training, or sit at another machine
            code = _end(trainer)
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = trainer.wait(LOOK_SECONDS)
    if code < 0 and not _is_cancelled(folder):
        _say(folder, _ended_by(folder, -code))
    return replace(record, exit_code=code)


def _end(trainer: subprocess.Popen) -> int:
    """SIGTERM, then SIGKILL; what it has started is ended after it."""
    trainer.terminate()
    try:
        return trainer.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        trainer.kill()
        return trainer.wait()


def _ended_by(folder: Path, number: int) -> str:
    if number == signal.SIGKILL:
        job = read_job(folder)
        return why_killed(job.arguments if job is not None else [])
    return f"ended by {signal.Signals(number).name}"


def _is_cancelled(folder: Path) -> bool:
    return (folder / CANCEL_FILE).exists()


def _write(folder: Path, record: JobRecord) -> None:
    """Writes how the job stands; a full disk must not end a training that may still come to its end."""
    with contextlib.suppress(OSError):
        write_record(folder, record)


def _say(folder: Path, problem: str) -> None:
    """Adds a line to the job's log, if the disk takes it; what was printed last may be no whole line."""
    with contextlib.suppress(OSError), (folder / LOG_FILE).open("ab+") as log:
        log.seek(max(0, log.tell() - 1))
        end = b"" if log.read() in (b"", b"\n") else b"\n"
        log.write(end + f"error: {problem}.\n".encode())


def _adopt_orphans() -> None:
    """On Linux, grandchildren whose parent dies become children of this process and can be waited for."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _end_with_parent() -> None:
    """On Linux, the training gets SIGTERM when this process is killed; elsewhere, whoever looks at the job ends it."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    supervise(Path(sys.argv[1]), Path(sys.argv[2]), Held(*map(int, sys.argv[3:6])), sys.argv[6:])
