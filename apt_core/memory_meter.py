"""How much memory is left, and how much a piece of work takes at its peak: of this machine, or of a GPU."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import psutil
import torch

_SAMPLE_SECONDS = 0.002
_ADDRESS_SPACE_FOR_THREADS = 256 * 2**20
"""what the threads of a training that starts later reserve: stacks of 8 MB, heaps of 64 MB"""
_GPU_SHARE = 0.95
"""of a GPU's free memory: the rest is lost between blocks"""


class Meter(Protocol):
    """Measures one kind of memory, in bytes."""

    def room(self) -> int:
        """What this process can still take."""

    def peak(self, work: Callable[[], None]) -> int:
        """What ``work`` takes at its peak beyond what is taken before it."""


def meter_for(device: torch.device) -> Meter | None:
    """The meter for where a model computes; None where nothing can be measured."""
    if device.type == "cpu":
        return HostMeter()
    return CudaMeter(device) if device.type == "cuda" else None


class HostMeter:
    """This machine's memory: resident pages, looked at every 2 ms.

    A peak of less than that is missed. Fresh pages are taken at 1 to 4 GB/s, so that is some MB.
    """

    def room(self) -> int:
        """The least of what the system, the control groups around the process and its own limit leave."""
        limits = [psutil.virtual_memory().available, *control_group_rooms()]
        address_space = _address_space()
        return max(0, min([*limits, *([] if address_space is None else [address_space])]))

    def peak(self, work: Callable[[], None]) -> int:
        process = psutil.Process()
        _give_back_freed_memory()
        before = highest = process.memory_info().rss
        done = threading.Event()

        def watch() -> None:
            nonlocal highest
            while not done.wait(_SAMPLE_SECONDS):
                highest = max(highest, process.memory_info().rss)

        watcher = threading.Thread(target=watch, name="memory peak", daemon=True)
        watcher.start()
        try:
            work()
        finally:
            done.set()
            watcher.join()
        return max(highest, process.memory_info().rss) - before


class CudaMeter:
    """A GPU's memory, as torch's allocator counts it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def room(self) -> int:
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(self._device)
        return int(_GPU_SHARE * free)

    def peak(self, work: Callable[[], None]) -> int:
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        work()
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device) - before


def control_group_rooms(
    mounted: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> Iterator[int]:
    """What each Linux control group around this process leaves, version 1 and 2; a container's limit is one.

    Pages of files that can be dropped at any time do not count as taken.
    """
    with contextlib.suppress(OSError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                top, names = mounted, ("memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                top = mounted / "memory"
            else:
                continue
            group = top / path.lstrip("/")
            # inside a container the path may be the host's, and the container's own group is the top
            for folder in (group, *group.parents):
                with contextlib.suppress(OSError, ValueError):
                    yield _room_of(folder, *names)
                if folder == top:
                    break


def _room_of(folder: Path, limit: str, usage: str, droppable: str) -> int:
    taken = int((folder / usage).read_text())
    rows = (row.split() for row in (folder / "memory.stat").read_text().splitlines())
    files = next((int(value) for name, value in rows if name == droppable), 0)
    return int((folder / limit).read_text()) - taken + min(files, taken)  # "max" is no limit, and no number


def _address_space() -> int | None:
    """What ``ulimit -v`` leaves; None where there is no limit."""
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    return limit - psutil.Process().memory_info().vms - _ADDRESS_SPACE_FOR_THREADS


def _give_back_freed_memory() -> None:
    """Lets glibc return what was freed to the system: reused, it would hide what is taken next."""
    if os.name == "posix":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
