"""Layers whose length a person locked in a table. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def changed_locks(
    locks: Mapping[int, int], lengths: Sequence[int], edits: Mapping[int, Mapping[str, Any]], lock: str, length: str
) -> dict[int, int]:
    """The locks after a person edited the table of lengths.

    Args:
        locks: before, layer from 0 -> length.
        lengths: shown in the table [L].
        edits: row -> column -> what was put there.
        lock, length: names of the columns for the lock (bool) and the length (integer; None where it was emptied).
    """
    after = dict(locks)
    for layer, cells in edits.items():
        if cells.get(lock, layer in locks):
            after[layer] = int(cells.get(length, lengths[layer]) or 0)
        else:
            after.pop(layer, None)
    return after
