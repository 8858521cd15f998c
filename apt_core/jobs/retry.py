"""What to submit so that a job that did not finish is done after all."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from apt_core.config import TrainSettings
from apt_core.errors import AptError, AptValueError, bad_value
from apt_core.jobs.interface import Job, JobState
from apt_core.jobs.job_arguments import MAKES_A_RUN, RESUME, command_of, unkept
from apt_core.jobs.log_file import KILLED
from apt_core.measure_format import MEASURES_FILE
from apt_core.memory import RAN_OUT, TOO_LARGE, Batch
from apt_core.run_format import CHECKPOINT_FOLDER, RUN_FILE, read_run_info, status_of
from apt_core.secrets import REDACTED
from apt_core.tasks import TASKS

_BATCH = {"batch_size": "--batch-size", "gradient_accumulation_steps": "--gradient-accumulation-steps"}
_LAST_LINES = 50
"""of a log, among which the error is; what starts several processes adds a report of its own"""


def ran_out_of_memory(log: str) -> bool:
    """Whether a job ended for want of memory, as the end of its log says: it ran out, was killed or was refused."""
    errors = [line.partition("error:")[2] for line in log.splitlines()[-_LAST_LINES:]]  # maybe after a progress bar
    return any(words in line for line in errors for words in (RAN_OUT, TOO_LARGE, KILLED))


def retry_arguments(job: Job, state: JobState, *, halve_batch: bool = False) -> list[str]:
    """The arguments of the job that takes the place of one that failed, was cancelled or lost.

    They are the same, but where the job left an interrupted run: that is gone on with, from its last checkpoint. Where
    it left a finished run that it had yet to measure, that is measured.

    Args:
        job: that ended.
        state: how.
        halve_batch: take half the batch and twice the accumulation, for one that ran out of memory; its optimizer
            steps are of the same examples.

    Raises:
        AptError: if the job has not ended or did finish, or its run did, with what to do instead; if there is no
            batch to halve, or a secret among the arguments, which was not kept.
    """
    arguments = _arguments(job, state, halve_batch)
    hidden = next((word for word in arguments if REDACTED in word), None)
    if hidden is not None:
        raise bad_value(
            "job", hidden, "one whose arguments hold no secret of the environment", "Submit its command again."
        )
    return arguments


def _arguments(job: Job, state: JobState, halve_batch: bool) -> list[str]:
    if state not in ("failed", "cancelled", "lost"):
        raise AptValueError(
            f"job: got {job.id!r}, which is {state}; accepted: one that failed, was cancelled or is lost. "
            + ("Submit the command with another --out." if state == "finished" else "Cancel it first.")
        )
    if command_of(job.arguments) not in MAKES_A_RUN:
        if halve_batch:
            accepted = " or ".join(MAKES_A_RUN)
            hint = "Submit the command itself again, with a smaller --batch-size if it has one."
            raise bad_value("halve-batch", command_of(job.arguments), accepted, hint)
        return job.arguments
    folder = Path(job.run_folder)
    if not (folder / RUN_FILE).exists():
        with contextlib.suppress(OSError):  # empty: the training was ended while it prepared
            (folder / CHECKPOINT_FOLDER).rmdir()
        return [*_without_batch(job.arguments), *_half(job, _defaults(job))] if halve_batch else job.arguments
    info = read_run_info(folder)
    status = status_of(info)
    if status == "finished" and lacks_measures(job) and not halve_batch:
        return ["measure", job.run_folder]
    if status in ("running", "finished"):
        raise AptValueError(f"job: got {job.id!r}, whose run {folder} is {status}; accepted: an interrupted run.")
    if RESUME in job.arguments:  # what was typed to go on with it may not have reached the run yet
        return [*_without_batch(job.arguments), *_half(job, info.training)] if halve_batch else job.arguments
    smaller = _half(job, info.training, as_typed=False) if halve_batch else []
    return ["train", "--out", job.run_folder, RESUME, *unkept(job.arguments), *smaller]


def lacks_measures(job: Job) -> bool:
    """Whether the run of a training was not measured, which its job was to end with."""
    return "--no-measure" not in job.arguments and not (Path(job.run_folder) / MEASURES_FILE).exists()


def _half(job: Job, settings: Mapping[str, Any], as_typed: bool = True) -> list[str]:
    """The flags for half the batch of ``settings``, or of what was typed."""
    typed = {name: _value(job.arguments, flag) for name, flag in _BATCH.items()} if as_typed else {}
    given = {name: value for name, value in typed.items() if value is not None}
    return Batch.of(TrainSettings(**{**settings, **given})).halved().flags


def _defaults(job: Job) -> dict[str, Any]:
    """Training settings that are not typed: of the task that is named, or of the run that is trained again."""
    if command_of(job.arguments) == "train":
        task = _value(job.arguments, "--task")  # a task that is not named has no batch of its own
        return TASKS[task].training if task in TASKS else {}
    with contextlib.suppress(AptError):  # the command itself will say what is wrong with it
        return read_run_info(Path(job.directory) / job.arguments[1]).training
    return {}


def _value(arguments: Sequence[str], flag: str) -> str | None:
    """What is typed for a flag; the last one counts."""
    value = None
    for word, after in pairwise([*arguments, ""]):
        if word == flag:
            value = after
        elif word.startswith(f"{flag}="):
            value = word.partition("=")[2]
    return value


def _without_batch(arguments: Sequence[str]) -> list[str]:
    kept, words = [], iter(arguments)
    for word in words:
        if word in _BATCH.values():
            next(words, None)  # its value
        elif word.partition("=")[0] not in _BATCH.values():
            kept.append(word)
    return kept
