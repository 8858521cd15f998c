"""A results file: held by one call at a time, and replaced as a whole. No torch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apt_core.errors import bad_value
from apt_core.files import write_atomic
from apt_core.jobs import locks


@contextlib.contextmanager
def alone(path: Path, field: str) -> Iterator[None]:
    """Holds a results file against a second call at the same time, which would write over what this one measures.

    Args:
        path: the file; it may be missing.
        field: the option that names it.

    Raises:
        AptValueError: if another call holds it.
    """
    lock = path.with_name(f".{path.name}.lock")
    descriptor = locks.take(lock)
    if descriptor is None:
        raise bad_value(field, str(path), "a file that no other call of this command works on")
    try:
        yield
    finally:
        locks.remove(lock, descriptor)


def write_json(path: Path, content: Any) -> None:
    """Replaces the file in one step.

    Raises:
        OSError: if that is not possible; the file is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())
