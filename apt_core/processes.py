"""Process identity that survives pid reuse, finding the processes of a job, and who speaks for a training."""

from __future__ import annotations

import contextlib
import os

import psutil

MARKER = "APT_JOB_ID"
"""environment variable that every process of a job carries"""


def is_alive(pid: int, started: float) -> bool:
    """Whether the process with this pid is the one that started at ``started`` (seconds since the epoch).

    One whose first thread has ended is alive while another one goes on: until the last has ended, it holds its locks.
    """
    try:
        process = psutil.Process(pid)
        ended = process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
        return not ended and abs(process.create_time() - started) < 2
    except (psutil.Error, ValueError, OverflowError):
        return False


def marked_processes(job_id: str) -> list[psutil.Process]:
    """All processes of a job, wherever they hang in the tree, but for the caller."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != psutil.Process().pid and process.environ().get(MARKER) == job_id:
                found.append(process)
    return found


def num_ranks() -> int:
    """How many processes train together, as ``torchrun`` or ``accelerate launch`` says; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_rank() -> bool:
    """Whether this is the process of a training that writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0
