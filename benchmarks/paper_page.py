"""The page of the experiment, made from its results alone: tables, gate profiles and a reading. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apt_core.config import canonical_name
from apt_core.estimates import CONFIDENCE, Estimate
from apt_core.markdown import last_name, plain
from apt_core.markdown import table as markdown_table
from apt_core.metric_names import reading_unit
from apt_core.settled import SATURATED
from benchmarks.paper_claims import claims, table_title
from benchmarks.paper_methods import APT, FINE_TUNING_FACTOR, METHODS, PT2, STAR, rates_of
from benchmarks.paper_published import published_for
from benchmarks.paper_results import Table
from benchmarks.paper_statistics import Comparison, compare, gate_facts, profile, scores

_COLUMNS = ("method", "learning rate", "rates tried (seeds)", "seeds", "tokens", "parameters", "validation", "test",
            "APT minus it, test", "p", "corrected", "minutes")  # fmt: skip
TITLE = "# The claims of Adaptive Prefix Tuning, measured again"
_HOW = (
    "Zhang et al., *Towards Adaptive Prefix Tuning for Parameter-Efficient Language Model Fine-tuning*, ACL 2023 "
    "([arXiv 2305.15212](https://arxiv.org/abs/2305.15212)). Every method is trained with the same learning rates on "
    "the first seeds (*rates tried*, and the number of these seeds); the rate that is best on validation is chosen, "
    "the other seeds are trained with it, and test is measured with it only, once per run. Fine-tuning takes each rate "
    f"times {FINE_TUNING_FACTOR}. A rate marked \\* is at an end of its grid: one beyond it may be better. Intervals "
    "and p take the chosen rates as given, which with few seeds to choose by is a chance of its own. The checkpoint of "
    "a run is its best one on validation, so validation flatters; few-shot trainings choose on the whole validation "
    f"split, which flatters all of them. Means over seeds with {100 * CONFIDENCE:.0f} % intervals (Student's t). *APT "
    "minus it* is paired by seed, p from a paired t test, *corrected* by Holm for all comparisons of the table, or, of "
    "means over tasks, for all that the claims name; only what is corrected decides. Differences are turned so that "
    "above 0 is better for the first, also where a lower metric is. Minutes are of a training on a machine that may "
    "have done other things meanwhile."
)


def page(tables: Sequence[Table], source: str) -> str:
    """Markdown.

    Args:
        tables: what was measured.
        source: name of the results file.
    """
    lines = [TITLE, "", f"Written by `python -m benchmarks.paper` from `{source}`.", "", _HOW]
    if any(table.setting.max_steps is not None for table in tables):
        lines += ["", "**A rehearsal: trainings of a few steps, which say nothing about the methods.**"]
    for model in dict.fromkeys(table.setting.model for table in tables):
        mine = [table for table in tables if table.setting.model == model]
        shown = last_name(model) if Path(model).is_absolute() else canonical_name(model)
        lines += ["", f"## {plain(shown)}", ""]
        for number, claim in enumerate(claims(mine), start=1):
            lines += [f"{number}. {plain(claim.statement)} **{claim.verdict[0].upper()}{claim.verdict[1:]}.**"]
            lines += [f"    - {plain(line)}" for line in claim.lines]
        for table in mine:
            lines += ["", f"### {plain(table_title(table, mine))}", "", _facts(table), *_table(table)]
            lines += [*_profile(table), *_gates(table), *_published(table)]
    lines += ["", "## Methods", "", *(f"- **{plain(method.title)}**: {method.about}" for method in METHODS.values())]
    return "\n".join(lines) + "\n"


def _facts(table: Table) -> str:
    setting, sizes = table.setting, table.split_sizes
    examples = ", ".join(f"{sizes[split]:,} {split}" for split in ("train", "validation", "test"))
    steps = f"Rehearsal of {setting.max_steps} steps. " if setting.max_steps is not None else ""
    return (
        f"{steps}{table.metric_name}; {examples}; epochs: {setting.epochs}, batches of {setting.batch_size}, texts of "
        f"up to {setting.max_length} sub-words, {setting.num_virtual_tokens} virtual tokens in every layer."
    )


def _table(table: Table) -> list[str]:
    comparisons = compare(table)
    against = {each.other: each for each in comparisons if each.method == APT}
    rows = []
    for method, about in METHODS.items():
        runs = table.final(method)
        if not runs:
            continue
        tried = sorted(rates_of(method, table.grids[method].rates))
        rows.append(
            [
                plain(about.title),
                f"{table.chosen[method]:g}" + ("\\*" if table.chosen[method] in (tried[0], tried[-1]) else ""),
                f"{' '.join(f'{rate:g}' for rate in tried)} ({table.grids[method].seeds})",
                str(len(runs)),
                f"{np.mean([sum(run.prefix_lengths) for run in runs.values()]):.0f}",
                f"{np.mean([run.parameters for run in runs.values()]):,.0f}",
                _interval(scores(runs, "validation")),
                _interval(scores(runs, "test")),
                *_compared(against.get(method), table),
                f"{np.mean([run.seconds for run in runs.values()]) / 60:.1f}",
            ]
        )
    lines = ["", markdown_table(_COLUMNS, rows)]
    star = next((each for each in comparisons if (each.method, each.other) == (STAR, PT2)), None)
    if star is not None:
        difference, p, corrected = _compared(star, table)
        lines += ["", f"PT-2\\* minus PT-2: {difference}, p {p or 'none'}, corrected {corrected or 'none'}."]
    return lines


def _compared(comparison: Comparison | None, table: Table) -> tuple[str, str, str]:
    if comparison is None:
        return "", "", ""
    factor, _ = reading_unit(table.metric_name)
    difference = comparison.difference
    text = f"{factor * difference.mean:+.2f}"
    if difference.half is not None:
        text += f" ± {factor * difference.half:.2f}"
    return text, *("" if p is None else f"{p:.3f}" for p in (comparison.p, comparison.p_holm))


def _profile(table: Table) -> list[str]:
    found = profile(table)
    if found is None:
        return []
    names = ["layer", *map(str, range(1, len(found.weight) + 1))]
    rows = {
        plain("mean of |lambda| alpha"): found.weight,
        "share of all gates": found.share,
        "spread of alpha over validation examples, best checkpoint": found.spread,
    }
    cells = [[name, *(_interval(value, digits=4) for value in row)] for name, row in rows.items()]
    return [
        "",
        f"Gates of APT at the end of training, over seeds ({len(found.centres)}):",
        "",
        markdown_table(names, cells),
    ]


def _gates(table: Table) -> list[str]:
    found = {method: gate_facts(table, method) for method in METHODS}
    rows = [
        [
            plain(METHODS[method].title),
            _interval(facts.saturated),
            _interval(facts.spread, digits=4),
            "" if facts.agreement is None else f"{facts.agreement:+.2f}",
        ]
        for method, facts in found.items()
        if facts is not None
    ]
    if not rows:
        return []
    return [
        "",
        f"How gates ended. Saturated: their mean over the last batch is under {SATURATED} or over {1 - SATURATED}, "
        "where they hardly learn any more. Spread: of the best checkpoint, over validation examples. Agreement: mean "
        "rank correlation of the layers' gate masses over pairs of seeds.",
        "",
        markdown_table(("method", "saturated", "spread", "agreement of seeds"), rows),
    ]


def _published(table: Table) -> list[str]:
    known = published_for(table.setting.task) if table.setting.shots is None else []
    lines = []
    for each in known:
        same = canonical_name(table.setting.model) == each.model
        backbone = "the same backbone" if same else "another backbone, so not comparable number by number"
        title = plain(METHODS[each.method].title)
        lines.append(f"- {title} on {each.model}: {each.value:.3f}, {each.protocol} ({each.source}); {backbone}")
    return ["", "Published:", "", *lines] if lines else []


def _interval(value: Estimate, digits: int = 3) -> str:
    if value.mean is None:
        return "none"
    mean = f"{value.mean:.{digits}f}"
    return mean if value.half is None else f"{mean} ± {value.half:.{digits}f}"
