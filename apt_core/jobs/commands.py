"""``python -m apt_core jobs submit | list | logs | cancel``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from apt_core.errors import bad_value
from apt_core.jobs.local import LocalJobs

JOBS_FOLDER = ".jobs"
"""inside the folder of the runs that the jobs make"""

jobs_app = typer.Typer(
    help="Trainings in processes of their own, which go on when the terminal is closed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Runs = Annotated[Path, typer.Option(help="folder of the runs that the jobs make")]
JobId = Annotated[str, typer.Argument(help="as shown by 'jobs list'")]


@jobs_app.command("submit", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def submit_command(context: typer.Context, runs: Runs = Path("runs")) -> None:
    """Start a train or retrain command as a job: jobs submit retrain RUN --prefix-lengths 4,0,8 --out DIR."""
    words = context.args
    if not words or words[0] not in ("train", "retrain"):
        raise bad_value("command", " ".join(words), "train ... --out DIR or retrain ... --out DIR")
    if "--out" not in words[:-1]:
        raise bad_value("out", None, "--out with the new run's folder, so that the job can be found again")
    job = LocalJobs(runs / JOBS_FOLDER).submit(words, words[words.index("--out") + 1])
    print(job.id)


@jobs_app.command("list")
def list_command(
    runs: Runs = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON array on stdout")] = False,
) -> None:
    """Show all jobs, the newest first."""
    jobs = LocalJobs(runs / JOBS_FOLDER)
    rows = [
        {"id": job.id, "status": jobs.status(job.id), "submitted_at": job.submitted_at, "run": job.run_folder}
        for job in jobs.list()
    ]
    if as_json:
        print(json.dumps(rows))
    elif not rows:
        print(f"no jobs in {runs / JOBS_FOLDER}")
    for row in [] if as_json else rows:
        print(f"{row['id']}  {row['status']:<9}  {row['submitted_at']}  {row['run']}")


@jobs_app.command("logs")
def logs_command(
    job_id: JobId,
    runs: Runs = Path("runs"),
    lines: Annotated[int, typer.Option(min=1, help="lines from the end")] = 200,
) -> None:
    """Show the end of what a job printed."""
    print(LocalJobs(runs / JOBS_FOLDER).logs(job_id, lines))


@jobs_app.command("cancel")
def cancel_command(job_id: JobId, runs: Runs = Path("runs")) -> None:
    """End a job and every process it started."""
    jobs = LocalJobs(runs / JOBS_FOLDER)
    jobs.cancel(job_id)
    print(f"{job_id}  {jobs.status(job_id)}")
