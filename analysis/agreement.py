"""Whether an importance goes along with the measured effect: rank correlations over layers and over tokens; pure.

The measured effect of a layer, or of a token, is what the loss rises by when it is left out, in nats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau, rankdata

from analysis.curves import loss_table
from analysis.resampling import (
    Interval,
    bootstrap_means,
    chance_of_order,
    chance_within_groups,
    interval,
)
from apt_core.measure_format import Measures, Point

MAX_COMPARED = 10_000
"""virtual tokens; more would take gigabytes"""


class Correlation(NamedTuple):
    """Two orders of the same things, compared by rank; from -1 (reversed) to 1 (the same)."""

    spearman: Interval
    kendall: float
    chance: float  # probability of a Spearman at least this high if the one order had nothing to do with the other
    count: int  # layers or tokens


class Effects(NamedTuple):
    """What leaving out each of several layers or tokens costs."""

    places: np.ndarray  # [K] which of the layers, or of the tokens in the order of layers, were left out
    examples: int  # N, those where all losses are known
    mean: np.ndarray  # [K] nats, loss without - loss with
    low: np.ndarray  # [K] of the interval over examples
    high: np.ndarray  # [K]
    resampled: np.ndarray  # [draws, K] of mean, over resamples of the examples


def layer_effects(measures: Measures) -> Effects | None:
    """The effect of leaving out each layer that has virtual tokens; None where no example has all its losses."""
    places = [layer for layer, point in enumerate(measures.layers) if point is not None]
    return _effects(measures, places, [point for point in measures.layers if point is not None])


def token_effects(measures: Measures) -> Effects | None:
    """The effect of leaving out each virtual token; None where that was not measured."""
    points = [point for layer in measures.tokens or () for point in layer]
    return _effects(measures, list(range(len(points))), points)


def _effects(measures: Measures, places: list[int], points: list[Point]) -> Effects | None:
    if not points or len(points) > MAX_COMPARED:
        return None
    rises = (loss_table(points) - loss_table([measures.full])).T
    rises = rises[np.isfinite(rises).all(axis=1)]
    if not len(rises):
        return None
    mean = rises.mean(axis=0)
    resampled = bootstrap_means(rises)
    found = [interval(float(mean[index]), resampled[:, index]) for index in range(len(points))]
    low, high = (np.array([getattr(each, end) for each in found]) for end in ("low", "high"))
    return Effects(np.array(places), len(rises), mean, low, high, resampled)


def layer_sums(importance: list[list[float]]) -> np.ndarray:
    """The importance of each layer as a whole, the sum over its tokens: [L]."""
    return np.array([float(np.sum(layer)) for layer in importance])


def layer_correlation(importance: list[list[float]], effects: Effects | None) -> Correlation | None:
    """Importance of layers against their measured effects, both per virtual token.

    Layers with more tokens have more importance and more effect as a whole, whatever the importance is. Only per token
    do the two say something of each other where lengths differ; where they do not, the order is the same.

    Returns:
        None for fewer than two layers, if either is all equal or a number is not finite.
    """
    if effects is None:
        return None
    lengths = np.array([len(importance[place]) for place in effects.places])
    numbers = layer_sums(importance)[effects.places] / lengths
    each = effects._replace(mean=effects.mean / lengths, resampled=effects.resampled / lengths)
    return _correlation(numbers, each, lambda: chance_of_order(numbers, each.mean))


def token_correlation(importance: list[list[float]], effects: Effects | None) -> Correlation | None:
    """Importance of tokens against their measured effects.

    The correlation is over all tokens of all layers. Its ``chance`` compares tokens only within their layers: those of
    one layer are no independent witnesses of what the layer as a whole is worth.
    """
    if effects is None:
        return None
    if all(len(set(layer)) < 2 for layer in importance):
        return None  # it says nothing about tokens: what the layers say is ``layer_correlation``'s
    numbers = np.concatenate([np.asarray(layer, dtype=np.float64) for layer in importance])
    ends = np.cumsum([len(layer) for layer in importance])[:-1]
    return _correlation(
        numbers, effects, lambda: chance_within_groups(np.split(numbers, ends), np.split(effects.mean, ends))
    )


def _correlation(numbers: np.ndarray, effects: Effects, chance: Callable[[], float]) -> Correlation | None:
    rho = rank_correlation(numbers, effects.mean)
    if rho is None or not np.isfinite([numbers, effects.mean]).all():
        return None
    resampled = _row_correlations(effects.resampled, numbers)
    kendall = float(kendalltau(numbers, effects.mean).statistic)
    return Correlation(interval(rho, resampled), kendall, chance(), len(numbers))


def rank_correlation(numbers: np.ndarray, others: np.ndarray) -> float | None:
    """Spearman's rank correlation of what is finite in both; None for fewer than two, or if either is all equal."""
    known = np.isfinite(numbers) & np.isfinite(others)
    if known.sum() < 2:
        return None
    found = float(_row_correlations(others[known][None], numbers[known])[0])
    return found if np.isfinite(found) else None


def _row_correlations(rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Spearman of each row [n, K] with ``numbers`` [K]; NaN where either is all equal."""
    ranks, other = rankdata(rows, axis=1), rankdata(numbers)
    ranks -= ranks.mean(axis=1, keepdims=True)
    other -= other.mean()
    size = np.sqrt((ranks**2).sum(axis=1) * (other @ other))
    return np.divide(ranks @ other, size, out=np.full(len(rows), np.nan), where=size > 0)
