"""Budget: from gates to a number of virtual tokens per layer, and to a retraining with it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import streamlit as st

from analysis.budgets import METHODS, Budget, allocate, uniform
from analysis.gate_stats import SETTLED_FRACTION, layer_mass
from analysis.pages import context, retrain
from analysis.pages.gate_data import Gates, open_gates, weights_of
from analysis.runs import Run
from apt_core.config import MAX_TOKENS_PER_LAYER
from apt_core.errors import AptError

NEW_LENGTH = "new length"


def show() -> None:
    st.title("Budget")
    run = context.choose_run("Run")
    if run is not None:
        gates = open_gates(run)
        if gates is not None:
            _show_budget(run, gates)
    retrain.show_jobs()


def _show_budget(run: Run, gates: Gates) -> None:
    try:
        weights = weights_of(gates)
    except AptError as problem:
        st.error(f"The gates of {context.plain(run.key)} cannot be read: {context.plain(problem)}")
    else:
        _budget(run, weights)


def _budget(run: Run, weights: np.ndarray) -> None:
    if not run.info.total_tokens:
        st.info("This run has no virtual tokens, so there is nothing to share out.")
        return
    method = st.segmented_control(
        "Method",
        list(METHODS),
        default="share",
        required=True,
        key="method",
        bind="query-params",
        help="; ".join(f"{name}: {entry.description}" for name, entry in METHODS.items()) + ".",
    )
    cells = st.columns(3)
    total = cells[0].number_input(
        "Total virtual tokens",
        min_value=1,
        value=max(1, run.info.total_tokens // 2),
        help=f"Over all layers; this run has {run.info.total_tokens}.",
    )
    at_least = cells[1].number_input("At least per layer", min_value=0, value=0)
    at_most = cells[2].number_input(
        "At most per layer",
        min_value=0,
        max_value=MAX_TOKENS_PER_LAYER,
        value=None,
        placeholder="no limit",
        help="Methods that choose single tokens never give a layer more than it has.",
    )
    try:
        suggested = allocate(weights, total, method, at_least, at_most)
    except AptError as problem:
        st.error(context.plain(problem))
        return
    lengths = _edit(run, weights, suggested)
    if sum(lengths) != total:
        st.warning(f"The lengths sum to {sum(lengths)}, not to the {total} asked for.")
    if not any(lengths):
        st.error("Every layer has length 0: nothing but the task head would be trained.")
        return
    edited = lengths != list(suggested.prefix_lengths)
    chosen = {
        "prefix_lengths": lengths,
        "total": sum(lengths),
        "method": f"{method}, edited" if edited else method,
        "run": run.name,
        "min_per_layer": at_least,
        "max_per_layer": at_most,
    }
    st.download_button(
        "Download lengths (JSON)", json.dumps(chosen, indent=1) + "\n", f"{run.name}-budget.json", "application/json"
    )
    retrain.show_form(run, lengths, list(uniform(sum(lengths), len(lengths)).prefix_lengths))


def _edit(run: Run, weights: np.ndarray, suggested: Budget) -> list[int]:
    """The table of lengths; what a person types is kept until the suggestion changes."""
    mass = layer_mass(weights)
    table = pd.DataFrame(
        {
            "layer": np.arange(1, len(mass) + 1),
            "gate mass": mass / mass.sum() if mass.sum() else mass,
            "length now": run.info.prefix_lengths,
            NEW_LENGTH: suggested.prefix_lengths,
        }
    )
    st.caption(
        f"Gate mass: the layer's share of the summed weights, averaged over the last {SETTLED_FRACTION:.0%} of the "
        "recorded steps. It says how much of the prefix is let through, not what a layer without it would cost. "
        "The last column can be edited."
    )
    edited = st.data_editor(
        table,
        hide_index=True,
        width="content",
        disabled=["layer", "gate mass", "length now"],
        key=f"lengths {run.key} {suggested}",
        column_config={
            "gate mass": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1),
            NEW_LENGTH: st.column_config.NumberColumn(
                min_value=0, max_value=MAX_TOKENS_PER_LAYER, step=1, required=True
            ),
        },
    )
    return [int(length) for length in edited[NEW_LENGTH].fillna(0)]
