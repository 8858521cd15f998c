"""Jobs in words and in order: how far one is, how long it still takes, what to do once it has ended; pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from analysis.job_book import Standing
from analysis.run_checks import time_of
from apt_core.jobs import Job, JobReport
from apt_core.jobs.job_arguments import MAKES_A_RUN, MAKES_RUNS, WRITES_ITS_RUN, command_of
from apt_core.run_format import RunInfo

FILTERS = ("all", "running", "waiting", "finished", "failed or lost", "cancelled")
MIN_STEPS = 5
"""optimizer steps that must be known before anything is said on the time left"""
RESUMES = "Retry goes on from its last checkpoint, or starts again if there is none yet."
LONGEST_LIST = 3
"""jobs that a notice names one by one"""
_FILTERED = {
    "running": ("running",),
    "waiting": ("queued",),
    "finished": ("finished",),
    "failed or lost": ("failed", "lost"),
    "cancelled": ("cancelled",),
}
_FINISHED = {
    "train": "The Evidence page says whether its gates may be followed.",
    "retrain": "Compare shows it beside the run that it was made from.",
    "transfer": "The Tasks page shows whether the lengths carry over.",
    "measure": "The Evidence page shows what was measured.",
    "evaluate": "The Runs page has the new metric, the Errors page the examples.",
}


class Board(NamedTuple):
    """Jobs in the order in which a person wants to see them."""

    running: list[Standing]
    """the one that started last first"""
    waiting: list[Standing]
    """the one that starts next first"""
    ended: list[Standing]
    """the one that ended last first"""

    @property
    def words(self) -> str:
        """How many there are of each kind, such as ``2 running, 3 waiting``; empty if there is none."""
        counts = {"running": len(self.running), "waiting": len(self.waiting), "ended": len(self.ended)}
        return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)


class Progress(NamedTuple):
    """How far a job is."""

    done: float | None
    """part of the optimizer steps, 0 to 1; None: there is no number for it"""
    words: str


class Pace(NamedTuple):
    """What a training has logged last."""

    step: int
    seconds: float
    """spent training until then, interruptions not"""


def board(standings: Iterable[Standing]) -> Board:
    """Sorts jobs into those that run, wait and have ended."""
    kinds: dict[str, list[Standing]] = {"running": [], "queued": []}
    ended = []
    for each in standings:
        kinds.get(each.report.state, ended).append(each)
    kinds["running"].sort(key=lambda each: _moment(each.report.started_at), reverse=True)
    kinds["queued"].sort(key=lambda each: (each.report.position or 0, each.job.submitted_at))
    ended.sort(key=lambda each: _moment(each.report.ended_at or each.job.submitted_at), reverse=True)
    return Board(kinds["running"], kinds["queued"], ended)


def matching(standings: Sequence[Standing], choice: str) -> list[Standing]:
    """The jobs that one of ``FILTERS`` leaves."""
    return [each for each in standings if choice not in _FILTERED or each.report.state in _FILTERED[choice]]


def taken_over(jobs: Iterable[Job]) -> dict[str, str]:
    """Of jobs that were done again by a newer one: id -> id of the newest.

    Args:
        jobs: the newest first.
    """
    newest: dict[tuple[str, str], str] = {}
    replaced = {}
    for job in jobs:
        command = command_of(job.arguments)
        what = ("train" if command in MAKES_A_RUN else command, job.run_folder)
        if what in newest:
            replaced[job.id] = newest[what]
        else:
            newest[what] = job.id
    return replaced


def jobs_of_run(jobs: Sequence[Job], folder: Path) -> list[str]:
    """Ids of the jobs that write a run, or retrain it, those that go on with such a retraining included.

    Args:
        jobs: in any order.
        folder: of the run.
    """
    here = folder.resolve()
    own = {job.id for job in jobs if Path(job.run_folder).resolve() == here}
    made = [
        job
        for job in jobs
        if command_of(job.arguments) == "retrain"
        and len(job.arguments) > 1
        and (Path(job.directory) / job.arguments[1]).resolve() == here
    ]
    folders = {job.run_folder for job in made}
    return [job.id for job in jobs if job.id in own or job.run_folder in folders]


def command_line(job: Job) -> str:
    """What to type in ``job.directory`` to do the same without a queue."""
    return shlex.join(["python", "-m", "apt_core", *job.arguments])


def standing_words(job: Job, report: JobReport) -> str:
    """A job's command and state, with its place in the queue or its device."""
    command = command_of(job.arguments) or "job"
    if report.state == "queued" and report.position:
        return f"{command}: queued, number {report.position} in line"
    if report.state == "running" and report.device:
        return f"{command}: running on {device_words(report.device)}"
    return f"{command}: {report.state}"


def device_words(device: str) -> str:
    """A slot's name, short: of a GPU the beginning of its UUID."""
    return device[:12] if device.startswith(("GPU-", "MIG-")) else device


def progress_of(standing: Standing, info: RunInfo | None, pace: Pace | None = None) -> Progress:
    """How far a job is.

    Args:
        standing: the job.
        info: what its run folder says; None if there is no run in it yet.
        pace: of the training; None if nothing was logged yet.
    """
    command, state = command_of(standing.job.arguments), standing.report.state
    if state == "queued":
        return Progress(None, "waits for a slot")
    if command in MAKES_RUNS:
        return Progress(None, "makes several runs; the log says how far it is" if state == "running" else "")
    if command in WRITES_ITS_RUN:
        return Progress(None, "the log says how far it is" if state == "running" else "")
    if info is None or not info.total_steps:
        return Progress(None, "prepares data and model" if state == "running" else "no step was trained")
    done = min(1.0, max(0.0, info.step / info.total_steps))
    steps = f"step {info.step:,} of {info.total_steps:,}"
    if state != "running":
        return Progress(done, steps if state == "finished" else f"stopped at {steps}")
    if info.step >= info.total_steps:
        return Progress(done, f"{steps}: trained; what follows is evaluated and measured")
    left = seconds_left(info, pace)
    return Progress(done, steps if left is None else f"{steps} · {left_words(left)}")


def last_words(log: str) -> str:
    """The line of a log that says why a job failed: its last error, or else what it said last; empty for none."""
    lines = [line for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or [""])[-1]


def seconds_left(info: RunInfo, pace: Pace | None) -> float | None:
    """How long the steps still take if they go on as they did on average; None as long as too few are known."""
    if pace is None or pace.step < MIN_STEPS or pace.seconds <= 0 or pace.step > info.total_steps:
        return None
    return pace.seconds / pace.step * max(0, info.total_steps - info.step)


def left_words(seconds: float) -> str:
    """A time that is left, as exact as an estimate is."""
    minutes = seconds / 60
    if minutes < 0.75:
        return "less than a minute left"
    if minutes < 59.5:
        return f"about {max(1, round(minutes))} min left"
    tens = round(minutes / 10) * 10
    if tens < 48 * 60:
        return f"about {tens // 60} h" + (f" {tens % 60} min left" if tens % 60 else " left")
    return f"about {round(minutes / 60 / 24)} days left"


def ago(time_text: str | None, now: datetime) -> str:
    """A moment by how long ago it was, the date if that is over a month; empty where there is none."""
    moment = time_of(time_text or "")
    if moment is None:
        return ""
    seconds = (now - moment).total_seconds()
    if seconds < 60:  # a clock may be ahead
        return "just now"
    for unit, length, most in (("min", 60, 60), ("h", 3_600, 24), ("d", 86_400, 31)):
        if seconds < most * length:
            return f"{int(seconds // length)} {unit} ago"
    return f"on {moment:%Y-%m-%d}"


def times_words(standing: Standing, now: datetime) -> tuple[str, str]:
    """When a job was submitted, started and ended: as how long ago, and exactly, in UTC."""
    times = {
        "submitted": standing.job.submitted_at,
        "started": standing.report.started_at,
        "ended": standing.report.ended_at,
    }
    known = {name: moment for name, text in times.items() if (moment := time_of(text or ""))}
    relative = [f"{name} {ago(times[name], now)}" for name in known]
    start, end = known.get("started"), known.get("ended")
    if start and end and end >= start:
        relative.append(f"took {span_words((end - start).total_seconds())}")
    exact = [f"{name} {moment:%Y-%m-%d %H:%M:%S} UTC" for name, moment in known.items()]
    return " · ".join(relative), "; ".join(exact)


def span_words(seconds: float) -> str:
    """A time that something took."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60} min"


def bytes_words(count: int) -> str:
    """An amount of memory."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def notices(standings: Sequence[Standing]) -> list[tuple[str, str]]:
    """What to tell of jobs that have just ended: (worst state among them, words); many are one notice."""
    if len(standings) > LONGEST_LIST:
        counts = {
            state: sum(each.report.state == state for each in standings)
            for state in ("failed", "lost", "cancelled", "finished")
        }
        said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        worst = next(state for state, count in counts.items() if count)
        return [(worst, f"{len(standings)} jobs have ended: {said}. The Jobs page has their logs.")]
    return [(each.report.state, _notice(each)) for each in standings]


def _notice(standing: Standing) -> str:
    command, state = command_of(standing.job.arguments), standing.report.state
    name = Path(standing.job.run_folder).name
    if state == "finished":
        return f"{name}: {command} has finished. {_FINISHED.get(command, 'The Jobs page has its log.')}"
    if state == "failed":
        return f"{name}: {command} has failed. The Jobs page shows why, and has Retry."
    if state == "lost":
        return f"{name}: {command} is lost: what watched over it is gone. On the Jobs page, {RESUMES}"
    return f"{name}: {command} was cancelled elsewhere. On the Jobs page, {RESUMES}"


def _moment(time_text: str | None) -> datetime:
    return time_of(time_text or "") or datetime.min.replace(tzinfo=UTC)
