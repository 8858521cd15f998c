"""The driver of a sweep as a process: only one, started so that it outlives its parent, and asked to end. No torch."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apt_core
from apt_core.errors import AptWriteError, bad_value
from apt_core.jobs import Jobs, locks, place
from apt_core.jobs.interface import WAITING
from apt_core.jobs.log_file import tail
from apt_core.sweep_format import DRIVER_FILE, LOG_FILE, SPEC_FILE, STOP_FILE, Recorded, Sweep
from apt_core.sweep_look import Standing, look

LOCK_VARIABLE = "APT_SWEEP_LOCK"
"""environment variable with the descriptor of the lock that a driver was given at its start"""
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


@contextlib.contextmanager
def only_driver(out: Path) -> Iterator[None]:
    """Holds a sweep's folder, which is made, against a second driver; folders that were made for nothing are removed.

    Raises:
        AptValueError: if another driver lives.
        AptWriteError: if the folder cannot be written to.
    """
    locks.check_locks()
    path = out / DRIVER_FILE
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    descriptor = _handed_down(path)
    try:
        descriptor = _take(out) if descriptor is None else descriptor
    except OSError as problem:
        raise AptWriteError(f"out: {out} cannot be written to ({problem.strerror}).") from problem
    if descriptor is None:
        raise driven(out)
    try:
        yield
    finally:
        if made and os.listdir(out) == [DRIVER_FILE]:
            locks.remove(path, descriptor)
            with contextlib.suppress(OSError):
                for folder in made:
                    folder.rmdir()
        else:
            os.close(descriptor)


def _take(out: Path) -> int | None:
    """Takes the lock of a new driver, whom an earlier request to stop does not concern; None if another one lives."""
    descriptor = locks.take(out / DRIVER_FILE)
    if descriptor is not None:
        (out / STOP_FILE).unlink(missing_ok=True)
    return descriptor


def _handed_down(path: Path) -> int | None:
    """The descriptor that holds the lock already, from whoever started this driver; None where nobody did."""
    word = os.environ.pop(LOCK_VARIABLE, "")
    with contextlib.suppress(ValueError, OSError):
        descriptor = int(word)
        if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            os.set_inheritable(descriptor, False)
            return descriptor
    return None


def is_driven(out: Path) -> bool:
    """Whether a driver lives that works on a sweep."""
    try:
        return locks.is_held(out / DRIVER_FILE)
    except OSError:  # a link, or a folder in its place
        return False


def driven(out: Path) -> Exception:
    """The error for a sweep that another driver works on."""
    accepted = "a folder that no other driver works on"
    return bad_value("out", str(out), accepted, "It goes on by itself; to watch it, see the Sweeps page.")


def jobs_of(out: Path, sweep: Sweep) -> Jobs:
    """Where the jobs of a sweep run. Nodes of a cluster write its folder themselves: they must see it.

    Raises:
        AptValueError: if the place cannot be one.
    """
    shared = {"storage": ""} if sweep.executor == "ray" else {}
    return place(out, executor=sweep.executor, address=sweep.address, slots=sweep.slots, **shared)


def driver_words(out: Path, sweep: Sweep, *, retry_failed: bool = False) -> list[str]:
    """The command that does what is left of a sweep, after ``python -m apt_core``."""
    words = ["sweep", str(out / SPEC_FILE), "--out", str(out)]
    given = {"--executor": sweep.executor, "--address": sweep.address, "--slots": sweep.slots}
    usual = (None, Sweep().executor)
    words += [word for flag, value in given.items() if value not in usual for word in (flag, str(value))]
    return [*words, "--retry-failed"] if retry_failed else words


def start_driver(out: Path, sweep: Sweep, *, retry_failed: bool = False) -> None:
    """Starts a driver that goes on when the caller ends; what it prints is in the sweep's log.

    Args:
        out: the sweep's folder, with its spec.
        sweep: what an earlier driver has left there, or where the first one is to run its jobs.
        retry_failed: also try again what has failed.

    Raises:
        AptValueError: if a driver lives already.
        AptWriteError: if its log cannot be written.
    """
    locks.check_locks()
    try:
        lock = _take(out)
        if lock is None:
            raise driven(out)
        try:
            with open(out / LOG_FILE, "wb", opener=_not_a_link) as log:
                subprocess.Popen(
                    [sys.executable, "-m", "apt_core", *driver_words(out, sweep, retry_failed=retry_failed)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=(lock,),
                    env={**environment(), LOCK_VARIABLE: str(lock)},
                )
        finally:
            os.close(lock)
    except OSError as problem:
        raise AptWriteError(f"out: {out} cannot be written to ({problem.strerror}).") from problem


def stop(recorded: Recorded, jobs: Jobs) -> None:
    """Ends a sweep's driver and its jobs; a driver that lives does that within about a second.

    Raises:
        AptWriteError: if the folder does not take the request.
    """
    request = recorded.folder / STOP_FILE
    try:
        os.close(_not_a_link(request, os.O_WRONLY | os.O_CREAT))
        if not is_driven(recorded.folder):
            cancel_all(look(recorded, jobs), jobs)
            request.unlink(missing_ok=True)
    except OSError as problem:
        raise AptWriteError(f"{request}: cannot be written ({problem.strerror}).") from problem


def cancel_all(standings: list[Standing], jobs: Jobs) -> None:
    """Ends every job of a sweep; the last ones first, so that a slot is not given to one that is about to end."""
    for each in reversed(standings):
        if each.state in WAITING and each.job is not None:
            jobs.cancel(each.job.id)


def driver_log(out: Path, last_lines: int) -> str:
    """The end of what the driver has printed that was started last from the dashboard; empty where there is none."""
    return tail(out / LOG_FILE, last_lines)


def environment() -> dict[str, str]:
    """Environment variables for a Python that is to find this project, from whatever folder."""
    package = str(Path(apt_core.__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))}


def _not_a_link(path: str | os.PathLike[str], flags: int) -> int:
    return os.open(path, flags | _NO_FOLLOW, 0o666)
