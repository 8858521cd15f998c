"""Locks on files that end with the process that holds them, however it ends, and that a child can inherit.

``flock``: a lock belongs to an open file. A descriptor handed to a child keeps it until both have closed theirs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from apt_core.errors import AptValueError

try:
    import fcntl
except ImportError:  # Windows, where this module can be imported but takes no lock
    fcntl = None

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


def check_locks() -> None:
    """Refuses a system without such locks.

    Raises:
        AptValueError: on Windows.
    """
    if fcntl is None:
        raise AptValueError("jobs: need Linux, macOS or WSL; here, run the command itself instead of submitting it.")


def take(path: Path, *, wait: bool = False) -> int | None:
    """Takes the lock on a file, which is made if it is missing.

    Args:
        path: the file; its folder is made too.
        wait: until whoever holds it lets go.

    Returns:
        The descriptor that holds the lock, not inheritable; None if somebody else holds it.

    Raises:
        OSError: if the file cannot be made or its file system knows no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _NO_FOLLOW, 0o644)  # who may see a folder may ask
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still_at(path, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder has removed the file meanwhile; the next one is another file


def is_held(path: Path) -> bool:
    """Whether anybody holds the lock on a file; not, if there is no such file."""
    return _shared(path, wait=False)


def wait_until_free(path: Path) -> None:
    """Returns, without using the processor until then, once nobody holds the lock on a file."""
    _shared(path, wait=True)


def remove(path: Path, descriptor: int) -> None:
    """Removes a file whose lock ``descriptor`` holds, and lets go."""
    with contextlib.suppress(OSError):
        path.unlink()
    os.close(descriptor)


@contextlib.contextmanager
def held(path: Path) -> Iterator[int]:
    """Holds the lock on a file, after waiting for it."""
    descriptor = take(path, wait=True)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _shared(path: Path, *, wait: bool) -> bool:
    """Whether the lock is somebody's; a shared one, taken for a moment, hinders nobody else who looks."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _NO_FOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if wait else fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_still_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False
