"""Trains a task with another task's prefix lengths, its own, uniform and random ones, and says whether they carry over.

Zhang et al. (2023) compare gates of tasks by eye; here the lengths are put to the test.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from apt_core.errors import AptFileExistsError, AptValueError
from apt_core.processes import num_ranks
from apt_core.run_format import RUN_FILE, read_run_info, utc_now
from apt_core.tasks import family_of, load_task
from apt_core.train import TrainJob, check_device, load_job_data, train
from apt_core.transfer_format import (
    TRANSFER_FILE,
    Arm,
    Transfer,
    TransferRun,
    read_transfer,
    write_transfer,
)
from apt_core.transfer_plan import (
    OWN_FULL,
    Lengths,
    Training,
    TransferJob,
    arm_trainings,
    check_transfer,
    full_training,
    is_done,
    lengths_of,
    steps_of,
)


def transfer(job: TransferJob, *, say: Callable[[str], None] = print) -> Transfer:
    """Makes every run that is not there yet, one after the other, and notes each in ``transfer.json``.

    Called again after an interruption, it goes on: finished runs are kept, the interrupted one is resumed.

    Args:
        job: what to do.
        say: receives one-line messages, first of all what it is going to cost.

    Returns:
        What ``transfer.json`` in ``job.out`` says then.

    Raises:
        AptError: on bad input, before anything is trained.
    """
    if num_ranks() > 1:
        raise AptValueError("transfer: trains in one process; start it without torchrun.")
    check_transfer(job)
    _check_same(job)
    check_device(job.training.device)
    full = full_training(job)
    full_done = full is None or is_done(full)
    own = _own_lengths(job) if full_done else None
    trainings = arm_trainings(job, own.prefix_lengths if own else None)
    report = _report(job, own)
    finished = [training for training in trainings if is_done(training)]
    unknown = 0 if own else len(job.seeds)
    left = len(trainings) - len(finished) + unknown + (not full_done)
    say(
        f"{left} trainings of {steps_of(trainings[0]):,} optimizer steps, one after the other"
        + (f"; {len(finished)} are finished already" if finished else "")
        + f" -> {job.out}"
    )
    if own and job.own and read_run_info(job.own).data_hash != load_job_data(trainings[0].job).fingerprint():
        say(f"warning: {job.own} was trained on other data, or other few-shot examples, than these trainings will be")
    job.out.mkdir(parents=True, exist_ok=True)
    write_transfer(job.out, report)
    try:
        with tqdm(total=left, desc="transfer", unit="training", file=sys.stderr) as bar:
            if full is not None and not full_done:
                _train(full.job, say)
                bar.update()
            own = own or _own_lengths(job)
            for training in arm_trainings(job, own.prefix_lengths):
                if not is_done(training):
                    _train(training.job, say)
                    bar.update()
                runs = [*report.runs, *_runs_of(training)]
                report = report.model_copy(update={"runs": runs, "own_basis": own.basis, "updated_at": utc_now()})
                write_transfer(job.out, report)
    except KeyboardInterrupt:
        say("interrupted; the same command goes on with what is left")
        raise
    return report


def _own_lengths(job: TransferJob) -> Lengths:
    return lengths_of(job.own or job.out / OWN_FULL, job.total, "own")


def _check_same(job: TransferJob) -> None:
    """Refuses to put two transfers into one folder.

    Raises:
        AptError: if ``job.out`` has another one, or one that cannot be read.
    """
    if not (job.out / TRANSFER_FILE).exists():
        return
    there = read_transfer(job.out)
    asked = {"source": job.source.resolve().name, "task": job.task, "total": job.total, "own": _own_name(job)}
    for name, now in asked.items():
        then = getattr(there, name)
        if then != now:
            raise AptFileExistsError(
                f"out: {job.out} holds a transfer with {name} {then!r}, now {now!r}. Choose another --out."
            )


def _own_name(job: TransferJob) -> str:
    return job.own.resolve().name if job.own else OWN_FULL


def _report(job: TransferJob, own: Lengths | None) -> Transfer:
    """What ``transfer.json`` says before the first run."""
    source = read_run_info(job.source)
    task = load_task(job.task, job.data)
    arms: list[Arm] = ["source", "own", "uniform", "random"]
    return Transfer(
        updated_at=utc_now(),
        command=job.command,
        source=job.source.resolve().name,
        source_task=source.task,
        source_basis=lengths_of(job.source, job.total, "source").basis,
        own=_own_name(job),
        own_basis=own.basis if own else None,
        task=job.task,
        model=source.model,
        num_layers=source.num_layers,
        total=job.total,
        seeds=list(job.seeds),
        arms=[*arms, "warm"] if job.warm else arms,
        metric_name=family_of(task).metric_name,
        greater_is_better=family_of(task).greater_is_better,
    )


def _train(job: TrainJob, say: Callable[[str], None]) -> None:
    """Trains a run, or goes on with it."""
    if not (job.out / RUN_FILE).exists():
        train(job, say=say)
        return
    train(replace(TrainJob.from_run(job.out), data=job.data), resume=True, say=say)


def _runs_of(training: Training) -> list[TransferRun]:
    """A finished run, once for each arm it belongs to."""
    folder: Path = training.job.out
    info = read_run_info(folder)
    metric = info.metrics.get("validation", {}).get(info.metric_name)
    return [
        TransferRun(
            arm=arm,
            seed=training.job.training.seed,
            folder=folder.name,
            prefix_lengths=info.prefix_lengths,
            metric=metric if metric is not None and np.isfinite(metric) else None,
        )
        for arm in training.arms
    ]
