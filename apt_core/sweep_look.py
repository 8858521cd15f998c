"""How the trainings of a sweep stand: from run folders and jobs, each time anew. No torch."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from apt_core.errors import AptError
from apt_core.jobs.interface import WAITING, Job, JobReport, Jobs
from apt_core.jobs.job_arguments import command_of
from apt_core.measure_format import MEASURES_FILE
from apt_core.run_format import RUN_FILE, RunInfo, read_run_info, status_of
from apt_core.sweep_format import MAX_REASON, Recorded
from apt_core.sweep_options import TaskOptions
from apt_core.sweep_plan import FULL, Training, difference_from

Step = Literal["train", "measure", "evaluate"]
State = Literal["waiting", "queued", "running", "finished", "failed", "cancelled", "interrupted", "another run"]
"""waiting: no job yet; interrupted: a driver goes on with it; another run: the folder holds what is not the sweep's"""
STEP_OF: dict[str, Step] = {"train": "train", "retrain": "train", "measure": "measure", "evaluate": "evaluate"}
_ENDED_FROM_OUTSIDE = (130, *(-number for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", 1))))
"""exit codes of what was ended by a terminal or a machine that goes down, and is not at fault"""


class Standing(NamedTuple):
    """How a training stands."""

    training: Training
    state: State
    step: Step | None = None
    """what is done, or to be done next; None when finished"""
    info: RunInfo | None = None
    """of its run; None as long as there is none"""
    job: Job | None = None
    """the newest for that step"""
    reason: str = ""
    """why it failed"""

    @property
    def trained(self) -> bool:
        """Whether its run has come to its end, if perhaps not been measured on test."""
        return self.info is not None and self.info.status == "finished" and self.state != "another run"

    @property
    def done(self) -> float:
        """Part of its optimizer steps, 0 to 1."""
        if self.trained:
            return 1.0
        info = self.info
        return min(1.0, max(0.0, info.step / info.total_steps)) if info and info.total_steps > 0 else 0.0


def look(recorded: Recorded, jobs: Jobs | None, known: Mapping[str, Standing] | None = None) -> list[Standing]:
    """How every training of a sweep stands, in the order of its plan.

    Args:
        recorded: the sweep.
        jobs: where its trainings were submitted to; None: run folders alone say how they stand.
        known: name -> standing of trainings that need not be looked at again.
    """
    newest: dict[tuple[str, str], Job] = {}
    for job in jobs.list() if jobs is not None else ():
        step = STEP_OF.get(command_of(job.arguments))
        if step is not None:
            newest.setdefault((step, os.path.realpath(job.run_folder)), job)
    options = {task: recorded.spec.options(task) for task in recorded.spec.tasks}
    found = dict(known or {})
    for training in recorded.plan:
        if training.name not in recorded.sweep.same_lengths and training.name not in found:
            found[training.name] = _standing(training, recorded, options[training.task], newest, jobs)
    return [_as_other(training, found, recorded.sweep.same_lengths) for training in recorded.plan]


def runs_of(standings: Iterable[Standing]) -> dict[str, RunInfo]:
    """Training -> its finished run."""
    return {each.training.name: each.info for each in standings if each.trained and each.info is not None}


def counts_of(standings: Iterable[Standing]) -> dict[str, int]:
    """How many are done, running, failed (or have another run in their way), and left."""
    counts = {"done": 0, "running": 0, "failed": 0, "left": 0}
    place = {"finished": "done", "running": "running", "failed": "failed", "another run": "failed"}
    for each in standings:
        counts[place.get(each.state, "left")] += 1
    return counts


def _as_other(training: Training, found: Mapping[str, Standing], same_lengths: Mapping[str, str]) -> Standing:
    """A training's own standing, or that of the one whose run stands for it."""
    other = same_lengths.get(training.name)
    if other is None:
        return found[training.name]
    return found[other]._replace(training=training) if other in found else Standing(training, "waiting", "train")


def _standing(
    training: Training,
    recorded: Recorded,
    options: TaskOptions,
    newest: Mapping[tuple[str, str], Job],
    jobs: Jobs | None,
) -> Standing:
    folder = recorded.folder / training.name
    if folder.is_symlink():
        return Standing(training, "another run", "train", reason="it is a link; links are not followed")
    place = os.path.realpath(folder)
    own = {step: job for step in ("train", "measure", "evaluate") if (job := newest.get((step, place)))}
    reports = {step: jobs.report(job.id) for step, job in own.items()}  # before the run is read: it ends first
    try:
        info = read_run_info(folder) if (folder / RUN_FILE).exists() else None
    except (AptError, OSError) as problem:
        return Standing(training, "another run", "train", reason=str(problem)[:MAX_REASON])
    difference = difference_from(training, options, info) if info is not None else ""
    if difference:
        return Standing(training, "another run", "train", info, reason=difference[:MAX_REASON])
    step = _next_step(training, recorded, folder, info)
    for waiting, report in reports.items():
        if report.state in WAITING:
            return Standing(training, report.state, step or waiting, info, own[waiting])
    if step is None:
        return Standing(training, "finished", None, info)
    problem = recorded.sweep.problems.get(training.name, "")
    if problem:
        return Standing(training, "failed", step, info, own.get(step), problem)
    return _not_done(training, step, info, own.get(step), reports.get(step), jobs)


def _next_step(training: Training, recorded: Recorded, folder: Path, info: RunInfo | None) -> Step | None:
    if info is None or info.status != "finished":
        return "train"
    if training.method == FULL and recorded.spec.measures and not (folder / MEASURES_FILE).is_file():
        return "measure"
    return "evaluate" if recorded.spec.test and "test" not in info.metrics else None


def _not_done(
    training: Training, step: Step, info: RunInfo | None, job: Job | None, report: JobReport | None, jobs: Jobs
) -> Standing:
    """A step that no job is at."""
    if step == "train" and info is not None:
        status = status_of(info)
        if status == "running":  # by a process that is no job of this sweep's
            return Standing(training, "running", step, info)
        if report is not None and report.state == "cancelled":
            return Standing(training, "cancelled", step, info, job)
        failed = status == "failed" or (report is not None and report.state == "failed" and not _from_outside(report))
        if not failed:
            return Standing(training, "interrupted", step, info, job)
        return Standing(training, "failed", step, info, job, info.error or _last_line(job, jobs))
    if job is None or report is None or (step == "train" and report.state == "finished"):  # its run was removed
        return Standing(training, "waiting", step, info)
    if report.state == "cancelled":
        return Standing(training, "cancelled", step, info, job)
    if report.state == "lost" or _from_outside(report):
        return Standing(training, "interrupted", step, info, job)
    return Standing(training, "failed", step, info, job, _last_line(job, jobs))


def _from_outside(report: JobReport) -> bool:
    return report.state == "failed" and report.exit_code in _ENDED_FROM_OUTSIDE


def _last_line(job: Job | None, jobs: Jobs | None) -> str:
    """What a job printed last."""
    if job is None or jobs is None:
        return "its run says no more"
    return (jobs.logs(job.id, 1).strip() or f"job {job.id} printed nothing")[:MAX_REASON]
