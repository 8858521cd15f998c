"""How good an order of removing virtual tokens is: areas between deletion curves, with intervals; pure numpy.

The area under a curve is taken over the kept fraction (from 0 to 1) by the trapezoidal rule, so it is the loss averaged
over all sizes, in nats. It is taken for each example, so that resampling the examples gives intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from analysis.resampling import Interval, bootstrap_means, interval
from apt_core.measure_format import IMPORTANCES, RANDOM, REVERSED, Curve, Measures, Point

MIN_RANDOM_ORDERS = 2
"""with fewer, how much random orders differ among themselves is not known"""
ONE_SIDED = 0.95
"""one more random order saves less than ``OrderScore.random_bound`` with this probability"""
ONE_SIDED_OF_OTHERS = 1 - (1 - ONE_SIDED) / (len(IMPORTANCES) - 1)
"""the same for the importances other than the gates: the best of them is looked for, which gives chance more tries"""


class OrderScore(NamedTuple):
    """What removing the least important tokens first saves, by one importance. Positive is good; None: not measured."""

    over_random: Interval | None  # nats: loss under random orders (their mean) - loss under this one, over all sizes
    share: float | None  # over_random as a part of what the whole prefix gains
    random_bound: float | None  # nats: one more random order saves less than this, see ``ONE_SIDED``
    random_beaten: int  # random orders that it beats
    over_reverse: Interval | None  # nats: as over_random, against the most important first
    over_gates: Interval | None  # nats: as over_random, against the order of the gates
    metric_over_random: float | None  # in the metric's unit; positive is better


class CurveScores(NamedTuple):
    """Every order that was measured, on the same examples."""

    examples: int  # that the numbers rest on
    left_out: int  # examples that lack a loss somewhere, such as those without labels
    random_orders: int
    gain: Interval | None  # nats: loss without any virtual token - loss with all
    orders: dict[str, OrderScore]  # key of ``IMPORTANCES`` -> score


def loss_table(points: Sequence[Point]) -> np.ndarray:
    """Losses of each example at each point: [K, N] nats, NaN where there is none."""
    return np.array([[np.nan if loss is None else loss for loss in point.losses] for point in points], dtype=np.float64)


def area(kept: Sequence[int], values: np.ndarray) -> np.ndarray:
    """Area under a curve over the kept fraction: its mean over all sizes.

    Args:
        kept: [K] virtual tokens left, falling from all to 0; at least two.
        values: [K, ...] at each.

    Returns:
        [...].
    """
    return np.trapezoid(values[::-1], np.array(kept[::-1]) / kept[0], axis=0)


def metrics_of(curve: Curve) -> np.ndarray:
    """The run's metric at each size: [K], NaN where it is not defined."""
    return np.array([np.nan if point.metric is None else point.metric for point in curve.points], dtype=np.float64)


def curves_by_order(measures: Measures) -> tuple[dict[str, Curve], list[Curve]]:
    """The curves of importances and their reverses by name, and the random ones; none where there is no token."""
    curves = [curve for curve in measures.curves if len(curve.kept) > 1]
    named = {curve.order: curve for curve in curves if not curve.order.startswith(RANDOM)}
    return named, [curve for curve in curves if curve.order.startswith(RANDOM)]


def complete_examples(measures: Measures) -> np.ndarray:
    """Which examples have a finite loss with and without the prefix and at every point of every curve: bool [N]."""
    named, random = curves_by_order(measures)
    points = [point for curve in [*named.values(), *random] for point in curve.points]
    return np.isfinite(loss_table([measures.full, measures.empty, *points])).all(axis=0)


def score_curves(measures: Measures) -> CurveScores:
    """Scores every order that was measured; intervals resample the examples, paired over all curves."""
    named, random = curves_by_order(measures)
    complete = complete_examples(measures)
    ends = loss_table([measures.full, measures.empty])
    areas = {name: area(curve.kept, loss_table(curve.points)) for name, curve in named.items()}
    by_draw = np.zeros((len(random), len(complete)))
    for row, curve in zip(by_draw, random, strict=True):
        row[:] = area(curve.kept, loss_table(curve.points))
    num_examples = int(complete.sum())
    left_out = len(complete) - num_examples
    if not num_examples:
        return CurveScores(0, left_out, len(random), None, {})
    areas = {name: each[complete] for name, each in areas.items()}
    by_draw = by_draw[:, complete]

    columns = {"gain": ends[1, complete] - ends[0, complete]}
    for name in IMPORTANCES:
        others = {
            "random": by_draw.mean(axis=0) if len(random) else None,
            "reverse": areas.get(name + REVERSED),
            "gates": areas.get("gate") if name != "gate" else None,
        }
        columns |= {
            f"{name} over {other}": against - areas[name]
            for other, against in others.items()
            if name in areas and against is not None
        }
    differences = np.stack(list(columns.values()), axis=1)
    resampled = bootstrap_means(differences)
    found = {
        name: interval(float(differences[:, index].mean()), resampled[:, index]) for index, name in enumerate(columns)
    }
    gain = found["gain"]
    random_means = by_draw.mean(axis=1)
    orders = {}
    for name in IMPORTANCES:
        if name not in areas:
            continue
        over_random = found.get(f"{name} over random")
        orders[name] = OrderScore(
            over_random,
            over_random.value / gain.value if over_random and gain.low > 0 else None,
            random_bound(random_means, ONE_SIDED if name == "gate" else ONE_SIDED_OF_OTHERS),
            int((areas[name].mean() < random_means).sum()),
            found.get(f"{name} over reverse"),
            found.get(f"{name} over gates"),
            _metric_over_random(named[name], random, measures.greater_is_better),
        )
    return CurveScores(num_examples, left_out, len(random), gain, orders)


def random_bound(areas: np.ndarray, probability: float) -> float | None:
    """How far under the mean of ``areas`` [R] the area of one more random order is at most, with a probability.

    The prediction bound of Student's t: t(R - 1) s sqrt(1 + 1 / R). An order that carries no information is one more
    random order, however many examples there are; None for fewer than ``MIN_RANDOM_ORDERS``.
    """
    count = len(areas)
    if count < MIN_RANDOM_ORDERS:
        return None
    return float(stdtrit(count - 1, probability) * areas.std(ddof=1) * np.sqrt(1 + 1 / count))


def _metric_over_random(curve: Curve, random: list[Curve], greater_is_better: bool) -> float | None:
    if not random:
        return None
    mean = np.mean([area(each.kept, metrics_of(each)) for each in random])
    difference = float(area(curve.kept, metrics_of(curve)) - mean)
    return (difference if greater_is_better else -difference) if np.isfinite(difference) else None
