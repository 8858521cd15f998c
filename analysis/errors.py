"""Do gates differ between right and wrong examples, between classes, or with the loss? Differences with intervals.

Pure numpy and scipy. Axes: N examples, L layers, G groups. Tests are corrected for their number with Benjamini and
Hochberg's false discovery rate. A layer whose gate is the same for every example is not tested: NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit
from scipy.stats import false_discovery_control, kruskal, spearmanr

CONFIDENCE = 0.95
FALSE_DISCOVERIES = 0.05
"""an adjusted p-value below it counts as a difference"""
MIN_GROUP = 10
"""examples on each side; with fewer there is no number"""
MAX_GROUPS = 500
ROUNDING = 2e-6
"""gates are written with six decimals: a layer that varies by no more is the same for every example"""


class LayerTests(NamedTuple):
    """One number per layer with its interval and its test; [L], or [G, L] for several groups."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    adjusted: np.ndarray
    """p-values after Benjamini and Hochberg, over all layers (and groups)"""
    effect: np.ndarray
    """Cohen's d of a difference; a correlation itself; epsilon squared of a test over classes"""

    def of(self, group: int) -> LayerTests:
        """The layers of one group."""
        return LayerTests(*(part[group] for part in self))


class GroupTests(NamedTuple):
    """Several groups, each against other examples."""

    names: list[str]  # [G]
    counts: np.ndarray  # [G, 2] examples in the group and those it is compared with
    tests: LayerTests  # [G, L] difference of the mean gate: group minus the others; NaN with fewer than MIN_GROUP


def varying(gates: np.ndarray) -> np.ndarray:
    """[L] whether a layer's gate differs from example to example by more than rounding."""
    known = np.where(np.isfinite(gates), gates, np.nan)
    present = np.isfinite(known).any(axis=0)
    spread = np.zeros(gates.shape[1])
    if present.any():
        spread[present] = np.nanmax(known[:, present], axis=0) - np.nanmin(known[:, present], axis=0)
    return spread > ROUNDING


def lacking(error: np.ndarray) -> str | None:
    """Why right and wrong examples cannot be compared, as a sentence; None where they can.

    Args:
        error: [N] 1 wrong, 0 right, NaN unknown.
    """
    counts = {"wrong": int((error == 1).sum()), "right": int((error == 0).sum())}
    few = [name for name, count in counts.items() if count < MIN_GROUP]
    if not few:
        return None
    had = " and ".join(f"{counts[name]} {name}" for name in few)
    return f"There are {had} examples; a comparison needs at least {MIN_GROUP} right and {MIN_GROUP} wrong ones."


def outcome_differences(gates: np.ndarray, outcomes: Mapping[str, np.ndarray]) -> GroupTests:
    """For each outcome the mean gate where it is 1 minus that where it is 0, per layer: Welch's test, Cohen's d.

    Args:
        gates: [N, L].
        outcomes: name -> [N] 1 or 0; others are left out.
    """
    varies = varying(gates)
    counts = np.array([[(each == 1).sum(), (each == 0).sum()] for each in outcomes.values()]).reshape(-1, 2)
    shape = (len(outcomes), gates.shape[1])
    value, low, high, p, effect = (np.full(shape, np.nan) for _ in range(5))
    for row, outcome in enumerate(outcomes.values()):
        if counts[row].min() >= MIN_GROUP:
            found = _welch(gates[outcome == 1], gates[outcome == 0])
            for target, numbers in zip((value, low, high, p, effect), found, strict=True):
                target[row] = np.where(varies, numbers, np.nan)
    return GroupTests(list(outcomes), counts, LayerTests(value, low, high, p, adjusted(p), effect))


def group_differences(gates: np.ndarray, names: Sequence[str]) -> GroupTests:
    """Mean gate of each name's examples minus that of all others, the largest group first.

    Args:
        names: [N] such as the gold class of each example; of many the ``MAX_GROUPS`` most frequent are compared.
    """
    labels = np.array(names, dtype=object)
    found, counts = np.unique(labels.astype(str), return_counts=True)
    order = np.lexsort((found, -counts))[:MAX_GROUPS]
    return outcome_differences(gates, {name: (labels == name).astype(np.int8) for name in found[order].tolist()})


def against_mean(groups: GroupTests) -> GroupTests:
    """The same differences, to the mean over all examples, the group included: (1 - n / N) of that to the others."""
    share = (groups.counts[:, 1] / groups.counts.sum(axis=1).clip(min=1))[:, None]
    scaled = {name: getattr(groups.tests, name) * share for name in ("value", "low", "high", "effect")}
    return groups._replace(tests=groups.tests._replace(**scaled))


def over_classes(gates: np.ndarray, names: Sequence[str]) -> LayerTests:
    """Whether a layer's gate differs between any classes: Kruskal and Wallis's H, chi-squared with G - 1 degrees.

    Classes with fewer than ``MIN_GROUP`` examples are left out. ``value`` is H, ``effect`` epsilon squared,
    H / (N - 1), in [0, 1]; there is no interval.
    """
    _, index, counts = np.unique(np.array(names, dtype=str), return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts >= MIN_GROUP)
    h, p, effect = (np.full(gates.shape[1], np.nan) for _ in range(3))
    for layer in np.flatnonzero(varying(gates)):
        column = np.where(np.isfinite(gates[:, layer]), gates[:, layer], np.nan)
        groups = [part for label in kept if len(part := column[(index == label) & ~np.isnan(column)])]
        known = np.concatenate(groups) if len(groups) > 1 else np.empty(0)
        if len(known) and np.ptp(known):
            h[layer], p[layer] = kruskal(*groups)
            effect[layer] = h[layer] / (len(known) - 1)
    nothing = np.full_like(h, np.nan)
    return LayerTests(h, nothing, nothing, p, adjusted(p), effect)


def correlation(gates: np.ndarray, values: np.ndarray) -> LayerTests:
    """Spearman's rank correlation of each layer's gate with a number per example, such as its loss.

    The interval is Fisher's, with Bonett and Wright's (2000) standard error sqrt((1 + r^2 / 2) / (n - 3)).

    Args:
        values: [N]; examples without a finite one are left out.
    """
    r, p, low, high = (np.full(gates.shape[1], np.nan) for _ in range(4))
    for layer in np.flatnonzero(varying(gates)):
        use = np.isfinite(values) & np.isfinite(gates[:, layer])
        n = int(use.sum())
        if n < 2 * MIN_GROUP or np.ptp(values[use]) == 0 or np.ptp(gates[use, layer]) == 0:
            continue
        r[layer], p[layer] = spearmanr(gates[use, layer], values[use])
        bounded = np.clip(r[layer], -1 + 1e-12, 1 - 1e-12)
        half = ndtri(0.5 + CONFIDENCE / 2) * np.sqrt((1 + bounded**2 / 2) / (n - 3))
        low[layer], high[layer] = np.tanh(np.arctanh(bounded) + np.array([-half, half]))
    return LayerTests(r, low, high, p, adjusted(p), r)


def adjusted(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's p-values over all that were tested; NaN stays NaN."""
    result = np.full(p.shape, np.nan)
    tested = np.isfinite(p)
    if tested.any():
        result[tested] = false_discovery_control(p[tested])
    return result


def differing(tests: LayerTests) -> np.ndarray:
    """The layers, counted from 1, whose adjusted p-value is below ``FALSE_DISCOVERIES``."""
    return np.flatnonzero(np.nan_to_num(tests.adjusted, nan=1.0) < FALSE_DISCOVERIES) + 1


def _welch(group: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Difference of means, its interval, p-value and Cohen's d per layer, of [n, L] and [m, L]."""
    n, mean, variance = _moments(group)
    m, other_mean, other_variance = _moments(others)
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = mean - other_mean
        one, two = variance / n, other_variance / m
        error = np.sqrt(one + two)
        freedom = (one + two) ** 2 / (one**2 / (n - 1) + two**2 / (m - 1))
        half = stdtrit(freedom, 0.5 + CONFIDENCE / 2) * error
        p = 2 * stdtr(freedom, -np.abs(difference / error))
        pooled = np.sqrt(((n - 1) * variance + (m - 1) * other_variance) / (n + m - 2))
        return difference, difference - half, difference + half, p, difference / pooled


def _moments(gates: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean and variance (n - 1) per layer of what is finite; NaN where fewer than two are."""
    finite = np.isfinite(gates)
    n = np.where(finite.sum(axis=0) > 1, finite.sum(axis=0), np.nan)
    mean = np.where(finite, gates, 0).sum(axis=0) / n
    return n, mean, (np.where(finite, gates - mean, 0) ** 2).sum(axis=0) / (n - 1)
