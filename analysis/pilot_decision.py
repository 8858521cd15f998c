"""From the runs of a pilot to a decision: means over seeds, paired differences, and words by stated rules. No torch.

``cost`` is what the candidate (pruned lengths; uniform ones where they are the same) loses against the full length,
paired by seed, in points of the metric; positive is worse. With the two-sided interval of Student's t:

    the whole interval is at most the tolerance     prune
    the whole interval is above it                  keep the full length
    else                                            undecided, with how many more seeds would settle it

A training of the candidate that ended without a finite metric is in no interval, so with one the answer is never prune.
Whether the pruned lengths are better than uniform ones of the same total is a second question, answered by whether the
interval of their difference leaves out 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, sqrt
from typing import Literal, NamedTuple

from analysis.pilot import DEFAULT_TOLERANCE, Arm, Look, Pilot
from analysis.runs import Run
from apt_core.estimates import CONFIDENCE, Difference, Estimate, estimate, paired, reach
from apt_core.metric_names import lower_is_better, reading_unit

Outcome = Literal["prune", "keep the full length", "undecided"]
PRUNE: Outcome = "prune"
KEEP: Outcome = "keep the full length"
UNDECIDED: Outcome = "undecided"
DEFAULT_PERPLEXITY = 0.1
"""the same of a language model's perplexity, which is 1 at best"""
LANGUAGE_MODELS = ("causal-lm", "seq2seq-lm")
"""tasks that are measured by perplexity"""
MOST_SEEDS = 50
"""more are not counted: then the cost is about the tolerance itself"""


class ArmResult(NamedTuple):
    """What one arm achieved."""

    arm: Arm
    values: list[float | None]  # of the metric, one per seed of the pilot; None: not there
    metric: Estimate
    tokens: int
    trained_parameters: int
    seconds: Estimate


class Compared(NamedTuple):
    """One arm against another, paired by seed."""

    arm: Arm
    against: Arm
    better: Difference  # points (or the metric's unit); positive: ``arm`` is better, whichever way the metric goes


class PilotDecision(NamedTuple):
    """The answer, and what it rests on."""

    outcome: Outcome
    headline: str
    sentences: list[str]  # further answers, a sentence each
    arms: list[ArmResult]
    compared: list[Compared]
    metric_name: str
    split: str
    unit: str  # of differences
    tolerance: float
    seeds: int  # pairs of candidate and full length


def default_tolerance(task: str) -> float:
    """What fewer virtual tokens may cost if nobody says otherwise, in ``unit_of(task)``."""
    return DEFAULT_PERPLEXITY if task in LANGUAGE_MODELS else DEFAULT_TOLERANCE


def unit_of(task: str) -> str:
    """In what a cost of the task's metric is read."""
    return "perplexity" if task in LANGUAGE_MODELS else "points"


def decision_of(pilot: Pilot, found: Look) -> PilotDecision | None:
    """``decide`` on the runs that are finished at the moment."""
    return decide(pilot, {arm: found.runs(arm) for arm in pilot.arms})


def decide(pilot: Pilot, runs: Mapping[Arm, Sequence[Run | None]]) -> PilotDecision | None:
    """The decision as far as the runs go.

    Args:
        pilot: with its budget.
        runs: arm -> finished runs in the order of the seeds, None where one is missing.

    Returns:
        None until there is a finished run of the full length and one of the candidate with the same seed.
    """
    there = [run for each in runs.values() for run in each if run is not None]
    if not there:
        return None
    metric_name = there[0].info.metric_name
    split = "test" if all(run.metric("test") is not None for run in there) else "validation"
    arms = [result for arm in pilot.arms if (result := _result(arm, runs.get(arm, ()), split)) is not None]
    values = {result.arm: result.values for result in arms}
    scale, unit = reading_unit(metric_name)
    scale = -scale if lower_is_better(metric_name) else scale
    pairs = [(pilot.candidate, "full"), ("pruned", "uniform"), ("uniform", "full")]
    compared = [
        Compared(arm, against, _scaled(found, scale))
        for arm, against in dict.fromkeys(pairs)
        if arm in values and against in values and (found := paired(values[arm], values[against])) is not None
    ]
    if not compared or compared[0].against != "full" or compared[0].arm != pilot.candidate:
        return None
    cost = _scaled(compared[0].better, -1)
    outcome, headline = _answer(cost, pilot, unit, metric_name, {result.arm: result for result in arms})
    diverged = {arm: _diverged(runs.get(arm, ()), split) for arm in pilot.arms}
    if outcome == PRUNE and (names := ", ".join(diverged[pilot.candidate])):
        outcome = UNDECIDED
        headline = (
            f"Undecided: {names} ended without a finite {metric_name}, which speaks against fewer virtual tokens. The "
            f"others alone would say: {headline[0].lower()}{headline[1:]}"
        )
    sentences = _further(pilot, compared, outcome, unit, uniform_diverged=bool(diverged.get("uniform")))
    if names := ", ".join(name for arm in pilot.arms for name in diverged[arm]):
        sentences.append(f"Without a finite {metric_name}, and so in no mean and no interval: {names}.")
    return PilotDecision(
        outcome,
        headline,
        sentences,
        arms,
        compared,
        metric_name,
        split,
        unit,
        pilot.tolerance,
        cost.count,
    )


def seeds_to_settle(cost: Difference, tolerance: float) -> int | None:
    """Seeds in all with which the interval would leave the tolerance on one side, mean and scatter staying as they are.

    Returns:
        None if that takes more than ``MOST_SEEDS``, or nothing is known of the scatter.
    """
    if cost.half is None:
        return None
    scatter = cost.half * sqrt(cost.count) / reach(cost.count - 1)
    distance = abs(cost.mean - tolerance)
    enough = (n for n in range(cost.count + 1, MOST_SEEDS + 1) if reach(n - 1) * scatter / sqrt(n) < distance)
    return next(enough, None)


def amount(value: float, unit: str) -> str:
    """A number of points, or of the metric's own unit."""
    return f"{value:.1f} {unit}" if unit == "points" else f"{value:.3g} {unit}"


def signed(found: Difference, unit: str) -> str:
    """A difference with its interval, as a table has it."""
    shown = "{:+.1f}" if unit == "points" else "{:+.3g}"
    mean = shown.format(found.mean)
    if found.low is None or found.high is None:
        return f"{mean} (no interval)"
    return f"{mean} ({shown.format(found.low)} to {shown.format(found.high)})"


def rules(tolerance: float, unit: str) -> list[str]:
    """The rules of the decision, a sentence each."""
    accepted = amount(tolerance, unit)
    return [
        f"Prune: the whole {CONFIDENCE:.0%} interval of the cost, over seeds, is at most {accepted}.",
        f"Keep the full length: the whole interval is above {accepted}.",
        f"Undecided: the interval holds {accepted}, or there is none.",
        "Pruned lengths are better than uniform ones of the same total if the interval of their difference is above 0.",
    ]


def _answer(
    cost: Difference, pilot: Pilot, unit: str, metric_name: str, arms: Mapping[Arm, ArmResult]
) -> tuple[Outcome, str]:
    tolerance = pilot.tolerance
    if cost.low is None or cost.high is None:
        why = (
            "one seed says nothing about other seeds"
            if cost.count < 2
            else f"the differences of all {cost.count} seeds are the same, which gives no interval"
        )
        return UNDECIDED, f"Undecided at {_seeds(cost.count)}: {why}."
    number = "{:.1f}" if unit == "points" else "{:.3g}"
    interval = f"interval {number.format(cost.low)} to {number.format(cost.high)} {unit}"
    rests = f"{interval}, {_seeds(cost.count)}"
    if cost.high <= tolerance:
        full, fewer = arms["full"], arms[pilot.candidate]
        saved = full.trained_parameters - fewer.trained_parameters
        part = f" ({saved / full.trained_parameters:.0%})" if full.trained_parameters else ""
        least = f"at most {amount(cost.high, unit)}" if cost.high > 0 else "nothing"
        return PRUNE, (
            f"Prune: {fewer.tokens} instead of {full.tokens} virtual tokens cost {least} of {metric_name} ({rests}) "
            f"and save {saved:,} trained parameters{part}."
        )
    if cost.low > tolerance:
        return KEEP, (
            f"Keep the full length: {_what(pilot)} cost at least {amount(cost.low, unit)} of {metric_name} "
            f"({rests}), more than the {amount(tolerance, unit)} accepted."
        )
    needed = seeds_to_settle(cost, tolerance)
    way = "prune" if cost.mean <= tolerance else "keep the full length"
    more = (
        f"{needed - cost.count} more seeds would settle it ({way}) if mean and scatter stayed as they are"
        if needed
        else f"more than {MOST_SEEDS} seeds would be needed: the cost is about what is accepted"
    )
    return UNDECIDED, (
        f"Undecided at {_seeds(cost.count)}: the cost in {metric_name} has the {interval}, which holds the "
        f"{amount(tolerance, unit)} accepted; {more}."
    )


def _further(
    pilot: Pilot, compared: Sequence[Compared], outcome: Outcome, unit: str, uniform_diverged: bool
) -> list[str]:
    by_pair = {(each.arm, each.against): each.better for each in compared}
    sentences = []
    shape = by_pair.get(("pruned", "uniform"))
    if pilot.candidate == "uniform":
        sentences.append("The lengths are uniform: whether their split over the layers matters was not asked.")
    elif shape is None:
        sentences.append(
            "Whether the split over the layers matters is not known yet: no seed has both kinds of lengths."
        )
    else:
        said = {
            "above": "Pruned lengths are better than uniform ones of the same size",
            "below": "Pruned lengths are worse than uniform ones of the same size",
            "undecided": "Pruned lengths were not shown to be better than uniform ones of the same size",
        }[shape.sign]
        sentences.append(f"{said}: {signed(shape, unit)} {unit}.")
    even = by_pair.get(("uniform", "full"))
    uniform_will_do = shape is not None and even is not None and even.low is not None and -even.low <= pilot.tolerance
    if uniform_will_do and not uniform_diverged and (outcome != PRUNE or shape.sign == "below"):
        said = f"{signed(even, unit)} {unit} against the full length"
        sentences.append(f"Uniform lengths of the same total meet the rule, so use those: {said}.")
    return sentences


def _what(pilot: Pilot) -> str:
    """What the cost is of."""
    return "so few virtual tokens" if pilot.candidate == "uniform" else "the budget's lengths"


def _diverged(runs: Sequence[Run | None], split: str) -> list[str]:
    """Names of finished runs whose metric is no finite number."""
    measured = [(run, value) for run in runs if run is not None and (value := run.metric(split)) is not None]
    return [run.name for run, value in measured if not isfinite(value)]


def _result(arm: Arm, runs: Sequence[Run | None], split: str) -> ArmResult | None:
    there = [run for run in runs if run is not None]
    if not there:
        return None
    values = [None if run is None else run.metric(split) for run in runs]
    first = there[0].info
    return ArmResult(
        arm,
        values,
        estimate(values),
        first.total_tokens,
        first.num_trained_parameters,
        estimate([run.info.seconds for run in there]),
    )


def _scaled(found: Difference, scale: float) -> Difference:
    half = None if found.half is None else found.half * abs(scale)
    return Difference(found.mean * scale, half, found.count)


def _seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"
