"""Recorded steps and positions of a slider over them; pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MAX_FRAMES = 130
"""of one Play, however many steps were recorded"""


class SliderRange(NamedTuple):
    """Positions of a slider that reaches every recorded step."""

    first: int
    last: int
    step: int


def slider_range(steps: np.ndarray, planned: int = 0) -> SliderRange:
    """Positions for recorded steps [S >= 2]; with ``planned`` steps there is room for those to come."""
    first = int(steps[0])
    spacing = int(np.gcd.reduce(np.diff(steps)))
    last = max(int(steps[-1]), planned)
    return SliderRange(first, first + -(-(last - first) // spacing) * spacing, spacing)


def nearest(steps: np.ndarray, wanted: int) -> int:
    """Index of the recorded step nearest to ``wanted``; the earlier one of two equally near."""
    after = int(np.searchsorted(steps, wanted))
    if after == 0:
        return 0
    if after == len(steps) or wanted - steps[after - 1] <= steps[after] - wanted:
        return after - 1
    return after


def moved(steps: np.ndarray, before: int, wanted: int) -> int:
    """The recorded step that a slider moved from ``before`` to ``wanted`` means.

    The nearest one, but never ``before`` itself when the slider did move: then the next in that direction, so that an
    arrow key also crosses a gap in the recorded steps.
    """
    index = nearest(steps, wanted)
    if int(steps[index]) == before and wanted != before:
        index = min(max(index + (1 if wanted > before else -1), 0), len(steps) - 1)
    return int(steps[index])


def frames(steps: np.ndarray, start: int) -> np.ndarray:
    """The steps that Play goes through: from ``start`` (from the first one, if it is the last) to the last.

    At most ``MAX_FRAMES``, evenly spaced.
    """
    first = nearest(steps, start)
    if first == len(steps) - 1:
        first = 0
    count = min(MAX_FRAMES, len(steps) - first)
    return steps[np.linspace(first, len(steps) - 1, count).round().astype(np.int64)]
