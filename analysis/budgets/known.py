"""What is known of a run that a budget can rest on: its measures, its costs and its audit."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.audit import Audit
from analysis.budgets.limits import RunCosts, run_costs
from analysis.budgets.pareto import Tolerance
from analysis.budgets.rules import PerLayer
from analysis.budgets.suggest import Ask, Suggestion
from analysis.runs import Run
from apt_core.budget_file import BudgetFile, Constraint, Source
from apt_core.errors import AptFileNotFoundError, AptValueError
from apt_core.inference_format import read_inference
from apt_core.measure_format import Measures, read_measures
from apt_core.run_format import utc_now


def measures_of(run: Run) -> Measures | None:
    """The measures of a run; None if it has not been measured.

    Raises:
        AptValueError: if they are damaged or do not fit the run.
    """
    try:
        return read_measures(run.folder, run.info.prefix_lengths)
    except AptFileNotFoundError:
        return None


def costs_of(run: Run) -> RunCosts | None:
    """What the lengths of a run cost; None for a run whose settings are no longer understood.

    Damaged latencies leave milliseconds unknown, and are said in ``RunCosts.problem``.
    """
    problem = ""
    try:
        inference = read_inference(run.folder, run.info.prefix_lengths)
    except AptFileNotFoundError:
        inference = None
    except (AptValueError, OSError) as found:
        inference, problem = None, f"The measured latencies cannot be used: {found}"
    try:
        costs = run_costs(run.info, inference)
    except AptValueError:
        return None
    if problem:
        reasons = {**costs.token.reasons, "milliseconds": problem.rstrip(".")}
        costs = costs._replace(token=costs.token._replace(reasons=reasons), problem=problem)
    return costs


def evidence_of(audit: Audit | None) -> dict[str, Any] | None:
    """An audit as a budget file keeps it."""
    if audit is None:
        return None
    kept = ("verdict", "use", "headline", "reasons", "numbers", "outdated")
    return {name: getattr(audit, name) for name in kept}


def budget_file(
    run: Run, ask: Ask, suggestion: Suggestion, lengths: list[int], measures: Measures | None, audit: Audit | None
) -> BudgetFile:
    """A suggestion, as it is or edited by hand, with all that it rests on.

    Args:
        run: that it was made for.
        ask, suggestion: what was asked for, and what came out.
        lengths: what a person made of it [L].
        measures, audit: of the run; None where there are none.
    """
    relative = isinstance(ask.amount, Tolerance) and ask.amount.relative
    amount = ask.amount.amount if isinstance(ask.amount, Tolerance) else ask.amount
    rules = ask.rules
    return BudgetFile(
        created_at=utc_now(),
        prefix_lengths=lengths,
        total=sum(lengths),
        method=suggestion.budget.method,
        edited=tuple(lengths) != suggestion.budget.prefix_lengths,
        importance=suggestion.weighed.name,
        importance_source=suggestion.weighed.source,
        constraint=Constraint(limit=ask.limit, amount=amount, relative=relative),
        min_per_layer=plain_numbers(rules.min_per_layer),
        max_per_layer=None if rules.max_per_layer is None else plain_numbers(rules.max_per_layer),
        multiple_of=rules.multiple_of,
        locks={str(layer + 1): length for layer, length in sorted(rules.locks.items())},
        source=Source(
            name=run.name,
            model=run.info.model,
            data_hash=run.info.data_hash,
            prefix_lengths=run.info.prefix_lengths,
            adapter_sha256=measures.adapter_sha256 if measures else "",
        ),
        notes=suggestion.notes,
        evidence=evidence_of(audit),
    )


def plain_numbers(given: PerLayer) -> int | list[int]:
    """One number or a list of them, ready for JSON."""
    return given if isinstance(given, int) else [int(number) for number in np.asarray(given)]
