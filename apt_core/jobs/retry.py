"""What to submit so that a job that did not finish is done after all."""

from __future__ import annotations

import contextlib
from pathlib import Path

from apt_core.errors import AptValueError
from apt_core.jobs.interface import Job, JobState
from apt_core.jobs.job_arguments import MAKES_A_RUN, RESUME, command_of
from apt_core.run_format import CHECKPOINT_FOLDER, RUN_FILE, read_run_info, status_of


def retry_arguments(job: Job, state: JobState) -> list[str]:
    """The arguments of the job that takes the place of one that failed, was cancelled or lost.

    They are the same, but where the job left an interrupted run: that is gone on with, from its last checkpoint.

    Raises:
        AptError: if the job has not ended or did finish, or its run did, with what to do instead.
    """
    if state not in ("failed", "cancelled", "lost"):
        raise AptValueError(
            f"job: got {job.id!r}, which is {state}; accepted: one that failed, was cancelled or is lost. "
            + ("Submit the command with another --out." if state == "finished" else "Cancel it first.")
        )
    if command_of(job.arguments) not in MAKES_A_RUN:
        return job.arguments
    folder = Path(job.run_folder)
    if not (folder / RUN_FILE).exists():
        with contextlib.suppress(OSError):  # empty: the training was ended while it prepared
            (folder / CHECKPOINT_FOLDER).rmdir()
        return job.arguments
    status = status_of(read_run_info(folder))
    if status in ("running", "finished"):
        raise AptValueError(f"job: got {job.id!r}, whose run {folder} is {status}; accepted: an interrupted run.")
    return ["train", "--out", job.run_folder, RESUME]  # the run knows all its settings
