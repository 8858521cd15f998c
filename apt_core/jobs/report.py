"""How a job stands, from its folder; what a dead supervisor left behind is ended on the way."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

from apt_core.jobs import locks
from apt_core.jobs.interface import WAITING, JobReport
from apt_core.jobs.job_files import (
    ALIVE_FILE,
    CANCEL_FILE,
    JOB_FILE,
    LOG_FILE,
    JobRecord,
    is_a_copy,
    now,
    read_record,
    write_record,
)
from apt_core.jobs.process_tree import end_job, wait_for_end
from apt_core.jobs.queue import position, ticket_file

GRACE_SECONDS = 5.0


def report(folder: Path) -> JobReport:
    """How the job in ``folder`` stands. Processes of a job whose supervisor is gone are ended before it returns."""
    record = read_record(folder)
    place = None
    if not _has_ended(record) and locks.is_held(folder / ALIVE_FILE):
        place = position(folder.parent, folder.name) if record.state != "running" else None
        record = replace(record, state="running" if place is None else "queued")
    elif not _has_ended(record):
        record = _settle(folder)
    return JobReport(record.state, place, record.device, record.started_at, record.ended_at, record.exit_code)


def _settle(folder: Path) -> JobRecord:
    """Ends what is left of a job without a supervisor, and writes down how it ended."""
    if not (folder / JOB_FILE).exists():  # somebody has removed it
        return JobRecord(state="lost")
    try:
        descriptor = locks.take(folder / ALIVE_FILE, wait=True)
    except OSError:  # another user's job, or a disk that takes nothing
        descriptor = None
    try:
        record = read_record(folder)
        if _has_ended(record):  # between a look at its record and a look at its supervisor, or settled by another
            return record
        if not is_a_copy(folder):
            end_job(folder.name, GRACE_SECONDS)
            if record.trainer_pid is not None and record.trainer_started is not None:
                wait_for_end(record.trainer_pid, record.trainer_started, GRACE_SECONDS)
        record = replace(record, state=_ending(folder, record), ended_at=now())
        with contextlib.suppress(OSError):
            write_record(folder, record)
            ticket_file(folder.parent, folder.name).unlink(missing_ok=True)
        return record
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _ending(folder: Path, record: JobRecord) -> str:
    if (folder / CANCEL_FILE).exists():
        return "cancelled"
    log = folder / LOG_FILE
    crashed = record.started_at is None and log.is_file() and log.stat().st_size  # nothing else is printed so early
    return "failed" if crashed else "lost"


def _has_ended(record: JobRecord) -> bool:
    return record.state is not None and record.state not in WAITING
