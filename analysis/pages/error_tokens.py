"""The Errors page by virtual token: the gates of single examples, written on demand, and how groups differ in them."""

from __future__ import annotations

import shlex

import numpy as np
import pandas as pd
import streamlit as st

from analysis.error_views import VIEWS, tokens_sentence
from analysis.errors import FALSE_DISCOVERIES
from analysis.example_texts import SPLIT
from analysis.figures.gate_difference import GateDifference, gate_difference_figure
from analysis.pages import context
from analysis.pages.charts import show_figure
from analysis.pages.error_data import Predicted, token_gates_of, token_tests_of
from analysis.runs import Run
from analysis.tables import cells_table
from apt_core.errors import AptError, AptFileNotFoundError
from apt_core.example_gates_format import ExampleGates


def token_gates_or_command(run: Run) -> ExampleGates | None:
    """The token gates of single examples; where there are none, the page shows the command that writes them."""
    try:
        return token_gates_of(run)
    except AptFileNotFoundError:
        st.info("The gate of every virtual token for single examples is written on demand:")
        words = ["python", "-m", "apt_core", "evaluate", str(run.folder), "--split", SPLIT, "--token-gates"]
        st.code(shlex.join(words), language="bash", wrap_lines=True)
    except (AptError, OSError) as problem:
        st.error(f"The token gates cannot be read: {context.plain(problem)}")
    return None


def show_token_contrast(run: Run, data: Predicted, chosen: str, name: str) -> None:
    """One group's numbers for every virtual token.

    Args:
        chosen: the view.
        name: of the group.
    """
    gates = token_gates_or_command(run)
    if gates is None:
        return
    try:
        found = token_tests_of(run, data, chosen, gates)
    except AptError as problem:
        st.error(f"The token gates cannot be read: {context.plain(problem)}")
        return
    if name not in found.groups.names:
        st.info(f"None of the {found.num_examples:,} examples whose token gates were written is of this group.")
        return
    view, place, shape = VIEWS[chosen], found.groups.names.index(name), gates.mean.shape
    tests = found.groups.tests.of(place)
    value, low, high, adjusted = (part.reshape(shape) for part in (tests.value, tests.low, tests.high, tests.adjusted))
    show_figure(
        gate_difference_figure(
            GateDifference(
                value.astype(np.float32),
                float(np.nanmax(np.abs(value), initial=0.0)) or 1.0,
                view.unit,
                view.title.format(name=name),
                np.nan_to_num(adjusted, nan=1.0) < FALSE_DISCOVERIES,
            )
        ),
        "token contrast",
        f"token-gates-by-{chosen}",
        lambda: _table(value=value, low=low, high=high, adjusted_p=adjusted),
        f"{tokens_sentence(tests, view.unit, shape[1])} {found.num_examples:,} examples. Grey: no such virtual token, "
        "or its gate is the same for every example. p-values are corrected for all virtual tokens and all groups of "
        "this comparison.",
    )


def _table(**columns: np.ndarray) -> pd.DataFrame:
    return cells_table(0, **columns).drop(columns="step")
