"""The results of a sweep on its page: the table and the figure of its cells, and the runs behind one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from analysis.figures.sweep import sweep_figure, sweep_lines
from analysis.pages import context
from analysis.pages.charts import show_downloads, show_figure
from analysis.pages.compare import MAX_RUNS, open_compare
from analysis.sweep_results import cells_table, trainings_table
from apt_core.estimates import CONFIDENCE
from apt_core.sweep_format import SPEC_FILE, Recorded
from apt_core.sweep_look import Standing, runs_of
from apt_core.sweep_spec import spec_bytes
from apt_core.sweep_summary import SPLITS, Cell, summarise

RATE = "sweep_rate"


def show(recorded: Recorded, standings: list[Standing]) -> None:
    """What is known so far."""
    cells = summarise(recorded.plan, runs_of(standings))
    splits = [split for split in SPLITS if split == "validation" or any(cell.metric[split].count for cell in cells)]
    st.subheader("Results")
    table = cells_table(cells, splits)
    st.dataframe(table, hide_index=True, width="stretch", key="cells", column_config=_columns(splits))
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(
            f"Means over seeds; ± is half of Student's {CONFIDENCE:.0%} interval, which takes two seeds. 'minus "
            "uniform' is paired by seed, with its interval; above 0 is better. Intervals are not corrected for there "
            "being several cells, and validation flatters: it chose each checkpoint."
        )
        show_downloads("sweep", recorded.folder.name, lambda: trainings_table(standings))
    chosen = _choose_part(cells)
    split = context.choose("Split", splits, "sweep_split", splits[0]) if len(splits) > 1 else splits[0]
    lines = sweep_lines(chosen, split)
    about = "Filled circles: means over seeds. The full run has the same length in every layer."
    show_figure(sweep_figure(lines), "sweep figure", "sweep", lambda: cells_table(chosen, splits), about)
    _show_runs(recorded, chosen)


def _columns(splits: list[str]) -> dict[str, Any]:
    """How the numbers of the table are written, and what they mean."""
    means = {
        column: st.column_config.NumberColumn(format="%.3f", help=about)
        for split in splits
        for column, about in (
            (split, f"Mean of the metric on {split} over the seeds that are done."),
            (f"{split} ±", "Half of the interval; empty for one seed, and where seeds gave the same number."),
        )
    }
    return means | {
        "learning rate": st.column_config.NumberColumn(format="%g"),
        "trained parameters": st.column_config.NumberColumn(format="localized", help="Mean over the seeds."),
        "lengths": st.column_config.TextColumn(help="How the virtual tokens are shared out over the layers."),
    }


def spec_of(folder: Path) -> str:
    """The spec as its folder has it.

    Raises:
        AptError: if it cannot be read.
    """
    return spec_bytes(folder / SPEC_FILE).decode("utf-8", "replace")


def _choose_part(cells: list[Cell]) -> list[Cell]:
    """The cells of one task and learning rate."""
    left, right = st.columns(2)
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    task = left.selectbox("Task", tasks, key="sweep_task", bind="query-params", help="One figure shows one task.")
    rates = list(dict.fromkeys(cell.learning_rate for cell in cells if cell.task == task))
    shown_rates = [repr(rate) for rate in rates]
    if st.session_state.get(RATE) not in (None, *shown_rates):  # of another task
        del st.session_state[RATE]
    rate = right.selectbox("Learning rate", shown_rates, key=RATE, bind="query-params", help="Peak, of --lr.")
    return [cell for cell in cells if (cell.task, repr(cell.learning_rate)) == (task, rate)]


def _show_runs(recorded: Recorded, cells: list[Cell]) -> None:
    """The finished runs of one cell, with links to what other pages show of them."""
    with_runs = {f"{cell.total} virtual tokens, {cell.method}": cell for cell in cells if cell.runs}
    folder = recorded.folder
    if not with_runs:
        return
    cell = with_runs[st.selectbox("Runs of", list(with_runs), key="sweep_cell", help="One entry per cell.")]
    keys = {run.folder.resolve(): run.key for run in context.found().runs}
    same = recorded.sweep.same_lengths
    folders = {seed: (folder / same.get(name, name)).resolve() for seed, name in sorted(cell.names.items())}
    known = {seed: keys[place] for seed, place in folders.items() if place in keys}
    if not known:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        for seed, key in known.items():
            context.offer("gates", f"Gates, seed {seed}", key)
        if st.button("Compare", icon=":material/balance:", help=f"Up to {MAX_RUNS} of them side by side."):
            open_compare(list(known.values()))
