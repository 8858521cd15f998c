"""Jobs whose states a test tells, the pages that show them, and what a test reads from a page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analysis import job_book
from apt_core.jobs import Job, JobReport, JobState

START = datetime.now(UTC) - timedelta(hours=2)


class ToldJobs:
    """Jobs as a list; whoever tests says how each stands and what it printed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.jobs: list[Job] = []
        self.reports: dict[str, JobReport] = {}
        self.printed: dict[str, str] = {}
        self.asked_for_logs: list[str] = []
        self.retried: list[tuple[str, bool]] = []

    def add(self, name: str, state: JobState, *arguments: str, printed: str = "", **report) -> Job:
        job = self.submit(arguments or ["retrain", str(self.root / "a"), "--seed", "1"], self.root / name)
        self.tell(job, state, printed, **report)
        return job

    def tell(self, job: Job, state: JobState, printed: str = "", **report) -> None:
        times = {"started_at": START.isoformat()} if state != "queued" else {}
        times |= {"ended_at": (START + timedelta(minutes=5)).isoformat()} if state not in ("queued", "running") else {}
        self.reports[job.id] = JobReport(state, **{**times, **report})
        self.printed[job.id] = printed

    def submit(self, arguments: Sequence[str], run_folder: str | Path) -> Job:
        number = len(self.jobs) + 1
        folder = str(Path(run_folder).absolute())
        job = Job(f"{number:04}-a", list(arguments), folder, (START + timedelta(seconds=number)).isoformat(), "/")
        self.jobs.insert(0, job)
        waiting = sum(report.state == "queued" for report in self.reports.values())
        self.reports[job.id] = JobReport("queued", waiting + 1)
        return job

    def retry(self, job_id: str, halve_batch: bool = False) -> Job:
        self.retried.append((job_id, halve_batch))
        job = next(job for job in self.jobs if job.id == job_id)
        return self.submit(job.arguments, job.run_folder)

    def list(self) -> list[Job]:
        return list(self.jobs)

    def report(self, job_id: str) -> JobReport:
        return self.reports[job_id]

    def cancel(self, job_id: str) -> None:
        self.reports[job_id] = JobReport("cancelled")

    def logs(self, job_id: str, last_lines: int = 200) -> str:
        self.asked_for_logs.append(job_id)
        return self.printed.get(job_id, "")


def names(app: AppTest) -> list[str]:
    """The run folders of the cards, from above."""
    lines = [element.value.replace("\\", "") for element in app.markdown if "**" in element.value]
    return [line.split("**")[1].rpartition("/")[2] for line in lines]


def show_told_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToldJobs:
    """Makes the app look at ``tmp_path/runs`` and at these jobs, at every look anew, on a machine with two slots."""
    monkeypatch.setattr("sys.argv", ["app.py", "--runs", str(tmp_path / "runs")])
    monkeypatch.setattr(job_book, "FRESH_SECONDS", 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("APT_SLOTS", "2")
    told = ToldJobs(tmp_path / "runs")
    monkeypatch.setattr("analysis.pages.context.jobs", lambda: told)
    return told
