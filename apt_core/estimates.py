"""Means over a few runs and differences of means, each with an interval of Student's t. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

CONFIDENCE = 0.95

Sign = Literal["above", "below", "undecided"]


class Estimate(NamedTuple):
    """A mean over runs."""

    mean: float | None  # None: not measured
    half: float | None
    """half length of the interval; None where there is none: fewer than two values, or values that do not scatter"""
    count: int  # values


class Difference(NamedTuple):
    """A mean minus another."""

    mean: float
    half: float | None
    """half length of the interval; None where there is none: fewer than two values, or values that do not scatter"""
    count: int  # values or pairs that the smaller side rests on

    @property
    def low(self) -> float | None:
        """Lower end of the interval."""
        return None if self.half is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        """Upper end of the interval."""
        return None if self.half is None else self.mean + self.half

    @property
    def sign(self) -> Sign:
        """On which side of 0 the whole interval is; undecided where it contains 0, or there is none."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "undecided"
        return "above" if self.mean > 0 else "below"


def estimate(values: Sequence[float | None]) -> Estimate:
    """Mean and two-sided interval of Student's t: mean +- t(n - 1) s / sqrt(n), at ``CONFIDENCE``.

    It holds where the values scatter normally from seed to seed. What was not measured is left out.
    """
    known = _known(values)
    if not known.size:
        return Estimate(None, None, 0)
    if not _scatter(known):
        return Estimate(float(known.mean()), None, known.size)
    error = known.std(ddof=1) / np.sqrt(known.size)
    return Estimate(float(known.mean()), float(reach(known.size - 1) * error), known.size)


def welch(values: Sequence[float | None], reference: Sequence[float | None]) -> Difference | None:
    """``mean(values) - mean(reference)`` of independent runs, with Welch's interval for unequal variances.

    Welch, Biometrika 34 (1947): the degrees of freedom are (u + v)^2 / (u^2 / (n - 1) + v^2 / (m - 1)) with the
    squared standard errors u and v.

    Returns:
        None where one side was not measured at all.
    """
    left, right = _known(values), _known(reference)
    if not left.size or not right.size:
        return None
    return contrast([(1, left), (-1, right)])[0]


def contrast(groups: Sequence[tuple[float, Sequence[float]]]) -> tuple[Difference, float | None]:
    """A weighted sum of the means of independent groups with its interval, and the p value of its being 0.

    Degrees of freedom as of Welch and Satterthwaite: (sum v)^2 / sum(v^2 / (n - 1)), v a group's w^2 s^2 / n.

    Args:
        groups: weight w and values of each, at least one.

    Returns:
        The sum; p of the two-sided test, None where there is no interval.
    """
    from scipy.special import stdtr  # as in ``reach``

    sides = [(weight, np.asarray(values, dtype=np.float64)) for weight, values in groups]
    mean, count = float(sum(weight * side.mean() for weight, side in sides)), min(side.size for _, side in sides)
    if count < 2 or not _scatter(*(side for _, side in sides)):
        return Difference(mean, None, count), None
    parts = np.array([weight**2 * side.var(ddof=1) / side.size for weight, side in sides])
    freedom = parts.sum() ** 2 / (parts**2 / [side.size - 1 for _, side in sides]).sum()
    error = float(np.sqrt(parts.sum()))
    return Difference(mean, float(reach(freedom) * error), count), float(2 * stdtr(freedom, -abs(mean) / error))


def paired(values: Sequence[float | None], reference: Sequence[float | None]) -> Difference | None:
    """Mean of ``values - reference`` over pairs, such as runs of the same seed, with Student's interval.

    Args:
        values, reference: of equal length; a pair of which one part was not measured is left out.

    Returns:
        None where no pair is left.
    """
    pairs = zip(values, reference, strict=True)
    known = _known([None if left is None or right is None else left - right for left, right in pairs])
    if not known.size:
        return None
    return Difference(*estimate(known.tolist()))


def _scatter(*sides: np.ndarray) -> bool:
    """Whether values differ by more than rounding: an interval of length 0 would claim a certainty nobody has."""
    return any(side.size > 1 and np.ptp(side) > 1e-12 * max(1.0, np.abs(side).max()) for side in sides)


def reach(freedom: float) -> float:
    """Student's t that the middle ``CONFIDENCE`` of its distribution reaches, at ``freedom`` degrees of freedom."""
    from scipy.special import stdtrit  # a third of a second, which no command's --help needs to wait

    return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))


def _known(values: Sequence[float | None]) -> np.ndarray:
    return np.array([value for value in values if value is not None and np.isfinite(value)], dtype=np.float64)
