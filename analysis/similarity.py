"""How alike the gate profiles of runs are, and whether those of one task are more alike than those of others.

Axes: N runs, L layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import factorial, prod
from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from analysis.run_checks import check_lengths
from analysis.runs import Run
from apt_core.errors import AptError, AptValueError
from apt_core.gate_log import GateLog
from apt_core.run_format import GATES_FOLDER, RunInfo
from apt_core.settled import settled_mass

KINDS = {
    "Spearman": "rank correlation of the layers' shares of gate mass: from -1 to 1",
    "cosine": "cosine of the angle between the layers' shares of gate mass: from 0 to 1",
}
MAX_PROFILES = 30
"""that can still be told apart in a matrix"""
PERMUTATIONS = 9_999
SIGNIFICANCE = 0.05


class Excluded(NamedTuple):
    """A run that is not compared."""

    run: Run
    reason: str


class Tree(NamedTuple):
    """A clustering as it is drawn."""

    order: list[int]
    """places of the runs, alike ones beside each other [N]"""
    x: list[list[float]]
    """of each joint's four corners [N - 1][4]; the n-th run in ``order`` is at 10 n + 5"""
    y: list[list[float]]
    """heights of the corners: 1 - mean similarity between the two sides [N - 1][4]"""


class Alikeness(NamedTuple):
    """Pairs of runs of one task against pairs of different tasks."""

    within: float
    """mean similarity"""
    between: float
    within_pairs: int
    between_pairs: int
    p: float
    """of a difference at least as large if tasks were dealt out to the runs at random"""
    smallest_p: float
    """that could have come out with these numbers of runs"""


def comparable(runs: Sequence[Run], num_layers: int, with_lengths: bool = False) -> tuple[list[Run], list[Excluded]]:
    """The runs whose profiles can be compared, by what ``run.json`` says.

    Args:
        runs: any.
        num_layers: that all must have.
        with_lengths: also runs whose lengths differ between layers.
    """
    kept, excluded = [], []
    for run in runs:
        reason = _excluded(run.info, num_layers, with_lengths)
        if reason:
            excluded.append(Excluded(run, reason))
        else:
            kept.append(run)
    return kept, excluded


def _excluded(info: RunInfo, num_layers: int, with_lengths: bool) -> str:
    config = info.apt_config
    if info.num_layers != num_layers:
        return f"it has {info.num_layers} layers, not {num_layers}"
    if config.get("token_gate") == "none" and not config.get("layer_scale", True):
        return "it has neither token gates nor layer scales"
    if len(set(info.prefix_lengths)) > 1 and not with_lengths:
        return "its layers have different lengths, which its profile would repeat"
    return ""


def layer_counts(runs: Sequence[Run]) -> list[int]:
    """Numbers of layers there are among runs, the most common first."""
    counted = Counter(run.info.num_layers for run in runs if run.info.num_layers)
    return sorted(counted, key=lambda layers: (-counted[layers], layers))


def profile_of(run: Run) -> np.ndarray:
    """Each layer's share of the gate mass over the last tenth of the recorded steps: [L], sums to 1.

    Raises:
        AptError: if the gates cannot be read, there are none, they are not the run's, or they diverged.
        OSError: the same.
    """
    log = GateLog(run.folder / GATES_FOLDER)
    check_lengths(run.info, log.prefix_lengths)
    mass = settled_mass(log)
    if mass.sum() <= 0:
        raise AptValueError("it has no gate mass.")
    return mass / mass.sum()


def try_profile(run: Run) -> np.ndarray | str:
    """The profile, or why there is none."""
    try:
        return profile_of(run)
    except (AptError, OSError) as problem:
        return f"its gates cannot be read ({problem})"


def similarity_matrix(profiles: np.ndarray, kind: str) -> np.ndarray:
    """How alike each two profiles are: [N, N], symmetric, 1 on the diagonal.

    Args:
        profiles: [N, L] shares.
        kind: a key of ``KINDS``. A profile that is the same in every layer has no ranks: NaN beside all others.
    """
    rows = np.asarray(profiles, dtype=np.float64)
    if kind == "Spearman":
        rows = rankdata(rows, axis=1)
        rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, lengths, out=np.full_like(rows, np.nan), where=lengths > 0)
    matrix = np.clip(unit @ unit.T, -1, 1)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def cluster(matrix: np.ndarray) -> Tree:
    """Hierarchical clustering with average linkage on 1 - similarity, alike leaves beside each other.

    Args:
        matrix: [N, N], N >= 1; NaN counts as no similarity.
    """
    count = len(matrix)
    if count < 2:
        return Tree(list(range(count)), [], [])
    distance = 1 - np.nan_to_num(matrix, nan=0.0)
    np.fill_diagonal(distance, 0.0)
    joined = linkage(squareform(np.maximum(distance, distance.T), checks=False), "average", optimal_ordering=True)
    drawing = dendrogram(joined, no_plot=True)
    return Tree([int(leaf) for leaf in drawing["leaves"]], drawing["icoord"], drawing["dcoord"])


def alikeness(matrix: np.ndarray, tasks: Sequence[str], seed: int = 0) -> Alikeness | None:
    """Mean similarity within tasks minus that between tasks, against ``PERMUTATIONS`` random dealings of the tasks.

    p = (1 + dealings with at least this difference) / (1 + ``PERMUTATIONS``), one-sided: more alike within.

    Args:
        matrix: [N, N]; pairs that are NaN are left out.
        tasks: [N] of each run.
        seed: of the dealings.

    Returns:
        None where there is no pair of one task or none of different tasks.
    """
    names, place = np.unique(np.asarray(tasks, dtype=object).astype(str), return_inverse=True)
    rows, columns = np.triu_indices(len(place), 1)
    pairs = matrix[rows, columns]
    known = ~np.isnan(pairs)
    rows, columns, pairs = rows[known], columns[known], pairs[known]
    same = place[rows] == place[columns]
    if not same.any() or same.all():
        return None
    draw = np.random.default_rng(seed)
    found = _difference(pairs, same)
    larger = 0
    for _ in range(PERMUTATIONS):
        dealt = draw.permutation(place)
        larger += _difference(pairs, dealt[rows] == dealt[columns]) >= found - 1e-12
    smallest = max(1 / _dealings(np.bincount(place, minlength=len(names))), 1 / (1 + PERMUTATIONS))
    p = max((1 + larger) / (1 + PERMUTATIONS), smallest)  # drawing dealings at random can miss the exact value
    return Alikeness(
        float(pairs[same].mean()), float(pairs[~same].mean()), int(same.sum()), int((~same).sum()), p, smallest
    )


def _difference(pairs: np.ndarray, same: np.ndarray) -> float:
    """Mean over pairs of one task minus mean over the others; -inf where one of both is empty."""
    within = int(same.sum())
    if not 0 < within < len(pairs):
        return -np.inf
    total = pairs[same].sum()
    return float(total / within - (pairs.sum() - total) / (len(pairs) - within))


def _dealings(sizes: np.ndarray) -> float:
    """In how many ways runs can be put into groups of these sizes, groups of the same size not told apart."""
    ways = factorial(int(sizes.sum())) // prod(factorial(int(size)) for size in sizes)
    return ways // prod(factorial(times) for times in Counter(sizes.tolist()).values())


def reading(found: Alikeness | None, kind: str, tasks: Sequence[str]) -> str:
    """What the test says, in a sentence."""
    if found is None:
        if len(set(tasks)) < 2:
            return "All these runs are of one task: there is nothing to hold their likeness against."
        return "No task has two runs here: how alike runs of one task are is not known."
    means = (
        f"mean {kind} {found.within:.2f} over {found.within_pairs} pairs of one task, {found.between:.2f} over "
        f"{found.between_pairs} pairs of different tasks, permutation test p = {found.p:.3g}"
    )
    if found.p < SIGNIFICANCE:
        return f"Profiles of the same task are more alike than those of different tasks: {means}."
    if found.smallest_p >= SIGNIFICANCE:
        return (
            f"Too few runs to tell whether profiles of the same task are more alike: {means}, and p could not have "
            f"been below {found.smallest_p:.2g}."
        )
    if found.within > found.between:
        return f"It is not shown that profiles of the same task are more alike than those of different tasks: {means}."
    return f"Profiles of the same task are not more alike than those of different tasks: {means}."


def by_task(tasks: Sequence[str], names: Sequence[str]) -> list[int]:
    """Places of the runs, task by task, by name within a task."""
    return sorted(range(len(tasks)), key=lambda place: (tasks[place], names[place], place))
