"""All processes of one job, and ending them: those that carry its marker and everything below those."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import psutil

from apt_core.processes import MARKER, is_alive, marked_processes

_KILL_ROUNDS = 10
_LOOK_SECONDS = 0.02


def job_processes(job_id: str) -> list[psutil.Process]:
    """All living processes of a job but the caller.

    The marker finds processes that have left the tree; the tree finds those that have cleared their environment.
    """
    caller = psutil.Process()
    roots = [*marked_processes(job_id), *([caller] if _marker(caller) == job_id else [])]
    found = {process.pid: process for root in roots for process in (root, *_below(root, job_id))}
    found.pop(caller.pid, None)
    return [process for process in found.values() if _lives(process)]


def end_job(job_id: str, grace_seconds: float) -> None:
    """Asks all processes of a job to end (SIGTERM), then ends what is left after ``grace_seconds`` (SIGKILL).

    Looks again until none is found: a process may have started another one just before it died.
    """
    processes = job_processes(job_id)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, stubborn = psutil.wait_procs(processes, timeout=grace_seconds)
    for _ in range(_KILL_ROUNDS):
        # a process without the marker is no longer found once those above it have died
        left = {process.pid: process for process in (*stubborn, *job_processes(job_id)) if _lives(process)}
        if not left:
            return
        for process in left.values():
            with contextlib.suppress(psutil.Error):
                process.kill()
        _, stubborn = psutil.wait_procs(list(left.values()), timeout=1)


def wait_for_end(pid: int, started: float, at_most_seconds: float) -> None:
    """Waits for a process that has been ended: a large one takes a while to go, and cannot be found meanwhile."""
    deadline = time.monotonic() + at_most_seconds
    while is_alive(pid, started) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)


def _below(process: psutil.Process, job_id: str) -> Iterator[psutil.Process]:
    """Descendants, but for another job that this one has submitted, and what is below that."""
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        children = process.children()
    for child in children:
        if _marker(child) in (None, job_id):
            yield child
            yield from _below(child, job_id)


def _marker(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.Error):
        return process.environ().get(MARKER)
    return None


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
