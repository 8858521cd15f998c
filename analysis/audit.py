"""The audit: whether the gates of a measured run may be followed, from its measures, its gate log and other seeds."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from analysis.agreement import (
    layer_correlation,
    layer_effects,
    rank_correlation,
    token_correlation,
    token_effects,
)
from analysis.curves import score_curves
from analysis.gate_sample import sample_gates
from analysis.run_checks import check_lengths
from analysis.runs import Run, find_runs
from analysis.side_by_side import folded
from analysis.stability import SeedAgreement, Stability, seed_agreement, stability
from analysis.verdict import THRESHOLDS, Check, Evidence, Verdict, decide
from apt_core.errors import AptError, AptFileNotFoundError
from apt_core.files import open_regular
from apt_core.gate_log import GateLog
from apt_core.measure_format import Measures, read_measures
from apt_core.run_format import ADAPTER_FILE, ADAPTER_FOLDER, RunInfo, read_run_info
from apt_core.settled import final_weights

MAX_SIBLINGS = 9
"""other seeds whose gates are read"""
MORE_COST = 10
"""training epochs that a closer look may cost"""
TOO_MANY = "there are too many of them"
"""in a note of what no allowance measures"""


class Audit(NamedTuple):
    """Whether to follow the gates, and why."""

    verdict: Verdict
    use: str  # key of ``IMPORTANCES``, or "uniform": what to share tokens out by
    headline: str  # the verdict in a sentence
    reasons: list[str]  # a sentence with numbers for each check
    checks: list[Check]  # the same, with name and level
    numbers: dict[str, Any]  # all statistics and thresholds, ready for JSON; None: not known
    not_measured: list[str]  # what is missing, and how to have it
    outdated: bool  # the adapter has changed since it was measured


def audit(
    measures: Measures,
    log: GateLog | None,
    siblings: Sequence[np.ndarray] = (),
    *,
    outdated: str = "",
    other_data: str = "",
) -> Audit:
    """Audits one run.

    Args:
        measures: of the run, checked.
        log: its gates; None where there are none to read.
        siblings: weights [L, P] of runs that differ only by seed, as ``final_weights`` gives them.
        outdated: why the measures are not those of the run as it is now, a sentence.
        other_data: why the examples are not those of the run, a sentence.

    Raises:
        AptError: if the log cannot be read.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # a training that diverged
        curves = score_curves(measures)
        layers, tokens = layer_effects(measures), token_effects(measures)
        layer_agreement = {name: layer_correlation(each, layers) for name, each in measures.importance.items()}
        token_agreement = {name: token_correlation(each, tokens) for name, each in measures.importance.items()}
    gates = np.array([value for layer in measures.importance.get("gate", []) for value in layer], dtype=np.float64)
    found, seeds, recorded = _from_log(measures, log, siblings, gates)
    known = [loss for loss in measures.empty.losses if loss is not None and np.isfinite(loss)]
    evidence = Evidence(
        curves,
        float(np.mean(known)) if known else None,
        _metric_in_words(measures),
        bool(np.isfinite(gates).all() and gates.size and np.ptp(gates) > 0),
        layer_agreement,
        token_agreement,
        found,
        seeds,
        recorded,
        outdated,
        other_data,
    )
    decision = decide(evidence)
    numbers = {
        "cost_epochs": measures.cost,
        "examples": {
            "used": curves.examples,
            "left_out": curves.left_out,
            "available": measures.examples_available,
            "split": measures.split,
        },
        "prefix": {
            "loss_without_minus_with_nats": curves.gain,
            "metric_name": measures.metric_name,
            "metric_with": measures.full.metric,
            "metric_without": measures.empty.metric,
        },
        "random_orders": curves.random_orders,
        "orders": curves.orders,
        "layers": layer_agreement,
        "tokens": token_agreement,
        "stability": found,
        "seeds": seeds,
        "recorded_gates": recorded,
        "thresholds": {name: value for name, (value, _) in THRESHOLDS.items()},
    }
    return Audit(
        decision.verdict,
        decision.use,
        decision.headline,
        [check.text for check in decision.checks],
        decision.checks,
        _plain(numbers),
        _not_measured(measures, seeds),
        bool(outdated),
    )


def audit_run(run: Run) -> Audit | None:
    """Audits a run with what is in its folder, and with the runs beside it that differ only by seed.

    Returns:
        None if it has not been measured: ``python -m apt_core measure RUN`` does it.

    Raises:
        AptError: if its measures or gates are damaged.
    """
    try:
        measures = read_measures(run.folder, run.info.prefix_lengths)
    except AptFileNotFoundError:
        return None
    check_lengths(run.info, run.gates.prefix_lengths)
    return audit(
        measures,
        run.gates,
        _weights_of(siblings_of(run)),
        outdated=_outdated(run, measures),
        other_data=_other_data(run, measures),
    )


def siblings_of(run: Run) -> list[Run]:
    """The finished runs in the same folder of runs that differ from it only by their seed."""
    beside = [other for other in find_runs([run.folder.parent]).runs if other.folder != run.folder]
    group = next(group for group in folded([run, *beside]) if group.runs[0] is run)
    return [other for other in group.runs[1:] if other.status == "finished"]


def trained_by_command(info: RunInfo) -> bool:
    """Whether commands can measure and retrain a run: it says its task and training, unlike one of the Python API."""
    return bool(info.task and info.training)


def not_retrainable(info: RunInfo, lengths: Sequence[int]) -> str:
    """Why a run cannot be retrained with these lengths, a sentence; empty where it can."""
    if info.apt_config.get("shift_positions") and len(set(lengths)) > 1:
        return (
            "This run counts virtual tokens as positions (--shift-positions), which takes equal lengths: it cannot be "
            "retrained with these."
        )
    return ""


def command_for_more(folder: Path, found: Audit) -> str:
    """The command that measures a run on more examples, in more orders and token by token; beyond that, everything.

    A sentence in its place where no command does it: the run was made through the Python API, or all was measured.
    """
    try:
        if not trained_by_command(read_run_info(folder)):
            return "This run was made through the Python API: measure it there, with apt_core.measure.measure."
    except AptError:
        pass  # the command says what is wrong with the folder
    examples = found.numbers["examples"]
    seen = examples["used"] + examples["left_out"]
    limited = [each for each in found.not_measured if TOO_MANY in each]
    all_examples = seen >= examples["available"] or any(each.startswith(f"{seen} of ") for each in limited)
    all_tokens = any(found.numbers["tokens"].values()) or bool(limited)
    if all_examples and all_tokens and not any("--cost" in each for each in set(found.not_measured) - set(limited)):
        what = f"all {seen:,}" if seen >= examples["available"] else f"the {seen:,} that fit into the file"
        return f"Everything was measured on {what} examples: more evidence needs more examples."
    cost = MORE_COST if found.numbers["cost_epochs"] < MORE_COST / 2 else 0
    return f"python -m apt_core measure {shlex.quote(str(folder))} --cost {cost}"


def _from_log(
    measures: Measures, log: GateLog | None, siblings: Sequence[np.ndarray], gates: np.ndarray
) -> tuple[Stability | None, SeedAgreement | None, float | None]:
    if log is None or not len(log):
        return None, None, None
    weights = final_weights(log)
    present = np.arange(weights.shape[1]) < np.array(measures.prefix_lengths)[:, None]
    return (
        stability(sample_gates(log, measures.prefix_lengths)),
        seed_agreement(weights, siblings) if siblings else None,
        rank_correlation(gates, weights[present]) if gates.size else None,
    )


def _weights_of(runs: Sequence[Run]) -> list[np.ndarray]:
    found = []
    for run in runs[:MAX_SIBLINGS]:
        try:
            if len(run.gates):
                found.append(final_weights(run.gates))
        except (AptError, OSError):
            continue  # a damaged run says nothing about the order of layers
    return found


def measured_on_another(folder: Path, adapter_sha256: str) -> bool:
    """Whether the adapter of a run is not, or is no longer, the one with this hash."""
    try:
        return _sha256(folder / ADAPTER_FOLDER / ADAPTER_FILE) != adapter_sha256
    except (AptError, OSError):
        return True


def _outdated(run: Run, measures: Measures) -> str:
    if not (run.folder / ADAPTER_FOLDER / ADAPTER_FILE).exists():
        return f"The adapter that was measured is not in the run ({ADAPTER_FOLDER}/): the numbers cannot be relied on."
    if not measured_on_another(run.folder, measures.adapter_sha256):
        return ""
    again = f"python -m apt_core measure {shlex.quote(str(run.folder))}"
    if not trained_by_command(run.info):
        again = "with apt_core.measure.measure, as the run was made through the Python API, and write_measures"
    return f"The adapter has changed since it was measured: the numbers are about another one. Measure again: {again}"


def _other_data(run: Run, measures: Measures) -> str:
    if measures.split != "validation":
        return (
            f"The examples measured on are of the {measures.split} split: what is chosen by them cannot be confirmed "
            "on them. Measure on validation."
        )
    if measures.data_hash == run.info.data_hash:
        return ""
    return "The examples measured on are of other data than the run was trained on (their hashes differ)."


def _sha256(path: Path) -> str:
    found = os.lstat(path)
    return _sha256_of(path, found.st_mtime_ns, found.st_size, found.st_ino)


@lru_cache(maxsize=256)
def _sha256_of(path: Path, *stamp: int) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _metric_in_words(measures: Measures) -> str:
    having, without = (
        "not defined" if point.metric is None else f"{point.metric:.3g}" for point in (measures.full, measures.empty)
    )
    return f"{measures.metric_name or 'metric'} {having} with it, {without} without"


def _not_measured(measures: Measures, seeds: SeedAgreement | None) -> list[str]:
    alone = "Other seeds were not trained: the same run with another --seed shows whether the order of layers stays."
    if seeds is not None and seeds.mean is None:
        alone = "Other seeds give no order of layers to compare with: they diverged, or all layers weigh the same."
    return [*measures.notes, *([alone] if seeds is None or seeds.mean is None else [])]


def _plain(value: Any) -> Any:
    """Named tuples as dicts, what is not finite as None."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
