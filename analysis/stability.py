"""Whether the order that gates give to layers and tokens holds: late in training, and over seeds; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analysis.agreement import rank_correlation
from analysis.gate_sample import GateSample
from analysis.gate_stats import layer_mass, quantity
from analysis.settling import MIN_STEPS


class Stability(NamedTuple):
    """Rank correlations between means over parts of the recorded steps; None: cannot be said."""

    layers: float | None  # mean weight of layers: third against last quarter
    tokens: float | None  # weights of tokens: third against last quarter
    layers_within: float | None  # as layers: first against second half of the last quarter
    tokens_within: float | None
    moved: float | None  # mean of |last quarter - first step| / first step over the weights
    basis: str  # the steps looked at, in words


class SeedAgreement(NamedTuple):
    """Rank correlation of a run's mean weights of layers with those of runs that differ only by seed."""

    mean: float | None  # over the other runs; None: no other run gives an order
    lowest: float | None
    runs: int  # that give an order, this one included
    without: int  # runs that give no order: they diverged, or all their layers weigh the same


def stability(sample: GateSample) -> Stability:
    """Compares the parts of the training; needs ``MIN_STEPS`` recorded steps."""
    count = len(sample.steps)
    if count < MIN_STEPS:
        basis = f"{count} recorded {'step' if count == 1 else 'steps'}, too few: it takes {MIN_STEPS}"
        return Stability(None, None, None, None, None, basis)
    weights = quantity("weight", sample.token_gate, sample.layer_scale)
    half, last, late = count // 2, count - count // 4, count - count // 8
    first = weights[0].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):  # a training that diverged
        third, fourth = _mean(weights[half:last]), _mean(weights[last:])
        within = _mean(weights[last:late]), _mean(weights[late:])
        change = np.abs(fourth - first) / np.abs(first)
    if (np.isfinite(first) & ~np.isfinite(fourth)).any():
        basis = "gates are not finite late in training: it diverged"
        return Stability(None, None, None, None, None, basis)
    change = change[np.isfinite(change)]
    return Stability(
        _layers(third, fourth),
        rank_correlation(third.ravel(), fourth.ravel()),
        _layers(*within),
        rank_correlation(within[0].ravel(), within[1].ravel()),
        float(change.mean()) if change.size else None,
        sample.basis,
    )


def seed_agreement(weights: np.ndarray, others: Sequence[np.ndarray]) -> SeedAgreement:
    """Whether the order of a run's layers is that of other seeds; whether those agree among themselves is no matter.

    Tokens of different seeds start at random places: the third token of one run has nothing to do with the third of
    another, so that only layers can be compared.

    Args:
        weights: of the run [L, P], NaN where a layer has no such token.
        others: of other seeds, likewise, of the same L.
    """
    found = [_layers(weights, other) for other in others]
    known = [each for each in found if each is not None]
    mean = float(np.mean(known)) if known else None
    return SeedAgreement(mean, min(known, default=None), 1 + len(known), len(found) - len(known))


def _mean(weights: np.ndarray) -> np.ndarray:
    return weights.mean(axis=0, dtype=np.float64)


def _layers(weights: np.ndarray, others: np.ndarray) -> float | None:
    """Between the layers that have tokens in both, by mean weight: sums would repeat lengths that differ."""
    counts = [np.isfinite(each).sum(axis=1) for each in (weights, others)]
    both = [
        np.divide(layer_mass(each), count, out=np.full(len(each), np.nan), where=count > 0)
        for each, count in zip((weights, others), counts, strict=True)
    ]
    return rank_correlation(*both)
