"""What Ray keeps of a job, as ours: the request in the job's metadata, and how it stands. No torch, no Ray.

A client keeps nothing: whoever has the cluster's address sees the same jobs.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from apt_core.jobs.interface import Job, JobReport, JobState

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

_KEY = "apt_job"
_CANCELS = "apt_cancels"
_STATES: dict[str, JobState] = {
    "PENDING": "queued",
    "RUNNING": "running",
    "SUCCEEDED": "finished",
    "FAILED": "failed",
    "STOPPED": "cancelled",
}
_SUPERVISOR_DIED = ("JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE")
_SUPERVISOR_GONE = "JOB_SUPERVISOR_ACTOR_START_FAILURE"
"""of a job that had started: Ray does not find what watched over it"""


class Record(NamedTuple):
    """A job's request, and where it was to run."""

    job: Job
    device: str
    """cpu or cuda"""
    storage: str = ""
    """where its run is copied to; empty: the nodes write ``job.run_folder`` itself"""
    place: str = ""
    """its folder in ``storage``"""


def metadata_of(record: Record) -> dict[str, str]:
    """The metadata that ``record_of`` reads."""
    job = record.job
    content = {
        "arguments": job.arguments,
        "run_folder": job.run_folder,
        "submitted_at": job.submitted_at,
        "directory": job.directory,
        "device": record.device,
        "storage": record.storage,
        "place": record.place,
    }
    return {_KEY: json.dumps(content)}


def record_of(details: JobDetails) -> Record | None:
    """A job's request; None if the job is not one of ours."""
    try:
        content = json.loads((details.metadata or {})[_KEY])
        arguments = content["arguments"]
        names = ("run_folder", "submitted_at", "directory", "device", "storage", "place")
        run_folder, submitted_at, directory, *rest = texts = [content[name] for name in names]
    except (LookupError, TypeError, ValueError, RecursionError):
        return None
    if not isinstance(arguments, list) or not all(isinstance(text, str) for text in (*arguments, *texts)):
        return None
    return Record(Job(details.submission_id, arguments, run_folder, submitted_at, directory), *rest)


def cancel_id(job_id: str) -> str:
    """The submission id of the mark that a waiting job is cancelled: a job that does nothing.

    Ray cannot end a job that waits before its turn, and keeps nothing else that all clients see.
    """
    return f"{job_id}-cancel"


def cancel_metadata(job_id: str) -> dict[str, str]:
    """The metadata of such a mark."""
    return {_CANCELS: job_id}


def may_be_marked(details: JobDetails) -> bool:
    """Whether such a mark would tell how a job stands: it has never started."""
    return details.driver_node_id is None and details.status.value in ("PENDING", "FAILED")


def report_of(details: JobDetails, mark: JobDetails | None) -> JobReport:
    """How a job stands.

    Ray does not keep when a wait ended, so that ``started_at`` stays unknown.

    Args:
        details: of the job.
        mark: of the job that marks it as cancelled, if there is one.
    """
    record = record_of(details)
    host = urlsplit(details.driver_agent_http_address or "").hostname
    device = f"{record.device}@{host}" if record and host else None
    if mark is not None and may_be_marked(details):
        return JobReport("cancelled", ended_at=_time(mark.start_time))
    state = _STATES[details.status.value]
    gone = details.error_type == _SUPERVISOR_GONE and details.driver_node_id is not None
    if state == "failed" and (gone or details.error_type in _SUPERVISOR_DIED):
        state = "lost"
    return JobReport(state, device=device, ended_at=_time(details.end_time), exit_code=details.driver_exit_code)


def _time(milliseconds: int | None) -> str | None:
    """UTC, ISO 8601."""
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
