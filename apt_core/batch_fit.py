"""From passes over a few examples to the batch that fits: a line through what they took, and what is left. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

CLEAR = 0.5
"""a need up to this share of the memory left is not looked at more closely"""
DOUBT = (0.75, 1.5)
"""between these shares of it, a need is measured on as large a pass as can be risked"""
SAFE = 0.9
"""share of it that a proposed batch may need, and a pass that is measured"""
MORE = 4
"""examples of the second pass"""


class Fit(NamedTuple):
    """What a batch needs, and which one fits."""

    need: float
    """bytes for the batch asked for; infinite if a single example ran out of memory"""
    largest: int
    """the batch asked for if it fits, or else the largest that fits with some margin; 0 if none does"""


def fit_batch(measure: Callable[[int], float | None], batch_size: int, room: float) -> Fit:
    """Estimates what a batch needs: ``fixed + each * examples`` bytes, where all examples have the same length.

    One example says enough where there is plenty; else four do, or a pass over up to a quarter of the batch.

    Args:
        measure: bytes that a pass over so many examples takes; None if it ran out of memory.
        batch_size: that is asked for.
        room: bytes that are left.
    """
    points: list[tuple[int, float]] = []
    failed = None
    for wanted in (1, MORE, batch_size // 4):
        size = min(wanted, batch_size)
        if points:
            last, taken = points[-1]
            size = min(size, int(SAFE * room * last / taken))
            if size <= last:
                continue
        taken = measure(size)
        if taken is None:
            failed = size
            break
        points.append((size, taken))
        share = _need(points, batch_size) / room if room > 0 else math.inf
        if share <= CLEAR or (len(points) > 1 and not DOUBT[0] < share < DOUBT[1]):
            break
    if not points:
        return Fit(math.inf, 0)
    need = _need(points, batch_size)
    if failed is None:
        if need <= room:
            return Fit(need, batch_size)
        most = batch_size - 1
    else:
        need, most = max(need, room), failed // 2
    return Fit(need, next((size for size in range(most, 0, -1) if _need(points, size) <= SAFE * room), 0))


def _need(points: list[tuple[int, float]], examples: int) -> float:
    """On the line through the first and the last point; through one point: in proportion."""
    (few, little), (many, much) = points[0], points[-1]
    if many == few:
        return little / few * examples
    return much + (much - little) / (many - few) * (examples - many)
