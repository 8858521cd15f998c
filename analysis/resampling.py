"""Intervals by the bootstrap over examples, and chances by permutation; pure numpy and scipy, seeded."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import permutation_test, rankdata

from analysis.side_by_side import CONFIDENCE

DRAWS = 2_000
"""resamples of the examples behind each interval"""
PERMUTATIONS = 9_999
"""random orders behind each chance"""
SEED = 0
_AT_A_TIME = 4_000_000
"""numbers held in memory at once"""


class Interval(NamedTuple):
    """A number and its percentile interval at ``CONFIDENCE``, over resamples of the examples."""

    value: float
    low: float
    high: float


def bootstrap_means(values: np.ndarray, draws: int = DRAWS, seed: int = SEED) -> np.ndarray:
    """Means of resamples of the rows, the same rows for every column, as ``scipy.stats.bootstrap`` draws them.

    Args:
        values: [N, K], one row per example, at least one.
        draws: resamples, each of N rows with replacement.
        seed: of the resamples.

    Returns:
        [draws, K].
    """
    num_examples = len(values)
    random = np.random.default_rng(seed)
    means = np.empty((draws, values.shape[1]))
    at_a_time = max(1, _AT_A_TIME // num_examples)
    for start in range(0, draws, at_a_time):
        count = min(at_a_time, draws - start)
        chosen = random.integers(0, num_examples, (count, num_examples))
        chosen += np.arange(count)[:, None] * num_examples
        times = np.bincount(chosen.ravel(), minlength=count * num_examples).reshape(count, num_examples)
        means[start : start + count] = times @ values / num_examples
    return means


def interval(value: float, resampled: np.ndarray) -> Interval:
    """A statistic with the percentiles of its resamples; those that are NaN are left out.

    Args:
        value: on the examples as they are.
        resampled: [draws] on each resample.
    """
    known = resampled[np.isfinite(resampled)]
    if not known.size:
        return Interval(value, float("nan"), float("nan"))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def chance_of_order(numbers: np.ndarray, others: np.ndarray) -> float:
    """How often a random order of ``numbers`` [n] goes along with ``others`` [n] at least as well, by rank.

    Every order is tried for up to 7 numbers, ``PERMUTATIONS`` random ones beyond.
    """
    ranks, other_ranks = rankdata(numbers), rankdata(others)
    found = permutation_test(
        (ranks,),
        lambda permuted, axis: (permuted * other_ranks).sum(axis=axis),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=max(1, _AT_A_TIME // len(ranks)),
        alternative="greater",
        rng=np.random.default_rng(SEED),
    )
    return float(found.pvalue)


def chance_within_groups(numbers: list[np.ndarray], others: list[np.ndarray]) -> float:
    """As ``chance_of_order``, with numbers changing places only inside their own group.

    What differs between the groups as wholes then counts for nothing.
    """
    random = np.random.default_rng(SEED)
    observed, permuted = 0.0, np.zeros(PERMUTATIONS)
    for mine, theirs in zip(numbers, others, strict=True):
        if len(mine) < 2:
            continue
        ranks, other_ranks = rankdata(mine), rankdata(theirs)
        observed += ranks @ other_ranks
        for part in np.array_split(permuted, -(-permuted.size * len(ranks) // _AT_A_TIME)):
            part += random.permuted(np.tile(ranks, (len(part), 1)), axis=1) @ other_ranks
    as_good = (permuted >= observed * (1 - 1e-12)).sum()  # sums of the same numbers in another order
    return float((1 + as_good) / (1 + PERMUTATIONS))
