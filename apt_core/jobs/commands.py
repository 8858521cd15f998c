"""``python -m apt_core jobs submit | list | logs | cancel | retry | fetch``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from apt_core.errors import bad_value
from apt_core.jobs.interface import Job, JobReport
from apt_core.jobs.job_arguments import COMMANDS, WRITES_ITS_RUN
from apt_core.jobs.places import JOBS_FOLDER, Executor, place

jobs_app = typer.Typer(
    help="Trainings in processes of their own, which queue for a slot and go on when the terminal is closed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Runs = Annotated[Path, typer.Option(help="folder of the runs that the jobs make")]
Slots = Annotated[
    int | None,
    typer.Option(
        help="jobs that may run at once on the processor, 1 to 1024 [default: APT_SLOTS, or one for every two cores]; "
        "a GPU has one job at a time"
    ),
]
Where = Annotated[Executor, typer.Option(help="where jobs run: this machine, or a Ray cluster")]
Address = Annotated[
    str | None,
    typer.Option(help="the cluster's dashboard, such as http://127.0.0.1:8265 [default: APT_RAY_ADDRESS]"),
]
JobId = Annotated[str, typer.Argument(help="as shown by 'jobs list'")]


@jobs_app.command("submit", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def submit_command(
    context: typer.Context,
    runs: Runs = Path("runs"),
    slots: Slots = None,
    executor: Where = "local",
    address: Address = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="where nodes of the cluster copy the run to, for 'jobs fetch', such as s3://bucket/runs or "
            "file:///mnt/runs [default: APT_RAY_STORAGE, or else nodes write --out itself]"
        ),
    ] = None,
) -> None:
    """Queue a command as a job, and print its id: jobs submit retrain RUN --prefix-lengths 4,0,8 --out DIR.

    The commands are train, retrain and transfer, with --out DIR, and measure RUN and evaluate RUN.
    """
    words = context.args
    if not words or words[0] not in COMMANDS:
        accepted = "train, retrain or transfer, with --out DIR; or measure RUN; or evaluate RUN"
        raise bad_value("command", " ".join(words), accepted)
    run_folder = _run_folder(context, words)
    jobs = place(runs, executor=executor, address=address, slots=slots, storage=storage)
    print(jobs.submit(words, run_folder).id)


@jobs_app.command("list")
def list_command(
    runs: Runs = Path("runs"),
    executor: Where = "local",
    address: Address = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON array on stdout")] = False,
) -> None:
    """Show all jobs, the newest first: id, state (place in the queue), device, run folder; times in UTC."""
    jobs = place(runs, executor=executor, address=address)
    rows = [_row(job, jobs.report(job.id)) for job in jobs.list()]
    if as_json:
        print(json.dumps(rows))
    elif not rows:
        print(f"no jobs in {runs / JOBS_FOLDER}" if executor == "local" else "no jobs in the cluster")
    else:
        _print_table(rows)


@jobs_app.command("logs")
def logs_command(
    job_id: JobId,
    runs: Runs = Path("runs"),
    executor: Where = "local",
    address: Address = None,
    lines: Annotated[int, typer.Option(min=1, help="lines from the end")] = 200,
    follow: Annotated[
        bool, typer.Option("--follow", help="print all of it, and go on until the job has ended; Ctrl-C leaves it be")
    ] = False,
) -> None:
    """Show the end of what a job printed."""
    jobs = place(runs, executor=executor, address=address)
    if not follow:
        print(jobs.logs(job_id, lines))
        return
    for part in jobs.follow(job_id):
        print(part, end="", flush=True)


@jobs_app.command("cancel")
def cancel_command(
    job_id: JobId, runs: Runs = Path("runs"), executor: Where = "local", address: Address = None
) -> None:
    """End a job and every process it started; one that is queued never starts."""
    jobs = place(runs, executor=executor, address=address)
    jobs.cancel(job_id)
    print(f"{job_id}  {jobs.status(job_id)}")


@jobs_app.command("retry")
def retry_command(
    job_id: JobId,
    runs: Runs = Path("runs"),
    slots: Slots = None,
    executor: Where = "local",
    address: Address = None,
    halve_batch: Annotated[
        bool,
        typer.Option(
            "--halve-batch",
            help="for a training that ran out of memory: half the batch and twice the accumulation, which needs about "
            "half for optimizer steps of the same examples",
        ),
    ] = False,
) -> None:
    """Queue a job again that failed, was cancelled or is lost, and print the new id.

    A run that it left interrupted is gone on with, from its last checkpoint.
    """
    print(place(runs, executor=executor, address=address, slots=slots).retry(job_id, halve_batch=halve_batch).id)


@jobs_app.command("fetch")
def fetch_command(job_id: JobId, address: Address = None) -> None:
    """Bring the run of a job on a Ray cluster here, if it was submitted with --storage, and print its folder."""
    from apt_core.jobs.ray_jobs import RayJobs

    print(RayJobs(address).fetch(job_id))


def _run_folder(context: typer.Context, words: list[str]) -> Path:
    """The folder that a command writes; its words are checked as the command itself would, before anything waits."""
    if words[0] not in WRITES_ITS_RUN and not any(word.partition("=")[0] == "--out" for word in words):
        raise bad_value("out", None, "--out with the new run's folder, so that the job can be found again")
    command = context.find_root().command.get_command(context, words[0])
    parameters = command.make_context(words[0], words[1:]).params
    return parameters["run" if words[0] in WRITES_ITS_RUN else "out"]


def _row(job: Job, report: JobReport) -> dict[str, Any]:
    return {
        "id": job.id,
        "status": report.state,
        "position": report.position,
        "device": report.device,
        "submitted_at": job.submitted_at,
        "started_at": report.started_at,
        "ended_at": report.ended_at,
        "exit_code": report.exit_code,
        "run": job.run_folder,
        "arguments": job.arguments,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    head = ("id", "state", "device", "submitted", "started", "ended", "command", "run")
    table = [head]
    for row in rows:
        state = f"{row['status']} {row['position']}" if row["position"] else row["status"]
        times = [(row[name] or "-")[:19] for name in ("submitted_at", "started_at", "ended_at")]
        command = row["arguments"][0] if row["arguments"] else "-"
        table.append((row["id"], state, row["device"] or "-", *times, command, row["run"]))
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
