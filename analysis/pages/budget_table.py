"""The table of the Budget page: lengths of the layers, editable and lockable."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from analysis.budgets.locks import changed_locks
from analysis.budgets.suggest import Evidence
from analysis.budgets.weighing import EFFECT, Weighed, layer_effect, weigh
from analysis.gate_stats import layer_mass
from analysis.pages import context
from analysis.runs import Run
from apt_core.config import MAX_TOKENS_PER_LAYER
from apt_core.errors import AptError
from apt_core.settled import SETTLED_FRACTION

LOCKS, TYPED, BASE = "budget_locks", "budget_typed", "budget_base"
NEW_LENGTH, LOCK, NOW, EFFECT_COLUMN = "new length", "lock", "length now", "effect (nats)"


def locks_of(run: Run) -> dict[int, int]:
    """The layers that a person locked in the table of a run, counted from 0 -> length."""
    return st.session_state.setdefault(LOCKS, {}).get(run.key, {})


def offer_unlocking(run: Run) -> None:
    """A way out where locks leave no budget."""
    if locks_of(run) and st.button("Unlock all layers", icon=":material/lock_open:"):
        st.session_state[LOCKS].pop(run.key)
        st.rerun()


def edit(run: Run, lengths: list[int], weighed: Weighed, evidence: Evidence) -> list[int]:
    """The table of lengths; what a person types is kept until the suggestion changes. Returns lengths [L]."""
    locks = locks_of(run)
    table = pd.DataFrame({"layer": np.arange(1, len(lengths) + 1)})
    shares = {"gate": weigh("gate", evidence.log_weights, evidence.measures), weighed.name: weighed}
    shares.pop(EFFECT, None)
    for name, each in shares.items():
        table[f"{name} mass"] = _share(each.weights)
    if evidence.measures is not None:
        try:
            table[EFFECT_COLUMN] = layer_effect(evidence.measures)
        except AptError as problem:
            st.warning(context.plain(problem))
    table[NOW] = run.info.prefix_lengths
    table[LOCK] = [layer in locks for layer in range(len(lengths))]
    key = f"lengths {run.key} {lengths} {sorted(locks)}"
    if key not in st.session_state:  # a new table, or one that was left for another page: it begins with what was typed
        st.session_state[BASE] = _typed(run.key, lengths).copy()
    shown = [st.session_state[BASE].get(layer, length) for layer, length in enumerate(lengths)]
    table[NEW_LENGTH] = shown
    edited = st.data_editor(
        table,
        hide_index=True,
        width="content",
        disabled=[name for name in table if name not in (LOCK, NEW_LENGTH)],
        key=key,
        on_change=_keep_edits,
        args=(run.key, key, lengths, shown),
        column_config={
            **{f"{name} mass": _bar(name) for name in shares},
            EFFECT_COLUMN: st.column_config.NumberColumn(
                format="%.4f",
                help="How much the loss rises when all virtual tokens of the layer are left out, without retraining. "
                "Below 0: it falls. It does not say what a model trained without them would lose.",
            ),
            LOCK: st.column_config.CheckboxColumn(
                help="Keeps the layer at its length; the suggestion shares the rest out over the others."
            ),
            NEW_LENGTH: st.column_config.NumberColumn(
                min_value=0, max_value=MAX_TOKENS_PER_LAYER, step=1, required=True, help="Virtual tokens; type over it."
            ),
        },
        alt="Layers with their gate mass, measured effect, length now and new length.",
    )
    st.caption(
        "Gate mass: the layer's share of the summed weights"
        + (
            f", averaged over the last {SETTLED_FRACTION:.0%} of the recorded steps"
            if shares["gate"].weights is evidence.log_weights
            else ", as measured"
        )
        + ". It says how much of the prefix is let through, not what a layer without it would cost. The last two "
        "columns can be edited; a lock stays until it is taken away, a length until the suggestion changes."
    )
    return [int(length) for length in edited[NEW_LENGTH].fillna(0)]


def _bar(name: str) -> object:
    return st.column_config.ProgressColumn(
        format="percent", min_value=0, max_value=1, help=f"The layer's share of all weights by {name}."
    )


def _share(weights: np.ndarray) -> np.ndarray:
    mass = layer_mass(weights)
    return mass / mass.sum() if mass.sum() else mass


def _typed(run_key: str, lengths: list[int]) -> dict[int, int]:
    """Lengths that a person typed over a suggestion: layer, counted from 0 -> length."""
    return st.session_state.setdefault(TYPED, {}).setdefault((run_key, tuple(lengths)), {})


def _keep_edits(run_key: str, editor: str, lengths: list[int], shown: list[int]) -> None:
    edits = st.session_state[editor]["edited_rows"]
    before = st.session_state[LOCKS].get(run_key, {})
    st.session_state[LOCKS][run_key] = changed_locks(before, shown, edits, LOCK, NEW_LENGTH)
    for layer, cells in edits.items():
        if NEW_LENGTH in cells:
            _typed(run_key, lengths)[layer] = int(cells[NEW_LENGTH] or 0)
