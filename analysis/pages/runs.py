"""Runs: all recorded runs in one table, and what could not be read."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis.pages import context
from analysis.runs import Run


def show() -> None:
    st.title("Runs")
    runs, rejected = context.found()
    if not runs:
        context.show_no_runs()
    else:
        newest = runs[0]
        st.caption(f"{len(runs)} runs, newest first. Click a row to see its gates.")
        if st.button(f"Open the newest: {context.plain(newest.key)}", type="primary", icon=":material/grid_on:"):
            _open(newest)
        table = pd.DataFrame([_row(run) for run in runs])
        event = st.dataframe(
            table,
            hide_index=True,
            width="stretch",
            on_select="rerun",
            selection_mode="single-cell",
            key="runs_table",
            column_config={
                "validation": st.column_config.NumberColumn(
                    format="%.3f", help="The task's metric on the validation split, 0 to 1; it chose the checkpoint."
                ),
                "test": st.column_config.NumberColumn(
                    format="%.3f", help="The same metric on the test split, where `apt_core evaluate` measured it."
                ),
                "virtual tokens": st.column_config.NumberColumn(help="Over all layers."),
                "trained parameters": st.column_config.NumberColumn(
                    format="localized", help="Prefix, gates, scales and task head."
                ),
                "time (s)": st.column_config.NumberColumn(format="%.0f", help="Spent training."),
                "started (UTC)": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
            },
        )
        if event.selection.cells:
            _open(runs[event.selection.cells[0][0]])
        st.download_button("Download table (CSV)", table.to_csv(index=False), "runs.csv", "text/csv")
    if rejected:
        st.subheader("Not readable")
        st.caption("These folders are left as they are; the other runs are not affected.")
        st.dataframe(
            pd.DataFrame([{"folder": str(folder), "reason": reason} for folder, reason in rejected]),
            hide_index=True,
            width="stretch",
        )


def _row(run: Run) -> dict:
    info = run.info
    return {
        "run": run.key,
        "status": run.status,
        "task": info.task or "not said",
        "method": run.method,
        "metric": info.metric_name,
        "validation": run.metric(),
        "test": run.metric("test"),
        "prefix lengths": " ".join(map(str, info.prefix_lengths)),
        "virtual tokens": info.total_tokens,
        "trained parameters": info.num_trained_parameters,
        "step": f"{info.step} / {info.total_steps}" if info.total_steps else str(info.step),
        "time (s)": info.seconds,
        "model": info.model,
        "parent": info.parent or "",
        "started (UTC)": pd.to_datetime(info.created_at, errors="coerce", utc=True),
    }


def _open(run: Run) -> None:
    st.switch_page(st.session_state["pages"]["gates"], query_params={"run": run.key})
