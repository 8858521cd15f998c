"""Jobs on this machine: a detached supervisor process for each, which outlives the app and the terminal.

<folder>/<id>/job.json     what was asked for
<folder>/<id>/state.json   written by the supervisor, and by whoever cancels
<folder>/<id>/log.txt      what the training printed
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import apt_core
from apt_core.errors import AptFileNotFoundError, AptValueError
from apt_core.gate_log import write_atomic
from apt_core.processes import MARKER, end_marked, is_alive
from apt_core.run_format import RUN_FILE, run_exists, utc_now

JobState = Literal["running", "finished", "failed", "cancelled", "lost"]

JOB_FILE = "job.json"
STATE_FILE = "state.json"
LOG_FILE = "log.txt"
GRACE_SECONDS = 5.0
_LOG_TAIL_BYTES = 256 * 1024
_ID = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Job:
    """A request to create a run."""

    id: str
    arguments: list[str]
    """after ``python -m apt_core``"""
    run_folder: str
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
        run_folder = Path(run_folder)
        if (run_folder / RUN_FILE).exists():
            raise run_exists(run_folder)
        for other in self.list():
            if Path(other.run_folder).resolve() == run_folder.resolve() and self.status(other.id) == "running":
                raise AptValueError(
                    f"out: got {str(run_folder)!r}, which job {other.id} writes; accepted: another folder."
                )
        job = Job(uuid.uuid4().hex[:12], [str(word) for word in arguments], str(run_folder), utc_now())
        folder = self.folder / job.id
        folder.mkdir(parents=True)
        write_atomic(folder / JOB_FILE, json.dumps(asdict(job)).encode())
        package = str(Path(apt_core.__file__).resolve().parent.parent)
        search_path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "apt_core.jobs.supervisor", str(folder.resolve()), *self._program, *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, MARKER: job.id, "PYTHONPATH": search_path, "PYTHONUNBUFFERED": "1"},
        )
        with supervisor.stdout as said:
            said.readline()  # the supervisor's first state is on disk
        return job

    def list(self) -> list[Job]:
        """All jobs, the newest first; folders that are damaged are passed over."""
        jobs = []
        for path in self.folder.glob(f"*/{JOB_FILE}"):
            try:
                jobs.append(Job(**json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError):
                continue
        return sorted(jobs, key=lambda job: (job.submitted_at, job.id), reverse=True)

    def status(self, job_id: str) -> JobState:
        """What has become of a job; processes that a dead supervisor left behind are ended.

        Raises:
            AptFileNotFoundError: if there is no such job.
        """
        state = self._state(job_id)
        if state.get("state") != "running":
            return state.get("state", "lost")
        if is_alive(state["pid"], state["started"]):
            return "running"
        state = self._state(job_id)  # it may have ended between the two looks
        if state.get("state") != "running":
            return state["state"]
        end_marked(job_id, GRACE_SECONDS)
        return "lost"

    def cancel(self, job_id: str, grace_seconds: float = GRACE_SECONDS) -> None:
        """Ends the whole process tree of a job: SIGTERM, then SIGKILL. Does nothing if it has ended.

        Raises:
            AptFileNotFoundError: if there is no such job.
        """
        state = self._state(job_id)
        if self.status(job_id) != "running":
            return
        write_atomic(
            self.folder / job_id / STATE_FILE,
            json.dumps({**state, "state": "cancelled", "ended_at": utc_now()}).encode(),
        )
        end_marked(job_id, grace_seconds)

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
        lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
        return "\n".join(lines[-last_lines:]).strip("\n")

    def _known(self, job_id: str) -> Path:
        folder = self.folder / job_id
        if not _ID.fullmatch(job_id) or not (folder / JOB_FILE).is_file():
            raise AptFileNotFoundError(
                f"job: got {job_id!r}; accepted: an id that 'python -m apt_core jobs list' shows."
            )
        return folder

    def _state(self, job_id: str) -> dict[str, Any]:
        path = self._known(job_id) / STATE_FILE
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            return state if isinstance(state, dict) else {}
        except (OSError, ValueError):
            return {}
