"""From what a person asks for to a suggestion: weights, limit, rules and method put together."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from analysis.budgets.allocate import Budget, allocate, allocate_covering, allocate_within, room_for
from analysis.budgets.coverage import covered
from analysis.budgets.limits import COSTED, LIMITS, RunCosts
from analysis.budgets.methods import METHODS
from analysis.budgets.pareto import Prediction, Tolerance, best_prediction, smallest_total
from analysis.budgets.rules import Rules
from analysis.budgets.weighing import EFFECT, Weighed, per_cost, weigh, weigh_effect
from apt_core.errors import AptValueError, bad_value
from apt_core.measure_format import IMPORTANCES, Measures

DEFAULT_METHOD, DEFAULT_IMPORTANCE = "share", "gate"


class Ask(NamedTuple):
    """What a person asks for."""

    limit: str
    """a key of ``LIMITS``"""
    amount: float | Tolerance
    """in the unit of the limit; coverage from 0 to 100"""
    method: str | None = None
    """None: that of the limit, or ``DEFAULT_METHOD``"""
    importance: str | None = None
    """None: what the method rests on, or ``DEFAULT_IMPORTANCE``"""
    rules: Rules = Rules()


class Evidence(NamedTuple):
    """What is known of a run."""

    log_weights: np.ndarray  # [L, P] from the gate log
    measures: Measures | None
    costs: RunCosts | None
    folder: Path | None = None
    """of the run, for messages"""


class Suggestion(NamedTuple):
    """Lengths, and what they rest on."""

    budget: Budget
    weighed: Weighed
    notes: list[str]
    """sentences that a person should read with it"""


def suggest(ask: Ask, evidence: Evidence) -> Suggestion:
    """Lengths for what was asked.

    Raises:
        AptValueError: naming what cannot be, or what was not measured and the command that measures it.
    """
    method = method_of(ask)
    prediction = None
    if METHODS[method].weighs == "curve":
        prediction = best_prediction(evidence.measures, evidence.folder)
    weighed = _weighed(ask, method, evidence, prediction)
    weights = weighed.weights
    if ask.limit in COSTED:
        costs = evidence.costs
        if costs is None:
            raise AptValueError(f"{ask.limit}: what a virtual token costs is not known for this run; give a total.")
        each = costs.per_token(ask.limit)
        if weighed.name == EFFECT:
            weights = per_cost(weights, each)
        budget = allocate_within(
            weights,
            ask.amount,
            lambda lengths: costs.cost(ask.limit, lengths),
            method,
            ask.rules,
            costs.unevenness(ask.limit),
            ask.limit,
        )
        notes = [f"The largest total within the limit; it costs {costs.cost(ask.limit, budget.prefix_lengths):,.10g}."]
    elif ask.limit == "coverage":
        budget, notes = allocate_covering(weights, ask.amount, ask.rules), []
    elif ask.limit == "tolerance":
        place = room_for(weights, method, ask.rules)
        total = place.at_least(smallest_total(prediction, ask.amount))
        budget, notes = allocate(weights, total, method, rules=ask.rules), []
    else:
        budget, notes = allocate(weights, ask.amount, method, rules=ask.rules), []
    if evidence.costs is not None and evidence.costs.problem:
        notes.append(evidence.costs.problem)
    return Suggestion(budget, weighed, notes + _ties(ask, budget, weighed) + _notes(ask, budget, weighed, prediction))


def method_of(ask: Ask) -> str:
    """The method for what was asked.

    Raises:
        AptValueError: if there is no such method, or it does not go with the limit.
    """
    finders = {method.own_limit: name for name, method in METHODS.items() if method.own_limit}
    if ask.limit not in LIMITS:
        raise bad_value("limit", ask.limit, ", ".join(LIMITS))
    method = ask.method or finders.get(ask.limit, DEFAULT_METHOD)
    if method not in METHODS:
        raise bad_value("method", method, ", ".join(METHODS))
    if ask.limit in finders and finders[ask.limit] != method:
        raise bad_value("method", method, f"{finders[ask.limit]}, the method that {ask.limit} goes with")
    return method


def _weighed(ask: Ask, method: str, evidence: Evidence, prediction: Prediction | None) -> Weighed:
    if METHODS[method].weighs == "importance":
        return weigh(ask.importance or DEFAULT_IMPORTANCE, evidence.log_weights, evidence.measures, evidence.folder)
    if ask.importance is not None:
        basis = "measured effects" if METHODS[method].weighs == "effect" else "the best deletion curve"
        raise bad_value("importance", ask.importance, f"none: {method} rests on {basis}")
    if prediction is not None:
        return weigh(prediction.order, evidence.log_weights, evidence.measures, evidence.folder)
    return weigh_effect(evidence.measures, evidence.folder)


def _ties(ask: Ask, budget: Budget, weighed: Weighed) -> list[str]:
    """What to say where the weights of the layers that are not locked decide nothing."""
    free = np.delete(weighed.weights, list(ask.rules.locks), axis=0)
    known = np.where(np.isinf(free), 0.0, free)[~np.isnan(free)]
    if budget.method in ("topk", "threshold", "pareto") and known.size > 1 and (known == known[0]).all():
        return ["All virtual tokens weigh the same: this order is only their place."]
    if budget.method == "share" and len(free) and not (known > 0).any():
        mass = "gate mass" if weighed.name == "gate" else "weight"
        return [f"No layer has {mass}: the tokens are shared out evenly."]
    return []


def _notes(ask: Ask, budget: Budget, weighed: Weighed, prediction: Prediction | None) -> list[str]:
    lengths = np.array(budget.prefix_lengths)
    notes = []
    if budget.method == "coverage":
        kept = covered(weighed.weights, lengths)
        kept[list(ask.rules.locks)] = np.nan
        wanted = ask.amount / 100 if ask.limit == "coverage" else 0.0
        if np.isfinite(kept).any():
            layer = int(np.nanargmin(kept))
            but = " that is not locked" if ask.rules.locks else ""
            less = ", less than asked for because of the rules" if kept[layer] < wanted - 1e-9 else ""
            notes.append(f"Each layer{but} keeps at least {kept[layer]:.1%} of its weight (least: {layer + 1}){less}.")
    if weighed.name == EFFECT:
        taken = np.arange(weighed.weights.shape[1]) < lengths[:, None]
        idle = int((-np.sort(-weighed.weights, axis=1)[taken] <= 0).sum())
        if idle:
            notes.append(f"{idle} of the {budget.total} virtual tokens were not measured to lower the loss at all.")
    if prediction is not None:
        predicted = prediction.at(budget.total)
        notes.append(
            f"Predicted loss {predicted:.4g} nats against {prediction.full_loss:.4g} with all {prediction.kept[-1]} "
            f"virtual tokens, {prediction.basis(budget.total)}, removed in the order of "
            f"{IMPORTANCES[prediction.order].partition(':')[0]} and without retraining."
        )
        if ask.rules != Rules():
            notes.append("The prediction is for that order alone; bounds, multiples and locks give other lengths.")
    return notes
