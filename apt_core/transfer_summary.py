"""Whether a source's lengths carry over: means, paired differences and words from ``transfer.json``. No torch."""

from __future__ import annotations

from typing import NamedTuple

from apt_core.estimates import CONFIDENCE, Difference, Estimate, estimate, paired
from apt_core.metric_names import reading_unit
from apt_core.transfer_format import ARMS, Arm, Transfer

PAIRS: tuple[tuple[Arm, Arm], ...] = (
    ("source", "uniform"),
    ("source", "random"),
    ("source", "own"),
    ("warm", "source"),
)
"""arm, and what it is held against; the first pair decides"""
SAME_RUNS = "the same lengths at this total: the same runs, nothing to compare"


class ArmResult(NamedTuple):
    """One arm over its seeds."""

    arm: Arm
    metric: Estimate
    lengths: list[tuple[int, ...]]
    """each that was trained, once; several only for random ones"""


class Compared(NamedTuple):
    """One arm minus another over the seeds that both have."""

    arm: Arm
    other: Arm
    difference: Difference | None
    """of the metric, turned so that above 0 is better; None where no seed has both"""
    words: str


class Summary(NamedTuple):
    """Everything a transfer says."""

    arms: list[ArmResult]
    compared: list[Compared]
    verdict: str


def summary(transfer: Transfer) -> Summary:
    """Means with intervals over seeds, paired differences, and a verdict that rests on source against uniform alone.

    The runs of a seed share initialisation, order of the data and few-shot examples, so differences are taken seed by
    seed. Intervals are not corrected for there being several: the pair that decides is fixed beforehand.
    """
    arms = []
    for arm in ARMS:
        mine = [run for run in transfer.runs if run.arm == arm]
        if mine:
            lengths = list(dict.fromkeys(tuple(run.prefix_lengths) for run in mine))
            arms.append(ArmResult(arm, estimate([run.metric for run in mine]), lengths))
    present = {result.arm for result in arms}
    compared = [_compare(transfer, arm, other) for arm, other in PAIRS if {arm, other} <= present]
    return Summary(arms, compared, _verdict(transfer, compared))


def _compare(transfer: Transfer, arm: Arm, other: Arm) -> Compared:
    mine, theirs = ({run.seed: run for run in transfer.runs if run.arm == name} for name in (arm, other))
    both = [(mine[seed], theirs[seed]) for seed in sorted(mine.keys() & theirs.keys())]
    difference = paired([one.metric for one, _ in both], [two.metric for _, two in both])
    if difference is not None and not transfer.greater_is_better:
        difference = difference._replace(mean=-difference.mean)
    same = bool(both) and all(one.folder == two.folder for one, two in both)
    return Compared(arm, other, difference, _words(transfer, arm, other, difference, same))


def _words(transfer: Transfer, arm: Arm, other: Arm, difference: Difference | None, same: bool) -> str:
    metric_name, finished = transfer.metric_name, transfer.finished
    if same:
        return SAME_RUNS
    if difference is None:
        return f"no seed has a finite {metric_name} in both{'' if finished else ' yet'}"
    seeds = f"{difference.count} seed" + ("s" if difference.count != 1 else "")
    factor, unit = reading_unit(metric_name)
    mean = f"{factor * difference.mean:+.2f} {unit}"
    if difference.half is None:
        reason = "one seed has no interval" if difference.count < 2 else "the differences do not scatter"
        return f"undecided at {seeds} ({mean}; no interval, because {reason})"
    interval = f"{CONFIDENCE:.0%} interval {factor * difference.low:+.2f} to {factor * difference.high:+.2f}"
    word = {"above": f"better than {other}", "below": f"worse than {other}", "undecided": "undecided"}[difference.sign]
    return f"{word} at {seeds} ({mean}, {interval})"


def _verdict(transfer: Transfer, compared: list[Compared]) -> str:
    deciding = next((each for each in compared if (each.arm, each.other) == PAIRS[0]), None)
    what = f"The lengths of {transfer.source} ({transfer.source_task})"
    if deciding is None:
        return f"{what} on {transfer.task}: no seed is finished yet."
    if deciding.words == SAME_RUNS:
        return f"{what} say nothing about {transfer.task}: at this total they are the uniform ones."
    sign = deciding.difference.sign if deciding.difference is not None else "undecided"
    diverged = [run for run in transfer.runs if run.metric is None]
    if sign == "above" and any(run.arm == "source" for run in diverged):
        sign = "undecided"  # what diverged is in no mean, and speaks against these lengths
    carry = {
        "above": "carry over",
        "below": "do not carry over",
        "undecided": "may or may not carry over",
    }[sign]
    partial = "" if transfer.finished else " Not all seeds are finished."
    if diverged:
        names = ", ".join(f"{run.arm} seed {run.seed}" for run in diverged)
        partial += f" Without a finite {transfer.metric_name}, and so in no mean: {names}."
    return f"{what} {carry} to {transfer.task}: against uniform lengths, {deciding.words}.{partial}"
