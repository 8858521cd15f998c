"""The controls of the Budget page: method, weights, limit and rules."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from analysis.budgets import METHODS, Rules, uniform
from analysis.budgets.limits import COSTED, LIMITS, RunCosts
from analysis.budgets.pareto import Tolerance
from analysis.budgets.suggest import DEFAULT_IMPORTANCE, DEFAULT_METHOD, Ask
from analysis.budgets.weighing import has_effects
from analysis.pages import context
from analysis.runs import Run
from apt_core.config import MAX_TOKENS_PER_LAYER
from apt_core.measure_format import IMPORTANCES, Measures

SHOWN_RUN = "budget_run"
COVERAGE, TOLERANCE = 90.0, 5.0
"""per cent, at the start"""
UNITS = ("% of the full loss", "nats")


def ask(run: Run, measures: Measures | None, costs: RunCosts | None, locks: Mapping[int, int], use: str) -> Ask:
    """What a person asks for; only what the run has the numbers for is offered.

    Args:
        run: that is pruned.
        measures: of it; None: it was not measured.
        costs: of its virtual tokens; None: not known.
        locks: layer, counted from 0 -> its length.
        use: the importance that the audit recommends.
    """
    anew = st.session_state.get(SHOWN_RUN, run.key) != run.key  # amounts were meant for another run
    st.session_state[SHOWN_RUN] = run.key
    method = _method(measures)
    cells = st.columns([2, 2, 1, 1, 1], vertical_alignment="top")
    with cells[0]:
        limit = _limit(method, costs)
    with cells[1]:
        amount = _amount(run, limit, costs, anew)
    at_least = cells[2].number_input(
        "Minimum",
        min_value=0,
        value=0,
        key="min",
        bind=context.bind("min"),
        help="Virtual tokens every layer gets at least.",
    )
    at_most = cells[3].number_input(
        "Maximum",
        min_value=0,
        max_value=MAX_TOKENS_PER_LAYER,
        value=None,
        placeholder="no limit",
        key="max",
        bind=context.bind("max"),
        help="Virtual tokens a layer gets at most. Methods that choose single tokens never give it more than it has.",
    )
    multiple = cells[4].number_input(
        "Multiple of",
        min_value=1,
        max_value=MAX_TOKENS_PER_LAYER,
        value=1,
        key="multiple",
        bind=context.bind("multiple"),
        help="Every length is a multiple of it, but for locked layers: some kernels are faster with multiples of 8. "
        "Whether this model gains from it is not known here; measure it.",
    )
    importance = _importance(measures, use) if METHODS[method].weighs == "importance" else None
    if measures is None:
        st.caption(
            "Greedy and pareto, and weights other than the gates, need measures: `python -m apt_core measure RUN`."
        )
    return Ask(limit, amount, method, importance, Rules(at_least, at_most, multiple, locks))


def _method(measures: Measures | None) -> str:
    measured = measures is not None
    known = {"importance": True, "effect": measured and has_effects(measures), "curve": measured}
    offered = [name for name, entry in METHODS.items() if known[entry.weighs]]
    return context.choose(
        "Method",
        offered,
        "method",
        DEFAULT_METHOD,
        help="; ".join(f"{name}: {METHODS[name].description}" for name in offered)
        + ". None of them knows how a model retrained with these lengths will do.",
    )


def _importance(measures: Measures | None, use: str) -> str:
    """At first what the audit recommends, where that is an importance."""
    offered = [DEFAULT_IMPORTANCE, *(name for name in IMPORTANCES if measures and name in measures.importance)]
    return context.choose(
        "Weight of a virtual token",
        list(dict.fromkeys(offered)),
        "importance",
        use if use in offered else DEFAULT_IMPORTANCE,
        help="; ".join(f"{name}: {IMPORTANCES[name]}" for name in offered)
        + ". Each is a guess at what a token is worth; the Evidence page holds them against measured effects.",
    )


def _limit(method: str, costs: RunCosts | None) -> str:
    own = METHODS[method].own_limit
    offered = [*([own] if own else []), "total"]
    if costs is not None:
        offered += [name for name in COSTED if costs.knows(name)]
    return st.selectbox(
        "Limit",
        offered,
        key=f"limit_{own}" if own else "limit",
        bind="query-params",
        help="; ".join(f"{name}: {LIMITS[name].description}" for name in offered)
        + ". Of a cost, the largest total within it is taken.",
    )


def _amount(run: Run, limit: str, costs: RunCosts | None, anew: bool) -> float | Tolerance:
    def number(label: str, start: float, help_text: str, least: int = 0, most: float | None = None) -> float:
        if anew:
            st.session_state[limit] = start
        return st.number_input(
            label,
            min_value=type(start)(least),
            max_value=most,
            value="min" if limit in st.session_state else start,  # what the session has is not given twice
            key=limit,
            bind=context.bind(limit),
            help=help_text,
        )

    tokens = run.info.total_tokens
    if limit == "total":
        return number("Total virtual tokens", max(1, tokens // 2), f"Over all layers; this run has {tokens}.", 1)
    if limit == "coverage":
        return number("Coverage (%)", COVERAGE, "Of each layer's weight, 0 to 100.", most=100.0)
    if limit == "tolerance":
        amount = number("Tolerance", TOLERANCE, "How far the predicted loss may be over the full one.")
        unit = context.choose("Unit", UNITS, "tolerance_unit", UNITS[0])
        return Tolerance(amount, unit == UNITS[0])
    half = costs.cost(limit, uniform(tokens // 2, run.info.num_layers).prefix_lengths)
    now = costs.cost(limit, run.info.prefix_lengths)
    start = int(half) if LIMITS[limit].whole else half
    return number(f"At most ({LIMITS[limit].label})", start, f"This run: {now:,.10g}.")
