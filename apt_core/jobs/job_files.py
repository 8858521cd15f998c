"""What a job has on disk, and how that is read: with a bound, every field checked.

<folder>/<id>/job.json     what was asked for
<folder>/<id>/alive        locked by the supervisor as long as it lives, and before that by whoever submits; holds its
                           own inode, which a copy of the folder has not
<folder>/<id>/state.json   how it went: written by the supervisor; by others only once that is gone
<folder>/<id>/cancel       there once somebody asked for the end
<folder>/<id>/log.txt      what the job printed

No pydantic and no numpy here: they would double what each of a hundred waiting supervisors takes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from apt_core.errors import AptError
from apt_core.files import read_bounded, write_atomic
from apt_core.jobs.interface import Job, JobState
from apt_core.secrets import redact

JOB_FILE = "job.json"
ALIVE_FILE = "alive"
STATE_FILE = "state.json"
CANCEL_FILE = "cancel"
LOG_FILE = "log.txt"
_MOST_BYTES = 4 * 2**20
_CACHED_JOBS = 4096
_MOST_DIGITS = 32
_NUMBERED = re.compile(r"([0-9]{1,9})-[0-9a-f]+")


@dataclass(frozen=True)
class JobRecord:
    """``state.json``; nothing in it is known of a job that waits."""

    state: JobState | None = None
    pid: int | None = None
    """of the supervisor"""
    trainer_pid: int | None = None
    trainer_started: float | None = None
    """seconds since the epoch"""
    device: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    exit_code: int | None = None


def now() -> str:
    """UTC, ISO 8601, to the millisecond: many jobs may be submitted or started in a second."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def number_of(job_id: str) -> int:
    """The place of a job in the order of submission, which its id begins with; 0 if it says none."""
    match = _NUMBERED.fullmatch(job_id)
    return int(match[1]) if match else 0


def write_job(folder: Path, job: Job) -> None:
    """Writes ``job.json``, without secrets of the environment; from then on the job is seen by others."""
    kept = replace(job, arguments=[redact(word) for word in job.arguments])
    write_atomic(folder / JOB_FILE, json.dumps(asdict(kept)).encode())


def read_job(folder: Path) -> Job | None:
    """The job of a folder; None if it is damaged or another folder's. A file is opened once, until it changes."""
    try:
        found = (folder / JOB_FILE).stat()
    except OSError:
        return None
    return _read_job(folder, found.st_mtime_ns, found.st_size, found.st_ino)


@lru_cache(maxsize=_CACHED_JOBS)
def _read_job(folder: Path, *stamp: int) -> Job | None:
    content = read_object(folder / JOB_FILE)
    arguments = content.get("arguments")
    texts = [content.get(name, "") for name in ("id", "run_folder", "submitted_at", "directory")]
    if not isinstance(arguments, list) or not all(isinstance(text, str) for text in (*arguments, *texts)):
        return None
    job_id, run_folder, submitted_at, directory = texts
    if job_id != folder.name or not run_folder:
        return None
    return Job(job_id, arguments, run_folder, submitted_at, directory)


def sign_alive(descriptor: int) -> None:
    """Writes into ``alive`` which file it is."""
    os.pwrite(descriptor, str(os.fstat(descriptor).st_ino).encode(), 0)


def is_a_copy(folder: Path) -> bool:
    """Whether a job's folder was copied from where it was submitted: its processes, if any, are the original's."""
    path = folder / ALIVE_FILE
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_bytes()[:_MOST_DIGITS]) != path.stat().st_ino
    return True


def write_record(folder: Path, record: JobRecord) -> None:
    """Writes ``state.json``."""
    write_atomic(folder / STATE_FILE, json.dumps(asdict(record)).encode())


def read_record(folder: Path) -> JobRecord:
    """How a job went as its folder says; fields that are damaged count as unknown."""
    content = read_object(folder / STATE_FILE)
    numbers = {name: content.get(name) for name in ("pid", "trainer_pid", "exit_code")}
    texts = {name: content.get(name) for name in ("device", "started_at", "ended_at")}
    state, started = content.get("state"), content.get("trainer_started")
    return JobRecord(
        state=state if isinstance(state, str) and state in get_args(JobState) else None,
        trainer_started=started if isinstance(started, float) else None,
        **{name: value if type(value) is int else None for name, value in numbers.items()},
        **{name: value if isinstance(value, str) else None for name, value in texts.items()},
    )


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one if it cannot be read."""
    try:
        content = json.loads(read_bounded(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError, AptError):
        return {}
    return content if isinstance(content, dict) else {}
