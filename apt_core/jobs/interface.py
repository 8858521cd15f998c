"""What a page or a command can ask of a place where jobs run, be it this machine or a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

JobState = Literal["queued", "running", "finished", "failed", "cancelled", "lost"]
"""lost: what watched over the job is gone, and so is the job; nobody can say how it ended"""

WAITING: tuple[JobState, ...] = ("queued", "running")
"""states that end by themselves; the others stay"""


@dataclass(frozen=True)
class Job:
    """A request to write a run folder."""

    id: str
    arguments: list[str]
    """after ``python -m apt_core``"""
    run_folder: str
    """absolute"""
    submitted_at: str
    """UTC, ISO 8601"""
    directory: str = ""
    """absolute; where relative paths among ``arguments`` start"""


class JobReport(NamedTuple):
    """How a job stands."""

    state: JobState
    position: int | None = None
    """in the queue, 1: starts next; None if it does not wait, or waits without an order"""
    device: str | None = None
    """the slot it has or had, such as cpu-0 or a GPU's UUID, or on a cluster cuda@10.0.0.5; None if it never started"""
    started_at: str | None = None
    """UTC, ISO 8601; of the training, not of the wait; None also where that is not known"""
    ended_at: str | None = None
    """UTC, ISO 8601; of a lost job: when that was noticed"""
    exit_code: int | None = None
    """of the training; negative: the signal that ended it"""


class Jobs(Protocol):
    """Where jobs run. A job goes on when whoever submitted it ends, and anybody who has the place can cancel it."""

    def submit(self, arguments: Sequence[str], run_folder: str | Path) -> Job:
        """Queues a command that writes ``run_folder``. Never two jobs at once for one folder.

        Raises:
            AptError: if the folder or the device does not suit, before anything is queued.
        """

    def retry(self, job_id: str, halve_batch: bool = False) -> Job:
        """Queues a job again that failed, was cancelled or is lost; an interrupted run is gone on with.

        Args:
            job_id: of the job, which stays as it is.
            halve_batch: see ``retry_arguments``.

        Raises:
            AptError: if it has finished or not ended yet, or as ``submit`` does.
        """

    def report(self, job_id: str) -> JobReport:
        """How a job stands; AptFileNotFoundError if there is no such job, as in all that follows."""

    def status(self, job_id: str) -> JobState:
        """The state alone."""

    def cancel(self, job_id: str) -> None:
        """Ends every process of a job; one that is queued never starts."""

    def logs(self, job_id: str, last_lines: int = 200) -> str:
        """The end of what the job printed."""

    def follow(self, job_id: str) -> Iterator[str]:
        """What the job printed and prints, piece by piece, until it has ended."""

    def list(self) -> list[Job]:
        """All jobs, the newest first."""
