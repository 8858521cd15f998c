"""What is known of the jobs of one place, asked for no more often than it can have changed. No Streamlit, no torch."""

from __future__ import annotations

import time
from threading import Lock
from typing import NamedTuple

from apt_core.errors import AptError, AptFileNotFoundError
from apt_core.jobs import Job, JobReport, Jobs
from apt_core.jobs.interface import WAITING

FRESH_SECONDS = 1.0
"""two looks within this time are one: every browser that is open looks every few seconds"""
FAILED_SECONDS = 10.0
"""a place that did not answer is not asked again for so long: it may be a cluster, and every page would wait for it"""
FIRST_IN_LINE = 10
"""jobs that wait and are asked at every look"""
IN_TURN = 5
"""of those behind them, so many more, the one that was asked longest ago first"""


class Standing(NamedTuple):
    """A job and how it stands."""

    job: Job
    report: JobReport

    @property
    def waits(self) -> bool:
        """Whether it will change by itself."""
        return self.report.state in WAITING


class JobBook:
    """Remembers how jobs stand, so that a look costs little however many there are.

    A job that has ended stays as it is and is asked once. One that runs is asked at every look. Of many that wait, the
    first in line are asked at every look and the others in turn, so that the place of a job far behind may be some
    looks old: each answer costs the more, the more wait.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: dict[str, JobReport] = {}
        self._asked: dict[str, int] = {}  # number of the look that asked last
        self._looks = 0
        self._seen: list[Standing] = []
        self._problem: AptError | OSError | None = None
        self._fresh_until = 0.0

    def look(self, jobs: Jobs) -> list[Standing]:
        """All jobs, the newest first.

        Raises:
            AptError, OSError: as ``jobs.list`` and ``jobs.report`` do; the same again for ``FAILED_SECONDS``.
        """
        with self._lock:
            if time.monotonic() >= self._fresh_until:
                try:
                    self._seen, self._problem = self._look(jobs), None
                except (AptError, OSError) as problem:
                    self._problem = problem
                self._fresh_until = time.monotonic() + (FAILED_SECONDS if self._problem else FRESH_SECONDS)
            if self._problem is not None:
                raise self._problem.with_traceback(None)
            return list(self._seen)

    def forget(self, *job_ids: str) -> None:
        """The next look asks anew: which jobs there are, and how these stand."""
        with self._lock:
            self._fresh_until = 0.0
            for job_id in job_ids:
                self._known.pop(job_id, None)

    def _look(self, jobs: Jobs) -> list[Standing]:
        listed = jobs.list()
        self._looks += 1
        ids = {job.id for job in listed}
        for job in self._to_ask(listed):
            try:
                self._known[job.id] = jobs.report(job.id)
            except AptFileNotFoundError:  # removed since it was listed
                ids.discard(job.id)
            self._asked[job.id] = self._looks
        self._known = {job_id: report for job_id, report in self._known.items() if job_id in ids}
        self._asked = {job_id: look for job_id, look in self._asked.items() if job_id in ids}
        return [Standing(job, self._known[job.id]) for job in listed if job.id in ids]

    def _to_ask(self, listed: list[Job]) -> list[Job]:
        unknown = [job for job in listed if job.id not in self._known]
        known = [(job, self._known[job.id]) for job in listed if job.id in self._known]
        running = [job for job, report in known if report.state == "running"]
        line = [(report.position or 0, job) for job, report in known if report.state == "queued"]
        line.sort(key=lambda place: place[0])
        behind = sorted((job for _, job in line[FIRST_IN_LINE:]), key=lambda job: self._asked[job.id])
        return [*unknown, *running, *(job for _, job in line[:FIRST_IN_LINE]), *behind[:IN_TURN]]
