"""The small curve of a run in a table: validation metric or training loss over its steps, out of ``metrics.jsonl``."""

from __future__ import annotations

import json
import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from analysis.run_checks import is_finite_number
from apt_core.run_format import METRICS_FILE

MAX_POINTS = 40
MAX_WHOLE_BYTES = 4 * 2**20
"""a larger file is looked at in ``_NUM_BLOCKS`` places spread evenly over it"""
_NUM_BLOCKS = 64
_BLOCK_BYTES = 64 * 1024
_CACHED_CURVES = 2048


class Curves(NamedTuple):
    """At most ``MAX_POINTS`` values each, first step first."""

    metric: tuple[float, ...]
    loss: tuple[float, ...]


NO_CURVES = Curves((), ())


def curves_of(folder: Path, metric_name: str) -> Curves:
    """A run's curves; damaged lines are passed over, a file that is no regular file is not opened."""
    path = folder / METRICS_FILE
    try:
        found = os.lstat(path)
    except OSError:
        return NO_CURVES
    if not stat.S_ISREG(found.st_mode):
        return NO_CURVES
    return _read(str(path), f"eval_{metric_name}", found.st_mtime_ns, found.st_size, found.st_ino)


@lru_cache(maxsize=_CACHED_CURVES)
def _read(path: str, metric: str, *stamp: int) -> Curves:
    try:
        lines = _lines(Path(path))
    except OSError:
        return NO_CURVES
    return Curves(_values(lines, metric), _values(lines, "loss"))


def _lines(path: Path) -> list[bytes]:
    """All lines, or of a large file whole lines from evenly spread places."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= MAX_WHOLE_BYTES:
            return file.read(MAX_WHOLE_BYTES).split(b"\n")
        lines = []
        for block in range(_NUM_BLOCKS):
            file.seek(block * (size - _BLOCK_BYTES) // (_NUM_BLOCKS - 1))
            lines += file.read(_BLOCK_BYTES).split(b"\n")[1 if block else 0 : -1]
    return lines


def _values(lines: list[bytes], field: str) -> tuple[float, ...]:
    """The field's finite numbers, thinned before anything is parsed; the last one is always kept."""
    word = json.dumps(field).encode()
    holding = [line for line in lines if word in line]
    values = []
    for line in thinned(holding, MAX_POINTS):
        try:
            value = json.loads(line).get(field)
        except (ValueError, AttributeError, RecursionError):
            continue
        if is_finite_number(value):
            values.append(float(value))
    return tuple(values)


def thinned(items: list, count: int) -> list:
    """At most ``count`` of ``items``, evenly spread, first and last included."""
    if len(items) <= count:
        return items
    return [items[place * (len(items) - 1) // (count - 1)] for place in range(count)]
