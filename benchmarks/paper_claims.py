"""The paper's claims, each with what the measurements say of it, in words made from the numbers. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from apt_core.estimates import CONFIDENCE, Difference
from apt_core.metric_names import reading_unit
from benchmarks.paper_methods import ABLATIONS, APT, METHODS, PLUS, PT2, STAR
from benchmarks.paper_results import Table
from benchmarks.paper_statistics import Comparison, averaged, compare, compare_over_tables, lower_centre, profile

Verdict = Literal["held", "did not hold", "undecided at this size", "not measured in full", "not measured"]
WORD_METRIC = "entity_f1"
"""of tasks that label words, as the paper's CoNLL04; the others judge whole texts, as its COPA"""


class Claim(NamedTuple):
    """One claim."""

    statement: str
    verdict: Verdict
    lines: list[str]
    """what the verdict rests on, a sentence each"""


_COMPARED = (
    ("APT is better than PT-2.", ((APT, PT2),)),
    ("It is so not only because it has more parameters: APT is better than PT-2+.", ((APT, PLUS),)),
    ("Lengths from the gates are better than equal ones: PT-2* is better than PT-2.", ((STAR, PT2),)),
    ("Every part helps: APT is better than without h, without alpha and without lambda.",
     tuple((APT, ablation) for ablation in ABLATIONS)),
)  # fmt: skip
_PROFILES = "Gates show what a task needs: labelling words uses lower layers than judging whole texts."


def claims(tables: Sequence[Table]) -> list[Claim]:
    """The paper's claims on the tables of one backbone.

    The verdict on a comparison is that of the mean over the tasks with all their data, as the paper's is; of the one
    task, or the first few-shot table, where there are no more. Rehearsals count only where there is nothing else.

    Held: a two-sided test over seeds, corrected by Holm, finds the difference. Did not hold: it finds the opposite. A
    claim of several comparisons holds if all do. Corrected is for all comparisons of a table, or, of means over tasks,
    for all that the claims name.
    """
    tables = [table for table in tables if table.setting.max_steps is None] or list(tables)
    alone = {each: compare(table) for each, table in enumerate(tables)}
    whole = [
        table for table in tables if table.setting.shots is None and reading_unit(table.metric_name)[1] == "points"
    ]
    full = list({table.setting.task: table for table in whole}.values())  # of several settings of a task the last
    deciding = full or list(tables)[:1]
    pairs = [pair for _, group in _COMPARED for pair in group]
    over_all = alone[tables.index(deciding[0])] if len(deciding) == 1 else compare_over_tables(deciding, pairs)
    overall = {(each.method, each.other): each for each in over_all}
    found = []
    for statement, group in _COMPARED:
        decided = [overall.get(pair) for pair in group]
        lines = []
        for pair, mean in zip(group, decided, strict=True):
            if mean is not None and len(deciding) > 1:
                lines.append(f"{_titles(pair)}, {_mean_of(deciding, pair)}: {_words(mean, None)}")
            for index, table in enumerate(tables):
                mine = [each for each in alone[index] if (each.method, each.other) == pair]
                lines += [f"{_titles(pair)}, {table_title(table, tables)}: {_words(each, table)}" for each in mine]
            if pair == (STAR, PT2):
                lines += [line for line in map(_tokens_line, deciding) if line]
        if statement == _COMPARED[-1][0]:
            lines += [line for line in map(_spread_line, full) if line]
        found.append(Claim(statement, _verdict(decided), lines))
    return [*found, _profile_claim(full)]


def table_title(table: Table, among: Sequence[Table] = ()) -> str:
    """Which data a table is of; with its settings, where others are of the same.

    Args:
        among: all tables of its backbone.
    """
    setting = table.setting
    shots = setting.shots
    alike = [each for each in among if (each.setting.task, each.setting.shots) == (setting.task, shots)]
    settings = ""
    if len(alike) > 1:
        settings = (
            f", epochs: {setting.epochs}, up to {setting.max_length} sub-words, {setting.num_virtual_tokens} tokens"
        )
    if shots is None:
        return f"{setting.task}, all examples{settings}"
    unit = "per class" if table.split_sizes["train"] > shots else "in all"
    return f"{setting.task}, {shots} examples {unit}{settings}"


def _mean_of(tables: Sequence[Table], pair: tuple[str, str]) -> str:
    """Over which tasks a difference is averaged, and which are left out of it."""
    used = averaged(tables, *pair)
    left = ", ".join(table.setting.task for table in tables if table not in used)
    without = f" (without {left})" if left else ""
    return f"mean over {len(used)} task{'s' if len(used) > 1 else ''}, all examples{without}"


def difference_text(difference: Difference, metric_name: str) -> str:
    """A difference with its interval, in the unit that differences are read in."""
    factor, unit = reading_unit(metric_name)
    mean = f"{factor * difference.mean:+.2f} {unit}"
    if difference.low is None or difference.high is None:
        return mean
    return (
        f"{mean}, {100 * CONFIDENCE:.0f} % interval {factor * difference.low:+.2f} to {factor * difference.high:+.2f}"
    )


def _words(comparison: Comparison, table: Table | None) -> str:
    metric = table.metric_name if table is not None else "points"
    difference = comparison.difference
    text = difference_text(difference, metric)
    seeds = f"{difference.count} seed" + ("s" if difference.count != 1 else "")
    if comparison.p is None or comparison.p_holm is None or difference.half is None:
        return f"{text}; undecided, {seeds} {'do not scatter' if difference.count > 1 else 'has no interval'}"
    factor, unit = reading_unit(metric)
    p = f"p {comparison.p:.3f}, corrected {comparison.p_holm:.3f}"
    if comparison.verdict == "undecided":
        who = "these seeds" if table is None else seeds
        return f"{text} ({p}); undecided: {who} could have shown {factor * difference.half:.2f} {unit}, uncorrected"
    return f"{text} ({p}); {'held' if comparison.verdict == 'held' else 'the opposite'}"


def _verdict(decided: Sequence[Comparison | None]) -> Verdict:
    known = [each.verdict for each in decided if each is not None]
    if "opposite" in known:
        return "did not hold"
    if not known:
        return "not measured"
    if any(each != "held" for each in known):
        return "undecided at this size"
    return "held" if len(known) == len(decided) else "not measured in full"


def _profile_claim(tables: Sequence[Table]) -> Claim:
    profiles = {index: profile(table) for index, table in enumerate(tables)}
    words = [index for index, table in enumerate(tables) if table.metric_name == WORD_METRIC and profiles[index]]
    texts = [index for index, table in enumerate(tables) if table.metric_name != WORD_METRIC and profiles[index]]
    if not words or not texts:
        return Claim(_PROFILES, "not measured", [])
    centres = {index: f"{tables[index].setting.task} {np.mean(profiles[index].centres):.2f}" for index in words + texts}
    layers = len(profiles[words[0]].weight)
    lines = [f"mean layer of the gates, of {layers}: {', '.join(centres.values())}"]
    difference, p = lower_centre([profiles[index] for index in words], [profiles[index] for index in texts])
    told = f"words minus texts: {difference.mean:+.2f}"
    if difference.low is not None:
        told += f", {100 * CONFIDENCE:.0f} % interval {difference.low:+.2f} to {difference.high:+.2f} (p {p:.3f})"
    lines.append(told)
    verdicts: dict[str, Verdict] = {"below": "held", "above": "did not hold", "undecided": "undecided at this size"}
    return Claim(_PROFILES, verdicts[difference.sign], lines)


def _tokens_line(table: Table) -> str | None:
    """How many virtual tokens PT-2* has beside PT-2."""
    means = [
        np.mean([sum(run.prefix_lengths) for run in runs.values()]) for runs in map(table.final, (STAR, PT2)) if runs
    ]
    if len(means) < 2:
        return None
    return f"virtual tokens, {table_title(table)}: {means[0]:.0f} instead of {means[1]:.0f} (means over seeds)"


def _spread_line(table: Table) -> str | None:
    found = profile(table)
    if found is None:
        return None
    means = ", ".join(f"{layer.mean:.4f}" for layer in found.spread)
    return (
        f"how much h does, {table_title(table)}: from one validation example to another, a layer's mean token gate "
        f"differs by a standard deviation of {means} (layer 1 to {len(found.spread)}; gates are between 0 and 1)"
    )


def _titles(pair: tuple[str, str]) -> str:
    return f"{METHODS[pair[0]].title} minus {METHODS[pair[1]].title}"
