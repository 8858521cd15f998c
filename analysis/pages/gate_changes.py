"""The panels of the Gates page on change: when gates settled, and the difference of two steps or two runs."""

from __future__ import annotations

import numpy as np
import streamlit as st

from analysis.figures.gate_difference import gate_difference, gate_difference_figure
from analysis.figures.settling import settling_figure, settling_map
from analysis.gate_stats import difference, quantity
from analysis.pages import context
from analysis.pages.charts import show_figure
from analysis.pages.gate_data import Gates, WholeRun, open_gates, row_at
from analysis.pages.gate_panels import View
from analysis.runs import Run
from analysis.settling import MIN_STEPS, TOLERANCE
from analysis.steps import nearest
from analysis.tables import cells_table, settling_table
from apt_core.errors import AptError
from apt_core.gate_log import GateRow

THIS_RUN = "this run"


def show_settling(run: Run, whole: WholeRun) -> None:
    """When each weight settled."""
    settled = whole.settled.tokens
    if not settled.exists.any():
        st.info("This run has no virtual tokens, so nothing can settle.")
        return
    if not settled.enough:
        st.info(f"It takes {MIN_STEPS} recorded steps to say when a gate settled.")
        return
    done, total = int(settled.settled.sum()), int(settled.exists.sum())
    show_figure(
        settling_figure(settling_map(settled, whole.last_step)),
        "settling",
        f"{run.name}-settling",
        lambda: settling_table(settled),
        f"{done:,} of {total:,} weights settled; orange: not settled. Final value: the mean over the last tenth of the "
        f"steps. Settled: within {TOLERANCE:.0%} of it from that step on, and throughout that last tenth; "
        f"{whole.basis}. A settled gate has stopped moving; that does not say the training was long enough.",
    )


def show_difference(run: Run, gates: Gates, view: View, row: GateRow) -> None:
    """What differs from another step of this run, or from another run."""
    others = {other.key: other for other in context.found().runs if other.key != run.key}
    left, right = st.columns([3, 1])
    key = left.selectbox(
        "Minus",
        [THIS_RUN, *others],
        key="minus",
        bind="query-params",
        help="What is subtracted from the step shown above: another step of this run, or a run of the same shape.",
    )
    wanted = right.number_input(
        "at step",
        min_value=0,
        value=None,
        step=1,
        key="minus_step",
        bind=context.bind("minus_step"),
        placeholder="first" if key == THIS_RUN else "newest",
        help="The nearest recorded step is taken. Empty: the first step of this run, or the newest of another.",
    )
    reference = gates if key == THIS_RUN else open_gates(others[key])
    if reference is None:
        return
    index = nearest(reference.steps, wanted) if wanted is not None else 0 if key == THIS_RUN else -1
    step = int(reference.steps[index])
    try:
        other = row_at(reference, step)
        values = difference(_quantity(view, row), _quantity(view, other))
    except AptError as problem:
        st.warning(
            f"These cannot be subtracted: {context.plain(problem)} A difference needs the same number of layers and "
            "the same longest prefix; Compare puts runs of any shape side by side."
        )
        return
    names = (f"step {row.step:,}", f"step {step:,}" if key == THIS_RUN else f"{key} step {step:,}")
    show_figure(
        gate_difference_figure(gate_difference(values, view.name, *names)),
        "difference",
        f"{run.name}-difference-step-{row.step}",
        lambda: cells_table(row.step, difference=values),
        "Orange: larger at the step shown above; purple: smaller; white: equal. Two runs start from different random "
        "values: token 3 of one is not token 3 of the other, so read layers, not single cells."
        if key != THIS_RUN
        else "Orange: larger at the step shown above; purple: smaller; white: equal.",
    )


def _quantity(view: View, row: GateRow) -> np.ndarray:
    return quantity(view.name, row.token_gate, row.layer_scale)
