"""The order in which jobs start: a ticket each, and slots that one job at a time has.

<folder>/queue/lock           held while a number is drawn
<folder>/queue/tickets/<id>   locked while the job waits; says which slots would do: {name: lock file}
<folder>/queue/slots/cpu-0    locked while a job has the slot; says whose folder that is

There is no server. A waiting supervisor sleeps on the lock of the ticket before its own; only the first in the line
looks for a free slot, four times a second. A lock ends with its process, so a dead ticket or slot holds nobody up.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from apt_core.jobs import locks
from apt_core.jobs.job_files import number_of, read_object

LOOK_SECONDS = 0.25
_QUEUE = "queue"


class Ticket(NamedTuple):
    """A place in the line."""

    number: int
    path: Path
    slots: dict[str, Path]
    """slots that would do, the first ones preferred, with the file whose lock is the slot"""


def cpu_slot_file(jobs_folder: Path, slot: str) -> Path:
    """The file whose lock is a slot on the processor."""
    return jobs_folder / _QUEUE / "slots" / slot


def ticket_file(jobs_folder: Path, job_id: str) -> Path:
    """The file whose lock says that a job waits."""
    return jobs_folder / _QUEUE / "tickets" / job_id


@contextlib.contextmanager
def drawing(jobs_folder: Path) -> Iterator[int]:
    """Holds the order of submission: gives the next number, and no other is drawn until its ticket is there."""
    with locks.held(jobs_folder / _QUEUE / "lock"):
        yield max(map(number_of, os.listdir(jobs_folder)), default=0) + 1


def take_ticket(jobs_folder: Path, job_id: str, slots: dict[str, Path]) -> int:
    """Puts a job at the end of the line, while ``drawing``; returns the descriptor that keeps it there."""
    path = ticket_file(jobs_folder, job_id)
    descriptor = locks.take(path, wait=True)
    os.write(descriptor, json.dumps({name: str(file) for name, file in slots.items()}).encode())
    return descriptor


def read_ticket(path: Path) -> Ticket:
    """A ticket; one that is damaged names no slots, and is in nobody's way."""
    content = read_object(path)
    slots = {name: Path(file) for name, file in content.items() if isinstance(file, str)}
    return Ticket(number_of(path.name), path, slots)


def position(jobs_folder: Path, job_id: str) -> int | None:
    """The place of a job among those that wait for the same slots, 1: the next; None if it does not wait."""
    path = ticket_file(jobs_folder, job_id)
    return len(_before(path)) + 1 if locks.is_held(path) else None


def wait_for_turn(path: Path) -> None:
    """Returns once no earlier job waits for one of the slots of this ticket."""
    while before := _before(path):
        locks.wait_until_free(before[-1].path)


def take_slot(ticket: Ticket, job_folder: Path, settle: Callable[[Path], object]) -> tuple[str, int]:
    """Waits until one of a ticket's slots is free.

    Args:
        ticket: of the job at the head of the line.
        job_folder: its folder.
        settle: is given the folder of the job that has or had a slot; ends what that may have left behind.

    Returns:
        The slot, and the descriptor that holds it: whoever inherits it keeps the slot taken.
    """
    while True:
        for slot, path in ticket.slots.items():
            descriptor = locks.take(path)
            with contextlib.suppress(OSError, ValueError):
                holder = path.read_text(encoding="utf-8")
                if holder:
                    settle(Path(holder))
            if descriptor is not None:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(job_folder).encode(), 0)
                return slot, descriptor
        time.sleep(LOOK_SECONDS)


def slot_holder(path: Path) -> Path | None:
    """The folder of the job that has a slot; None if it is free.

    Args:
        path: the file whose lock is the slot.
    """
    if not locks.is_held(path):
        return None
    try:
        return Path(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # whose it is cannot be seen from here
        return Path()


def _before(path: Path) -> list[Ticket]:
    """The tickets that wait before this one for a slot that would do for it too, in order."""
    own = read_ticket(path)
    wanted = set(own.slots.values())
    earlier = []
    with contextlib.suppress(FileNotFoundError):
        earlier = [other for other in path.parent.iterdir() if number_of(other.name) < own.number]
    live = [read_ticket(other) for other in earlier if locks.is_held(other)]
    return sorted(ticket for ticket in live if wanted & set(ticket.slots.values()))
