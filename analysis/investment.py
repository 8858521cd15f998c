"""What parameters buy: the Pareto front of a task's runs, the gain between its neighbours, and its knee. Pure numpy.

The front is drawn through means over seeds. Whoever picks the best of several means picks luck too: the front is a
little better than what the same settings would give again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from analysis.costs import OLDER_RUN, cost_of
from analysis.run_table import MAX_CELL, cell
from analysis.runs import Run
from analysis.side_by_side import Group, folded
from apt_core.errors import AptError
from apt_core.estimates import CONFIDENCE, Difference, Estimate, estimate, welch
from apt_core.metric_names import lower_is_better, reading_unit

FEWEST_FOR_KNEE = 3
"""points on the front"""


class Axis(NamedTuple):
    """What is spent."""

    unit: str
    per: float
    """gains are given per so much of it"""
    per_words: str
    noun: str
    """after a number, in a sentence"""
    cost: Callable[[Run, bool], float | None]
    """of a run, with or without the task head; None where it is not known"""
    unknown: str
    """why it can be unknown, and what adds it"""


def _parameters(run: Run, with_head: bool) -> float | None:
    if not run.info.num_parameters:
        return None
    return run.info.num_trained_parameters - (0 if with_head else run.info.num_parameters.get("head", 0))


def _cache_bytes(run: Run, _: bool) -> float | None:
    try:
        return cost_of(run.info, run.info.prefix_lengths).kv_cache_bytes
    except AptError:  # settings that are none of this program's
        return None


AXES: dict[str, Axis] = {
    "parameters": Axis(
        "trained parameters", 1000, "thousand parameters", "parameters", _parameters, "it does not count its parameters"
    ),
    "virtual tokens": Axis(
        "virtual tokens",
        1,
        "virtual token",
        "virtual tokens",
        lambda run, _: run.info.total_tokens,
        "it does not count its virtual tokens",
    ),
    "KV cache": Axis(
        "bytes added to the KV cache of a sequence", 1000, "kilobyte", "bytes of KV cache", _cache_bytes, OLDER_RUN
    ),
    "training time": Axis(
        "training (seconds)",
        60,
        "minute",
        "seconds",
        lambda run, _: run.info.seconds or None,
        "it has no training time",
    ),
}


class Pool(NamedTuple):
    """Runs whose metrics compare: one task, one backbone, the same data."""

    task: str
    model: str
    data: str
    """the data's hash, or the number of few-shot examples where each seed draws its own"""
    metric_name: str
    runs: list[Run]


class Option(NamedTuple):
    """One setting with all its seeds."""

    name: str
    cost: float
    metric: Estimate
    values: list[float]
    """of the metric, one per measured seed"""


class Step(NamedTuple):
    """From one point of the front to the next dearer one."""

    cheaper: Option
    dearer: Option
    added: float
    """cost, above 0"""
    gain: Difference
    """of the metric, turned so that above 0 is better; Welch's interval over seeds"""


class Knee(NamedTuple):
    """Where the front bends."""

    option: Option
    apart: bool | None
    """whether its interval overlaps with that of neither neighbour; None where one has no interval"""


class Investment(NamedTuple):
    """Everything that is shown of a pool."""

    options: list[Option]
    """by rising cost"""
    front: list[int]
    """places in ``options``"""
    steps: list[Step]
    knee: Knee | None


def pools(runs: Sequence[Run]) -> list[Pool]:
    """The runs of each task, backbone, data and metric; those with most runs first."""
    found: dict[tuple[str, str, str, str], list[Run]] = {}
    for run in runs:
        info = run.info
        shots = info.training.get("shots")
        data = f"data {info.data_hash or 'not named'}"
        if shots:
            sizes = [info.split_sizes.get(split, 0) for split in ("train", "validation", "test")]
            given = {"data_dir": info.data_dir, **info.data}
            named = "".join(f", {name} {value}" for name, value in sorted(given.items()) if value is not None)
            data = f"{shots} shots, {sizes[0]} to train, {sizes[1]} to validate, {sizes[2]} to test{named}"
        if len(data) > MAX_CELL:  # what is cut off may be all that tells two apart
            data = f"{sha256(data.encode(errors='replace')).hexdigest()[:8]}: {data}"
        place = (cell(info.task) or "no task named", cell(info.model), cell(data), info.metric_name)
        found.setdefault(place, []).append(run)
    return sorted((Pool(*place, members) for place, members in found.items()), key=lambda pool: -len(pool.runs))


def pool_names(found: Sequence[Pool]) -> dict[str, Pool]:
    """Short names, unless two would be the same: then the whole ones."""
    short = [f"{pool.task}, {pool.model.rstrip('/').rsplit('/', 1)[-1]}, {pool.data[:16]}" for pool in found]
    whole = [", ".join(pool[:4]) for pool in found]
    times = Counter(short)
    return {(name if times[name] == 1 else full): pool for name, full, pool in zip(short, whole, found, strict=True)}


def options_of(
    runs: Sequence[Run], axis: Axis, split: str = "validation", with_head: bool = True
) -> tuple[list[Option], list[tuple[Run, str]]]:
    """The runs of a pool as groups of seeds with their cost.

    Returns:
        Options by rising cost, then name; and the runs that were left out, with the reason.
    """
    usable, left_out = [], []
    for run in runs:
        value = run.metric(split)
        if run.status != "finished":
            left_out.append((run, f"it is {run.status}"))
        elif value is None:
            left_out.append((run, f"its {split} metric was not measured"))
        elif not np.isfinite(value):
            left_out.append((run, f"its {split} metric is not finite: it diverged, and is in no mean of its seeds"))
        elif axis.cost(run, with_head) is None:
            left_out.append((run, axis.unknown))
        else:
            usable.append(run)
    options = [_option(group, axis, split, with_head) for group in folded(usable)]
    return sorted(options, key=lambda option: (option.cost, option.name)), left_out


def _option(group: Group, axis: Axis, split: str, with_head: bool) -> Option:
    values = [float(run.metric(split)) for run in group.runs]
    cost = float(np.mean([axis.cost(run, with_head) for run in group.runs]))
    return Option(group.name, cost, estimate(values), values)


def invest(options: Sequence[Option], metric_name: str) -> Investment:
    """Front, steps and knee of some options.

    Args:
        options: by rising cost.
        metric_name: says which direction is better.
    """
    lower = lower_is_better(metric_name)
    costs, means = [option.cost for option in options], [option.metric.mean for option in options]
    front = pareto_front(costs, means, lower)
    distinct = [
        options[place]
        for number, place in enumerate(front)
        if number == 0 or costs[place] != costs[front[number - 1]]  # of equal points, one
    ]
    steps = [_step(cheaper, dearer, lower) for cheaper, dearer in pairwise(distinct)]
    at = knee([option.cost for option in distinct], [option.metric.mean for option in distinct], lower)
    return Investment(list(options), front, steps, None if at is None else _knee(distinct, at))


def pareto_front(
    cost: Sequence[float] | np.ndarray, value: Sequence[float] | np.ndarray, lower_is_better: bool = False
) -> list[int]:
    """The points that no other one beats: none is as cheap and better, or cheaper and as good.

    Args:
        cost: [n] finite, less is better.
        value: [n] finite.
        lower_is_better: whether a smaller value is the better one.

    Returns:
        Places by rising cost, equal points in their order. Equal points are all on the front, or none is.
    """
    cost = np.asarray(cost, dtype=np.float64)
    worth = np.asarray(value, dtype=np.float64) * (-1 if lower_is_better else 1)
    front: list[int] = []
    for place in np.lexsort((np.arange(len(cost)), -worth, cost)):
        best = front[-1] if front else None
        if best is None or worth[place] > worth[best] or (worth[place] == worth[best] and cost[place] == cost[best]):
            front.append(int(place))
    return front


def knee(
    cost: Sequence[float] | np.ndarray, value: Sequence[float] | np.ndarray, lower_is_better: bool = False
) -> int | None:
    """The point of a front that lies furthest above the straight line from its cheapest to its dearest point.

    Both axes are first scaled to go from 0 to 1, so that the line is the diagonal and the distance y - x, the
    difference curve of Kneedle (Satopaa et al., 2011) without smoothing. It depends on where the front begins and
    ends: a further, dearer point can move it.

    Args:
        cost: [n] rising strictly.
        value: [n] improving strictly.
        lower_is_better: whether a smaller value is the better one.

    Returns:
        The place, the cheaper one of equals; None for fewer than three points, or where none lies above the line.
    """
    if len(cost) < FEWEST_FOR_KNEE:
        return None
    x = np.asarray(cost, dtype=np.float64)
    y = np.asarray(value, dtype=np.float64) * (-1 if lower_is_better else 1)
    above = (y - y[0]) / (y[-1] - y[0]) - (x - x[0]) / (x[-1] - x[0])
    best = int(np.argmax(np.round(above, 12)))
    return best if above[best] > 1e-9 else None


def overlap(one: Estimate, other: Estimate) -> bool | None:
    """Whether the intervals of two means have a point in common; None where one of them has no interval.

    An interval of length 0, from seeds that gave the same number, counts as none: it would claim to be certain.
    """
    if not one.half or not other.half or one.mean is None or other.mean is None:
        return None
    return abs(one.mean - other.mean) <= one.half + other.half


def _knee(front: Sequence[Option], at: int) -> Knee:
    overlaps = [overlap(front[at].metric, front[place].metric) for place in (at - 1, at + 1)]
    return Knee(front[at], None if None in overlaps else not any(overlaps))


def _step(cheaper: Option, dearer: Option, lower: bool) -> Step:
    gain = welch(dearer.values, cheaper.values)
    return Step(cheaper, dearer, dearer.cost - cheaper.cost, gain._replace(mean=-gain.mean) if lower else gain)


def reading(found: Investment, axis: Axis, metric_name: str) -> list[str]:
    """What the front says, dearest step first, a sentence each."""
    factor, unit = reading_unit(metric_name)
    sentences = []
    for number, step in enumerate(reversed(found.steps)):
        which = "The last" if number == 0 else "The"
        place = "" if number == 0 else f" from {step.cheaper.name} to {step.dearer.name}"
        bought = f"{which} {step.added:,.0f} {axis.noun}{place} bought {factor * step.gain.mean:.2f} {unit}"
        sentences.append(f"{bought}, {_certainty(step, factor)}.")
    if found.knee is not None:
        sentences.append(_knee_words(found.knee, axis))
    elif len(found.steps) + 1 < FEWEST_FOR_KNEE:
        sentences.append(f"No knee: the front has fewer than {FEWEST_FOR_KNEE} points.")
    else:
        sentences.append("No knee: no point of the front lies above the line from its cheapest to its dearest point.")
    return sentences


def _certainty(step: Step, factor: float) -> str:
    gain = step.gain
    if gain.half is None:
        few = min(len(step.cheaper.values), len(step.dearer.values)) < 2
        reason = "a point rests on one seed" if few else "the seeds do not differ at all"
        return f"no interval, because {reason}: it may be nothing"
    interval = f"{CONFIDENCE:.0%} interval {factor * gain.low:.2f} to {factor * gain.high:.2f}"
    return interval + (": not distinguishable from nothing" if gain.sign == "undecided" else "")


def _knee_words(found: Knee, axis: Axis) -> str:
    sentence = f"The knee is at {found.option.name} ({found.option.cost:,.0f} {axis.noun})"
    if found.apart is None:
        return f"{sentence}; whether it is real cannot be said, because it or a neighbour has no interval."
    if found.apart:
        return f"{sentence}; its interval overlaps with that of neither neighbour."
    return f"{sentence}, but it is not distinguishable: its interval overlaps with that of a neighbour."
