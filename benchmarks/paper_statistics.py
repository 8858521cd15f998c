"""Means, paired tests and gate profiles of the experiment: numbers only. No torch.

Differences are paired by seed: the runs of a seed share the order of data and the few-shot examples. They are turned so
that above 0 is better for the first of the two. Axes: L layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr, ttest_1samp

from apt_core.estimates import Difference, Estimate, contrast, estimate, paired
from benchmarks.paper_methods import APT, METHODS, PT2, STAR
from benchmarks.paper_results import Measured, Table

LEVEL = 0.05
"""probability of a false finding that is accepted"""


class Comparison(NamedTuple):
    """One method against another on test."""

    method: str
    other: str
    difference: Difference
    p: float | None
    """of the two-sided paired t test; None where there is no interval"""
    p_holm: float | None = None
    """corrected by Holm for all comparisons of its table"""

    @property
    def verdict(self) -> str:
        """held: the first is better; opposite: it is worse; undecided."""
        if self.p_holm is None or self.p_holm >= LEVEL:
            return "undecided"
        return "held" if self.difference.mean > 0 else "opposite"


class Profile(NamedTuple):
    """Where a task's gates let the prefix through, over the seeds of APT."""

    weight: list[Estimate]
    """mean of |lambda| alpha over each layer's virtual tokens [L]"""
    share: list[Estimate]
    """of each layer in the sum of all gates [L]"""
    spread: list[Estimate]
    """standard deviation of each layer's mean alpha over the validation examples [L]"""
    centres: list[float]
    """per seed: mean layer, counted from 1, weighted with the shares"""


class GateFacts(NamedTuple):
    """How the gates of a method ended, over its seeds; each a mean over the layers."""

    saturated: Estimate
    """part of the token gates, 0 to 1"""
    spread: Estimate
    """standard deviation of a layer's mean alpha over the validation examples"""
    agreement: float | None
    """mean rank correlation of the layers' masses over all pairs of seeds, -1 to 1; None where there is no pair"""


def compare(table: Table) -> list[Comparison]:
    """APT against each other method, and PT-2* against PT-2, as far as both were measured with a seed."""
    pairs = [(APT, method) for method in METHODS if method != APT] + [(STAR, PT2)]
    found = [_comparison(table, method, other) for method, other in pairs]
    return with_holm([each for each in found if each is not None])


def compare_over_tables(tables: Sequence[Table], pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
    """The same for the mean over several tables of their differences, each table with the same weight.

    Of the tables those of ``averaged``. Runs of different tasks are independent, so a table counts with its own scatter
    and its own number of seeds.
    """
    found = []
    for method, other in pairs:
        by_table = [list(_by_seed(table, method, other).values()) for table in averaged(tables, method, other)]
        if by_table:
            found.append(Comparison(method, other, *contrast([(1 / len(by_table), each) for each in by_table])))
    return with_holm(found)


def averaged(tables: Sequence[Table], method: str, other: str) -> list[Table]:
    """Those in which two seeds or more of both methods were measured; where there are none, those with one."""
    counts = [len(_by_seed(table, method, other)) for table in tables]
    least = min(2, max(counts, default=0))
    return [table for table, count in zip(tables, counts, strict=True) if count and count >= least]


def with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Adds p values corrected by Holm (Scandinavian Journal of Statistics 6, 1979), in the order given."""
    known = sorted((each.p, index) for index, each in enumerate(comparisons) if each.p is not None)
    corrected: dict[int, float] = {}
    highest = 0.0
    for rank, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        corrected[index] = highest
    return [each._replace(p_holm=corrected.get(index)) for index, each in enumerate(comparisons)]


def scores(runs: Mapping[int, Measured], split: str) -> Estimate:
    """Mean and interval of a method's metric over its seeds."""
    return estimate([getattr(run, split) for run in runs.values()])


def profile(table: Table) -> Profile | None:
    """Of the final runs of APT whose gates are finite; None where there are none."""
    runs = _with_gates(table, APT)
    if not runs:
        return None
    mass = np.array([run.gate_mass for run in runs])  # [seeds, L]
    shares = mass / mass.sum(axis=1, keepdims=True)
    weight = mass / np.maximum(1, [run.prefix_lengths for run in runs])
    spread = np.array([run.gate_spread for run in runs])
    centres = shares @ np.arange(1, mass.shape[1] + 1)
    columns = [[estimate(column.tolist()) for column in array.T] for array in (weight, shares, spread)]
    return Profile(*columns, centres.tolist())


def gate_facts(table: Table, method: str) -> GateFacts | None:
    """Of the final runs of a method whose gates are finite; None where there are none."""
    runs = _with_gates(table, method)
    if not runs or any(run.gate_saturation is None for run in runs):
        return None
    pairs = [spearmanr(one.gate_mass, two.gate_mass).statistic for one, two in combinations(runs, 2)]
    agreement = float(np.mean(pairs)) if pairs and np.isfinite(pairs).all() else None
    saturated, spread = (
        estimate(np.mean(values, axis=1).tolist())
        for values in ([run.gate_saturation for run in runs], [run.gate_spread for run in runs])
    )
    return GateFacts(saturated, spread, agreement)


def _with_gates(table: Table, method: str) -> list[Measured]:
    return [run for run in table.final(method).values() if run.gate_mass and run.gate_spread and sum(run.gate_mass) > 0]


def lower_centre(lower: Sequence[Profile], higher: Sequence[Profile]) -> tuple[Difference, float | None]:
    """Mean layer of some tasks' gates minus that of others', each task of a side with the same weight, and p."""
    sides = ((1 / len(lower), lower), (-1 / len(higher), higher))
    return contrast([(weight, each.centres) for weight, profiles in sides for each in profiles])


def _comparison(table: Table, method: str, other: str) -> Comparison | None:
    differences = list(_by_seed(table, method, other).values())
    return _tested(method, other, differences) if differences else None


def _by_seed(table: Table, method: str, other: str) -> dict[int, float]:
    """Differences on test; none where the two chose their learning rates from different grids, as half-way."""
    if table.grids.get(method) != table.grids.get(other):
        return {}
    mine, theirs = table.final(method), table.final(other)
    pairs = {seed: (mine[seed].test, theirs[seed].test) for seed in mine if seed in theirs}
    return {seed: table.sign * (one - two) for seed, (one, two) in pairs.items() if one is not None and two is not None}


def _tested(method: str, other: str, differences: Sequence[float]) -> Comparison:
    found = paired(differences, [0.0] * len(differences))
    p = None if found.half is None else float(ttest_1samp(differences, 0).pvalue)
    return Comparison(method, other, found, p)
