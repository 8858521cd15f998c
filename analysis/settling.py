"""When gates settled; pure numpy.

A value has settled from the first recorded step on after which it always stays within ``TOLERANCE`` of its final
value, relative to that. The final value is the mean over the last ``SETTLED_FRACTION`` of the recorded steps; a value
that still leaves the band inside that last part has not settled.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from apt_core.settled import last_part

TOLERANCE = 0.05
MIN_STEPS = 20
"""with fewer recorded steps the last part is one step, and everything would count as settled"""


class Settling(NamedTuple):
    """When each of several values settled."""

    step: np.ndarray  # the step from which on it stays; NaN where it has not settled or does not exist
    settled: np.ndarray  # bool
    exists: np.ndarray  # bool; False for padding
    enough: bool  # whether there are the steps to say so
    between: int  # largest number of optimizer steps between two that were looked at

    @property
    def unsettled(self) -> np.ndarray:
        """Bool: exists, and has not settled."""
        return self.exists & ~self.settled


def settling(steps: np.ndarray, values: np.ndarray, exists: np.ndarray) -> Settling:
    """When each value settled.

    Args:
        steps: [S], rising.
        values: [S, ...]; a NaN or infinite value counts as outside the band.
        exists: [...] bool, False where a layer has no such virtual token.
    """
    enough = len(steps) >= MIN_STEPS
    between = int(np.diff(steps).max()) if len(steps) > 1 else 1
    if not enough:
        return Settling(np.full(exists.shape, np.nan), np.zeros(exists.shape, bool), exists, False, between)
    last = last_part(len(steps))
    with np.errstate(invalid="ignore", over="ignore"):
        final = values[-last:].mean(axis=0)
        inside = np.abs(values - final) <= TOLERANCE * np.abs(final)
    inside &= np.isfinite(final)
    first = len(steps) - np.argmin(inside[::-1], axis=0)  # one after the last step outside the band
    first = np.where(inside.all(axis=0), 0, first)
    settled = (first <= len(steps) - last) & exists
    step = np.where(settled, steps[np.minimum(first, len(steps) - 1)], np.nan)
    return Settling(step, settled, exists, True, between)
