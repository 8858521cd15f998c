"""Process identity that survives pid reuse, and ending a whole tree of processes."""

from __future__ import annotations

import contextlib

import psutil

MARKER = "APT_JOB_ID"
"""environment variable that every process of a job carries"""
_KILL_ROUNDS = 10


def is_alive(pid: int, started: float) -> bool:
    """Whether the process with this pid is the one that started at ``started`` (seconds since the epoch)."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - started) < 2
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


def end_marked(job_id: str, grace_seconds: float) -> None:
    """Asks all processes of a job to end (SIGTERM), then ends what is left after ``grace_seconds`` (SIGKILL).

    Looks again until none is found: a process may have started another one just before it died.
    """
    processes = marked_processes(job_id)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(processes, timeout=grace_seconds)
    for _ in range(_KILL_ROUNDS):
        left = marked_processes(job_id)
        if not left:
            return
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=1)
