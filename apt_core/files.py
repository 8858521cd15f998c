"""Files of a run: replaced in one step, and read with a bound and without following links. No torch."""

from __future__ import annotations

import os
import stat
from io import FileIO
from pathlib import Path

from apt_core.errors import AptValueError

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
# a named pipe without a writer must not block the one who looks at it
_READ_FLAGS = _NO_FOLLOW | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def write_atomic(path: Path, *parts: bytes | memoryview) -> None:
    """Replaces ``path`` by ``parts`` in one step: a reader sees the old or the new content, never a part of it.

    Raises:
        OSError: if the disk or the folder does not take it; ``path`` is then as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags | _NO_FOLLOW, 0o666)) as file:
            for part in parts:
                file.write(part)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def open_regular(path: Path) -> FileIO:
    """Opens a file for reading if it is a regular file and no link.

    Raises:
        AptValueError: if it is a link, a folder, a pipe or a device.
        OSError: if it is missing or may not be read.
    """
    if path.is_symlink():
        raise AptValueError(f"{path}: is a link; links in a run folder are not followed.")
    descriptor = os.open(path, os.O_RDONLY | _READ_FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise AptValueError(f"{path}: is not a regular file.")
    return FileIO(descriptor)


def read_bounded(path: Path, at_most_bytes: int) -> bytes:
    """The content of a regular file.

    Raises:
        AptValueError: if it is larger than ``at_most_bytes``, a link or no regular file.
        OSError: if it is missing or may not be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > at_most_bytes:
            raise AptValueError(f"{path}: {size:,} bytes, larger than the {at_most_bytes:,} that are read.")
        parts = []
        while size > 0 and (part := file.read(size)):  # what is appended meanwhile is for the next reader
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def read_into(file: FileIO, offset: int, target: memoryview) -> None:
    """Fills ``target``, a view of bytes, from ``offset``.

    Raises:
        OSError: if the file ends before.
    """
    file.seek(offset)
    while len(target):
        count = file.readinto(target)
        if not count:
            raise OSError("the file ends too early")
        target = target[count:]
