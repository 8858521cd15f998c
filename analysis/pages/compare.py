"""Compare: a run beside the runs made from it, or any runs beside each other."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis.figures.comparison import ComparedRun, comparison_figure, comparisons
from analysis.figures.prefix_lengths import PrefixLengths, prefix_lengths_figure
from analysis.pages import context
from analysis.runs import Run, family_of

MAX_RUNS = 8


def show() -> None:
    st.title("Compare")
    run = context.choose_run("Run")
    if run is None:
        return
    runs = context.found().runs
    by_key = {other.key: other for other in runs}
    parent = next((other for other in runs if other.name == run.info.parent and other.info.task == run.info.task), run)
    family = [other.key for other in family_of(parent, runs)][:MAX_RUNS]
    chosen = st.multiselect(
        "Runs side by side",
        list(by_key),
        default=family,
        max_selections=MAX_RUNS,
        key=f"compared {parent.key}",
        help="At the start: the run, and those retrained from it (pruned, and uniform with the same total).",
    )
    compared = [by_key[key] for key in chosen]
    if not compared:
        st.info("Choose at least one run.")
        return
    tasks = {other.info.task for other in compared}
    if len(tasks) > 1:
        st.warning(
            f"These runs are of different tasks ({context.plain(', '.join(sorted(tasks)))}): metrics do not compare."
        )
    elif len({other.info.data_hash for other in compared}) > 1:
        st.warning("These runs were trained on different data: metrics do not compare.")
    if len(family) == 1 and chosen == family:
        st.info("No run has been made from this one yet. The Budget page retrains it pruned, and uniform beside it.")
    _figures(compared)
    table = pd.DataFrame([_row(other) for other in compared])
    counts = ("trained parameters", "of which prefix", "gates and scales", "head")
    st.dataframe(
        table,
        hide_index=True,
        width="stretch",
        column_config={name: st.column_config.NumberColumn(format="localized") for name in counts},
    )
    st.caption(
        "One run each: differences of a few points can be the seed's. Repeat with other seeds before you decide."
    )
    st.download_button("Download table (CSV)", table.to_csv(index=False), "comparison.csv", "text/csv")


def _figures(runs: list[Run]) -> None:
    names = [run.name for run in runs]
    bars = [
        ComparedRun(run.name, run.metric(), run.info.num_trained_parameters, run.info.total_tokens, run.info.seconds)
        for run in runs
    ]
    columns = st.columns(2)
    for index, measure in enumerate(comparisons(bars, runs[0].info.metric_name)):
        columns[index % 2].plotly_chart(comparison_figure(measure), width="stretch", key=f"comparison {index}")
    lengths = PrefixLengths(names, [run.info.prefix_lengths for run in runs])
    st.plotly_chart(prefix_lengths_figure(lengths), width="stretch", key="lengths")


def _row(run: Run) -> dict:
    counts = run.info.num_parameters
    return {
        "run": run.key,
        "method": run.method,
        "status": run.status,
        f"validation {run.info.metric_name}": run.metric(),
        f"test {run.info.metric_name}": run.metric("test"),
        "virtual tokens": run.info.total_tokens,
        "trained parameters": run.info.num_trained_parameters,
        "of which prefix": counts.get("prefix", 0),
        "gates and scales": counts.get("token_gate", 0) + counts.get("layer_scale", 0),
        "head": counts.get("head", 0),
        "training (s)": run.info.seconds,
        "epochs": run.info.training.get("epochs"),
        "learning rate": run.info.training.get("learning_rate"),
        "seed": run.info.seed,
    }
