"""The report of a pilot: one HTML file that a person reads without this program, a network or a login. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from analysis import report_page as html
from analysis.audit import Audit, audit_run
from analysis.figures.arms import arms_by_metric, arms_figure
from analysis.figures.deletion_curves import deletion_curves, deletion_curves_figure
from analysis.figures.html import figure_html, plotly_script
from analysis.figures.layer_profile import ProfileData, layer_profile_figure
from analysis.figures.prefix_lengths import PrefixLengths, prefix_lengths_figure
from analysis.gate_sample import sample_gates
from analysis.gate_stats import QUANTITIES, batch_spread, layer_profile
from analysis.pilot import Look, Pilot, look
from analysis.pilot_caveats import caveats
from analysis.pilot_decision import KEEP, PRUNE, PilotDecision, decision_of, rules, signed
from analysis.run_table import lengths_text
from analysis.runs import Run, shown
from analysis.shareable import public_command, public_place, without_places
from analysis.verdict import ORDERS, UNIFORM
from apt_core.errors import AptError, AptFileNotFoundError, AptValueError
from apt_core.estimates import CONFIDENCE, Estimate
from apt_core.jobs import Jobs
from apt_core.measure_format import REVERSED, Measures, read_measures
from apt_core.metric_names import lower_is_better
from apt_core.settled import SETTLED_FRACTION, final_weights
from apt_core.tasks import TASKS

ARMS = {
    "full": "all virtual tokens",
    "pruned": "the lengths of the budget",
    "uniform": "as many as the budget, spread evenly",
}
"""arm -> what it is"""


class ReportContent(NamedTuple):
    """What a report is made from."""

    name: str
    pilot: Pilot
    root: Path  # the folder of runs, whose place is not told
    found: Look
    decision: PilotDecision
    audit: Audit | None  # None: not measured, or not readable
    audit_problem: str  # why not readable
    measures: Measures | None
    written_at: str  # UTC


def gather(name: str, pilot: Pilot, root: Path, jobs: Jobs) -> ReportContent:
    """Reads what a report needs.

    Raises:
        AptValueError: if there is nothing to decide on yet.
    """
    found = look(name, pilot, root, jobs)
    decision = decision_of(pilot, found)
    first = found.first.run
    if decision is None or first is None or found.first.state != "finished":
        raise AptValueError(
            f"pilot: {name!r} has no training of each kind with the same seed yet; finish it on the Pilot page first."
        )
    audit, measures, problem = None, None, ""
    try:
        measures = read_measures(first.folder, first.info.prefix_lengths)
        audit = audit_run(first)
    except AptFileNotFoundError:
        pass  # not measured
    except (AptError, OSError) as raised:
        problem = shown(without_places(str(raised), root))
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return ReportContent(name, pilot, root, found, decision, audit, problem, measures, now)


def report_html(content: ReportContent) -> str:
    """The report. Every text from a person or a file is escaped; it names no folder of this machine."""
    pilot, decision = content.pilot, content.decision
    title = pilot.question or f"How many virtual tokens does {pilot.task} need?"
    body = [
        html.header(title, f"Pilot {content.name}, report of {content.written_at}"),
        _answer(decision),
        html.section("Figures", *_figures(content)),
        html.section("Numbers", _arms_table(decision), _compared_table(decision), _runs_table(content)),
        html.section("May the gates be believed?", *_audit(content)),
        html.section("Caveats", html.items(_caveats(content))),
        html.section("Setting", html.facts(_setting(content))),
        html.section("How to repeat it", *_repeat(content)),
    ]
    return html.page(title, plotly_script(), "\n".join(body))


def _caveats(content: ReportContent) -> list[str]:
    return caveats(content.pilot, content.found, content.decision, content.audit, content.audit_problem)


def _answer(decision: PilotDecision) -> str:
    kind = {PRUNE: "prune", KEEP: "keep"}.get(decision.outcome, "undecided")
    texts = [decision.headline, *decision.sentences]
    rule = "The rules: " + " ".join(rules(decision.tolerance, decision.unit))
    return f'<div class="answer {kind}">{"".join(map(html.paragraph, texts))}</div>{html.paragraph(rule, "soft")}'


def _figures(content: ReportContent) -> list[str]:
    decision = content.decision
    arms = arms_figure(arms_by_metric(decision.arms, decision.metric_name, decision.split))
    parts = [
        '<noscript><p class="soft">The figures need JavaScript; their numbers are in the tables below.</p></noscript>',
        html.figure(
            figure_html(arms, "metric-by-arm"),
            f"Every seed, and the mean with its {CONFIDENCE:.0%} interval. Intervals of two arms may overlap although "
            "their difference, paired by seed, is clear: the table of differences decides.",
        ),
    ]
    budget = content.pilot.budget
    first = content.found.first.run
    names = {"full length": first.info.prefix_lengths, "budget": list(budget.prefix_lengths)}
    parts.append(
        html.figure(
            figure_html(prefix_lengths_figure(PrefixLengths(list(names), list(names.values()))), "prefix-lengths"),
            f"The budget: {budget.total} of {first.info.total_tokens} virtual tokens, {_shared_by(budget.weighed_by)}.",
        )
    )
    profile = _profile(first)
    if profile is not None:
        parts.append(
            html.figure(
                figure_html(layer_profile_figure(profile), "gate-profile"),
                f"The full-length run of the first seed, over the last {SETTLED_FRACTION:.0%} of its steps: how much "
                "of each layer's prefix its gates let through. That is not what the layer is worth.",
            )
        )
    if content.measures is not None:
        curves = deletion_curves(content.measures, ("gate", "gate" + REVERSED), "loss")
        parts.append(
            html.figure(
                figure_html(deletion_curves_figure(curves), "deletion-curve"),
                "The same run with virtual tokens taken away, without retraining. Gates that can be believed keep the "
                "loss low for longer than random orders do.",
            )
        )
    return parts


def _profile(run: Run) -> ProfileData | None:
    """None where no gates can be read: a run without gates, or a damaged one."""
    try:
        if not len(run.gates):
            return None
        weights = final_weights(run.gates)
        sample = sample_gates(run.gates, run.info.prefix_lengths)
    except (AptError, OSError):
        return None
    last = sample.layer_scale[-len(sample.last_std) :]
    spread = batch_spread("weight", sample.last_std, last)
    with np.errstate(over="ignore", invalid="ignore"):  # a training that diverged
        mean_spread = spread.mean(axis=0)
    return ProfileData(layer_profile(weights, mean_spread), QUANTITIES["weight"], "Gate profile of the full-length run")


def _arms_table(decision: PilotDecision) -> str:
    full = decision.arms[0].trained_parameters
    rows = [
        (
            arm.arm,
            f"{arm.tokens:,}",
            f"{arm.trained_parameters:,}",
            f"{arm.trained_parameters / full:.0%}" if full else "",
            _estimate(arm.metric, ".3f"),
            f"{arm.metric.count}",
            _estimate(arm.seconds, ",.0f"),
        )
        for arm in decision.arms
    ]
    better = "lower" if lower_is_better(decision.metric_name) else "higher"
    said = "; ".join(f"{arm.arm}: {ARMS[arm.arm]}" for arm in decision.arms)
    return html.table(
        f"Means over seeds with {CONFIDENCE:.0%} intervals; {better} is better. {said}.",
        ["arm", "virtual tokens", "trained parameters", "of full", _metric(decision), "seeds", "training (s)"],
        rows,
    )


def _compared_table(decision: PilotDecision) -> str:
    rows = [
        (f"{each.arm} against {each.against}", signed(each.better, decision.unit), str(each.better.count))
        for each in decision.compared
    ]
    return html.table(
        f"Differences, paired by seed, in {decision.unit}; positive: the first is better. In brackets the "
        f"{CONFIDENCE:.0%} interval.",
        ["difference", f"{_metric(decision)} ({decision.unit})", "pairs"],
        rows,
    )


def _runs_table(content: ReportContent) -> str:
    splits = ["validation", *(["test"] if content.decision.split == "test" else [])]
    rows = []
    for each in content.found.trainings:
        run = each.run if each.state == "finished" else None
        values = [run.metric(split) if run else None for split in splits]
        shown = ["" if value is None else f"{value:.4f}" for value in values]
        tokens = f"{run.info.total_tokens:,}" if run else ""
        rows.append((each.training.name, str(each.training.seed), each.state, tokens, *shown))
    metrics = [f"{split} {content.decision.metric_name}" for split in splits]
    return html.table("Every training.", ["run", "seed", "state", "virtual tokens", *metrics], rows)


def _audit(content: ReportContent) -> list[str]:
    audit, root = content.audit, content.root
    if audit is None and content.audit_problem:
        return [html.paragraph(f"What was measured of the first run cannot be read: {content.audit_problem}")]
    if audit is None:
        return [html.paragraph("The first run was not measured, so nothing is known for or against its gates.")]
    sentences = [f"{check.name} ({check.level}): {check.text}" for check in audit.checks]
    return [html.paragraph(audit.headline), html.items([without_places(text, root) for text in sentences])]


def _setting(content: ReportContent) -> list[tuple[str, str]]:
    pilot, root, info = content.pilot, content.root, content.found.first.run.info
    runs = [each.run for each in content.found.trainings if each.state == "finished"]
    given = {name: _told(value, root) for name, value in pilot.source.given().items()}
    sizes = html.joined([f"{count:,} {split}" for split, count in info.split_sizes.items()])
    versions = html.joined([f"{name} {version}" for name, version in info.versions.items()])
    training = {name: value for name, value in info.training.items() if value is not None and name != "seed"}
    rows = [
        ("question", pilot.question or "not put into words"),
        ("task", f"{info.task}: {TASKS[pilot.task].description}"),
        ("data", html.joined([f"{name} {value}" for name, value in given.items()]) or "built in"),
        ("examples", sizes or "not said"),
        ("classes or tags", html.joined(info.labels) or "none"),
        ("data hash (SHA-256)", html.joined(list(dict.fromkeys(run.info.data_hash for run in runs))) or "not said"),
        ("backbone", public_place(info.model, root)),
        ("layers", str(info.num_layers)),
        ("full length", lengths_text(info.prefix_lengths)),
        ("budget", f"{lengths_text(pilot.budget.prefix_lengths)}, {_shared_by(pilot.budget.weighed_by)}"),
        ("accepted cost", f"{pilot.tolerance:g} {content.decision.unit}"),
        ("seeds", html.joined(pilot.seeds)),
        ("training", html.joined([f"{name} {_told(value, root)}" for name, value in training.items()])),
        ("method", f"{content.found.first.run.method} (adaptive prefix tuning, arXiv 2305.15212)"),
        ("device", info.device or "not said"),
        ("versions", versions or "not said"),
        ("trained", _period(runs)),
    ]
    return [(name, without_places(value, root) if name != "question" else value) for name, value in rows]


def _repeat(content: ReportContent) -> list[str]:
    runs = [each.run for each in content.found.trainings if each.state == "finished"]
    commands = [public_command(run.info.command, content.root) for run in runs if run.info.command]
    first = shlex.quote(f"runs/{content.found.first.training.name}")
    after = [f"python -m apt_core measure {first}", f"python -m analysis audit {first}"]
    if content.decision.split == "test":
        after += [f"python -m apt_core evaluate {shlex.quote(f'runs/{run.name}')} --split test" for run in runs]
    return [
        html.paragraph(
            "With the versions above, one command after the other, in the folder of the project. The first must finish "
            "before the others start. Places outside of it are shortened; put in your own."
        ),
        html.code([*commands, *after]),
        html.paragraph("Equal numbers need the same machine type: sums are rounded differently elsewhere.", "soft"),
    ]


def _shared_by(weighed_by: str) -> str:
    return "spread evenly" if weighed_by == UNIFORM else f"shared out by {ORDERS[weighed_by]}"


def _told(value: object, root: Path) -> str:
    return public_place(value, root) if isinstance(value, str) else str(value)


def _metric(decision: PilotDecision) -> str:
    return f"{decision.split} {decision.metric_name}"


def _estimate(found: Estimate, shown: str) -> str:
    if found.mean is None:
        return "not measured"
    return format(found.mean, shown) + (f" ± {format(found.half, shown)}" if found.half is not None else "")


def _period(runs: Sequence[Run]) -> str:
    days = sorted({run.started.date().isoformat() for run in runs if run.started})
    if not days:
        return "not said"
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
