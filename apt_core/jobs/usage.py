"""What the processes of jobs use at the moment: memory, GPU memory, processor. No torch."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import psutil

from apt_core.processes import MARKER

REMEMBERED_SECONDS = 60
"""a job that nobody has asked for meanwhile is measured anew"""
SMI_SECONDS = 5
"""what the driver's tool may take; where it takes longer, GPU memory is not known"""
_SMI = ["--query-compute-apps=pid,used_gpu_memory", "--format=csv,noheader,nounits"]
_MIB = 2**20


class Usage(NamedTuple):
    """Of all processes of a job together."""

    rss_bytes: int
    """resident memory; what processes share counts for each"""
    gpu_bytes: int | None
    """None where it is not known: no GPU was asked for or the driver does not say"""
    cpu_percent: float | None
    """since the last measurement, 100 is one core; None at the first"""
    num_processes: int


@dataclass
class Meter:
    """Measures jobs again and again, and knows how much processor time they had used before."""

    _before: dict[str, tuple[float, dict[int, float]]] = field(default_factory=dict)
    """job -> when, and seconds of processor time by process"""

    def usages(self, job_ids: Iterable[str], *, gpus: bool = False) -> dict[str, Usage]:
        """What jobs use on this machine; all are found in one pass over its processes.

        Args:
            job_ids: those that run.
            gpus: ask ``nvidia-smi`` too, which may take a second.

        Returns:
            By job; one without a living process here is missing.
        """
        by_job = members(set(job_ids))
        on_gpus = _gpu_bytes() if gpus and by_job else {}
        found = {job_id: self._measure(job_id, processes, on_gpus) for job_id, processes in by_job.items()}
        forgotten = time.monotonic() - REMEMBERED_SECONDS
        self._before = {job_id: before for job_id, before in self._before.items() if before[0] > forgotten}
        return {job_id: usage for job_id, usage in found.items() if usage.num_processes}

    def _measure(self, job_id: str, processes: list[psutil.Process], on_gpus: dict[int, int]) -> Usage:
        now, rss, seconds = time.monotonic(), 0, {}
        for process in processes:
            with contextlib.suppress(psutil.Error):
                memory, times = process.memory_info(), process.cpu_times()
                rss += memory.rss
                seconds[process.pid] = times.user + times.system
        then, earlier = self._before.get(job_id, (now, {}))
        self._before[job_id] = (now, seconds)
        used = sum(max(0.0, spent - earlier.get(pid, 0.0)) for pid, spent in seconds.items())
        there = [on_gpus[pid] for pid in seconds if pid in on_gpus]
        percent = 100 * used / (now - then) if now > then else None
        return Usage(rss, sum(there) if there else None, percent, len(seconds))


def members(job_ids: set[str]) -> dict[str, list[psutil.Process]]:
    """The processes of each job: those that carry its marker, and what is below them without another's."""
    parents: dict[int, int] = {}
    owners: dict[int, str] = {}
    processes: dict[int, psutil.Process] = {}
    caller = os.getpid()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            parents[process.pid] = process.ppid()
            processes[process.pid] = process
            marker = process.environ().get(MARKER)
            if marker is not None:
                owners[process.pid] = marker
    found: dict[str, list[psutil.Process]] = {}
    for pid, process in processes.items():
        owner = _owner(pid, owners, parents)
        if owner in job_ids and pid != caller:
            found.setdefault(owner, []).append(process)
    return found


def _owner(pid: int, owners: dict[int, str], parents: dict[int, int]) -> str | None:
    """The job of a process: its own marker's, or that of the nearest process above with one."""
    passed: set[int] = set()
    while pid not in owners:
        passed.add(pid)
        pid = parents.get(pid, 0)
        if pid in passed or not pid:
            return None
    return owners[pid]


def _gpu_bytes() -> dict[int, int]:
    """Process -> bytes on all GPUs, as the driver's tool says; empty where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    try:
        answer = subprocess.run(
            [tool, *_SMI], capture_output=True, text=True, timeout=SMI_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found: dict[int, int] = {}
    for line in answer.stdout.splitlines():
        pid, _, mebibytes = line.partition(",")
        with contextlib.suppress(ValueError):  # such as [N/A]
            found[int(pid)] = found.get(int(pid), 0) + int(mebibytes) * _MIB
    return found
