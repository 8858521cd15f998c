"""Jobs on this machine: a detached supervisor process for each, which outlives the app and the terminal.

<folder>/<id>/job.json     what was asked for
<folder>/<id>/state.json   how it goes, written by the supervisor; by others only once that is gone
<folder>/<id>/cancel       there once somebody asked for the end
<folder>/<id>/log.txt      what the training printed
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import psutil

import apt_core
from apt_core.errors import AptFileNotFoundError, AptValueError
from apt_core.files import write_atomic
from apt_core.jobs.process_tree import end_job
from apt_core.processes import MARKER, is_alive, marked_processes
from apt_core.run_format import RUN_FILE, run_exists, utc_now

JobState = Literal["running", "finished", "failed", "cancelled", "lost"]

JOB_FILE = "job.json"
PENDING_JOB_FILE = "job.json.pending"
"""the supervisor renames it once its first state is on disk, so that no job is ever seen without a state"""
STATE_FILE = "state.json"
CANCEL_FILE = "cancel"
LOG_FILE = "log.txt"
GRACE_SECONDS = 5.0
_LOG_TAIL_BYTES = 256 * 1024
_SUPERVISOR = "apt_core.jobs.supervisor"
_ID = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Job:
    """A request to create a run."""

    id: str
    arguments: list[str]
    """after ``python -m apt_core``"""
    run_folder: str
    """absolute"""
    submitted_at: str
    """UTC, ISO 8601"""


class LocalJobs:
    """Trainings on this machine.

    Args:
        folder: where jobs keep their state; made when the first is submitted.
        program: what ``arguments`` are given to.
    """

    def __init__(self, folder: str | Path, program: Sequence[str] = (sys.executable, "-m", "apt_core")) -> None:
        self.folder = Path(folder)
        self._program = list(program)

    def submit(self, arguments: Sequence[str], run_folder: str | Path) -> Job:
        """Starts a training that goes on when the caller ends.

        Args:
            arguments: after ``python -m apt_core``, such as ``["retrain", "runs/a", "--prefix-lengths", "4,0,8"]``.
            run_folder: the folder it will write.

        Raises:
            AptFileExistsError: if ``run_folder`` holds a run already.
            AptValueError: if another job that still runs writes to it.
        """
        if (Path(run_folder) / RUN_FILE).exists():
            raise run_exists(Path(run_folder))
        written = Path(run_folder).resolve()
        for other in self.list():
            if Path(other.run_folder).resolve() == written and self.status(other.id) == "running":
                raise AptValueError(
                    f"out: got {str(run_folder)!r}, which job {other.id} writes; accepted: another folder."
                )
        job = Job(uuid.uuid4().hex[:12], [str(word) for word in arguments], str(Path(run_folder).absolute()), utc_now())
        folder = self.folder / job.id
        folder.mkdir(parents=True)
        write_atomic(folder / PENDING_JOB_FILE, json.dumps(asdict(job)).encode())
        package = str(Path(apt_core.__file__).resolve().parent.parent)
        search_path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        with (folder / LOG_FILE).open("wb") as log:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", _SUPERVISOR, str(folder.resolve()), *self._program, *job.arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env={**os.environ, MARKER: job.id, "PYTHONPATH": search_path, "PYTHONUNBUFFERED": "1"},
            )
        with supervisor.stdout as said:
            started = said.readline()
        if not started and (folder / PENDING_JOB_FILE).exists():  # it died at once; the log says why
            _write_end(folder, {}, "failed")
            os.replace(folder / PENDING_JOB_FILE, folder / JOB_FILE)
        return job

    def list(self) -> list[Job]:
        """All jobs, the newest first; folders that are damaged are passed over."""
        jobs = []
        for path in self.folder.glob(f"*/{JOB_FILE}"):
            try:
                job = Job(**_read_object(path))
            except TypeError:
                continue
            if job.id == path.parent.name and all(isinstance(text, str) for text in (job.run_folder, job.submitted_at)):
                jobs.append(job)
        return sorted(jobs, key=lambda job: (job.submitted_at, job.id), reverse=True)

    def status(self, job_id: str) -> JobState:
        """What has become of a job; processes that a dead supervisor left behind are ended.

        Raises:
            AptFileNotFoundError: if there is no such job.
        """
        for _ in range(2):  # it may end between a look at its state and a look at its supervisor
            state = self._state(job_id)
            if state.get("state", "running") != "running":
                return state["state"]
            if _is_supervised(job_id, state):
                return "running"
        end_job(job_id, GRACE_SECONDS)
        return "cancelled" if (self.folder / job_id / CANCEL_FILE).exists() else "lost"

    def cancel(self, job_id: str, grace_seconds: float = GRACE_SECONDS) -> None:
        """Ends the whole process tree of a job: SIGTERM, then SIGKILL. Does nothing if it has ended.

        Raises:
            AptFileNotFoundError: if there is no such job.
        """
        if self.status(job_id) != "running":
            return
        folder = self.folder / job_id
        (folder / CANCEL_FILE).touch()
        end_job(job_id, grace_seconds)
        state = self._state(job_id)
        if state.get("state", "running") == "running" and not _is_supervised(job_id, state):
            _write_end(folder, state, "cancelled")  # the supervisor had to be killed before it could

    def logs(self, job_id: str, last_lines: int = 200) -> str:
        """The end of what the training printed; of a progress bar only its last state.

        Raises:
            AptFileNotFoundError: if there is no such job.
        """
        path = self._known(job_id) / LOG_FILE
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
        lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.strip("\n").split("\n")]
        return "\n".join(lines[-last_lines:])

    def _known(self, job_id: str) -> Path:
        folder = self.folder / job_id
        if not _ID.fullmatch(job_id) or not (folder / JOB_FILE).is_file():
            raise AptFileNotFoundError(
                f"job: got {job_id!r}; accepted: an id that 'python -m apt_core jobs list' shows."
            )
        return folder

    def _state(self, job_id: str) -> dict[str, Any]:
        state = _read_object(self._known(job_id) / STATE_FILE)
        return state if state.get("state") in get_args(JobState) else {}


def _is_supervised(job_id: str, state: dict[str, Any]) -> bool:
    pid, started = state.get("pid"), state.get("started")
    if isinstance(pid, int) and isinstance(started, int | float):
        return is_alive(pid, started)
    for process in marked_processes(job_id):  # the state was damaged by somebody else
        with contextlib.suppress(psutil.Error):
            if _SUPERVISOR in process.cmdline():
                return True
    return False


def _write_end(folder: Path, state: dict[str, Any], ending: JobState) -> None:
    write_atomic(folder / STATE_FILE, json.dumps({**state, "state": ending, "ended_at": utc_now()}).encode())


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one if it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
