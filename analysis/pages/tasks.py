"""Tasks: how alike the gate profiles of runs are, and whether one task's lengths were measured to serve another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from analysis.figures.profile_similarity import profile_similarity, profile_similarity_figure
from analysis.pages import context
from analysis.pages.charts import choose_image_format, show_downloads, show_figure
from analysis.pages.gate_data import stamp_of
from analysis.run_table import cell
from analysis.runs import Run
from analysis.side_by_side import short_names
from analysis.similarity import (
    KINDS,
    MAX_PROFILES,
    Excluded,
    alikeness,
    by_task,
    cluster,
    comparable,
    layer_counts,
    reading,
    similarity_matrix,
    try_profile,
)
from analysis.transfer_results import arms_table, differences_table, find_transfers, runs_table
from apt_core.errors import AptError
from apt_core.estimates import CONFIDENCE
from apt_core.run_format import GATES_FOLDER
from apt_core.transfer_format import Transfer
from apt_core.transfer_summary import summary

CHOSEN, KEPT = "profiles", "profiles_kept"
COMMAND = "python -m apt_core transfer RUN --task TASK --total 48"


def show() -> None:
    st.title("Tasks")
    runs = context.found().runs
    if runs:
        choose_image_format()
        _show_profiles(runs)
    else:
        context.show_no_runs()
    _show_transfers()


def _show_profiles(runs: list[Run]) -> None:
    st.subheader(
        "Gate profiles of runs",
        help="A profile is each layer's share of the gate mass |layer scale| x token gate at the end of training. Runs "
        "that rest on the same layers look alike. That says nothing about whether lengths made from one profile serve "
        "another task: only a measured transfer, further down, does.",
    )
    kept, excluded = _choose_kept(runs)
    chosen = _choose_runs(kept)
    profiles: list[np.ndarray] = []
    used: list[Run] = []
    for run in chosen:
        found = _profile(str(run.folder), _stamp(run), run)
        if isinstance(found, str):
            excluded.append(Excluded(run, found))
        else:
            profiles.append(found)
            used.append(run)
    if len(used) < 2 <= len(kept):
        st.info("Choose at least two runs.")
    elif len(used) < 2:
        st.info(
            "It takes two runs with the same number of layers and recorded gates. `python -m apt_core train --task ...`"
            " makes one."
        )
    else:
        _show_matrix(used, np.array(profiles))
    _show_excluded(excluded)


def _choose_kept(runs: list[Run]) -> tuple[list[Run], list[Excluded]]:
    left, right = st.columns(2, vertical_alignment="bottom")
    with left:
        counts = layer_counts(runs) or [0]
        num_layers = st.selectbox(
            "Number of layers",
            counts,
            key="layers",
            bind="query-params",
            help="Only runs with as many layers compare: a layer of one depth has no counterpart in another.",
        )
    with right:
        with_lengths = st.toggle(
            "With runs whose layers have different lengths",
            key="with_lengths",
            bind="query-params",
            help="A pruned run has much gate mass where it was given many virtual tokens: its profile repeats the one "
            "that its lengths were made from, and makes runs of a task look more alike than they are.",
        )
    before = st.session_state.get(KEPT)
    st.session_state[KEPT] = (num_layers, with_lengths)
    if before not in (None, (num_layers, with_lengths)):  # other runs can be chosen: the newest of them at first
        st.session_state.pop(CHOSEN, None)
    return comparable(runs, num_layers, with_lengths)


def _choose_runs(kept: list[Run]) -> list[Run]:
    by_key = {run.key: run for run in kept}
    if CHOSEN in st.session_state:
        st.session_state[CHOSEN] = [key for key in st.session_state[CHOSEN] if key in by_key]
    chosen = st.multiselect(
        "Runs",
        list(by_key),
        default=list(by_key)[:MAX_PROFILES],
        max_selections=MAX_PROFILES,
        key=CHOSEN,
        bind="query-params",
        help=f"At the start the newest, at most {MAX_PROFILES}.",
    )
    return [by_key[key] for key in chosen]


def _stamp(run: Run) -> str:
    try:
        return stamp_of(run.folder / GATES_FOLDER)
    except (AptError, OSError) as problem:
        return f"unreadable: {problem}"


@st.cache_resource(max_entries=256, show_spinner="Reading gates")
def _profile(folder: str, stamp: str, _run: Run) -> np.ndarray | str:
    return try_profile(_run)


def _show_matrix(runs: list[Run], profiles: np.ndarray) -> None:
    left, right = st.columns(2)
    with left:
        kind = context.choose(
            "Likeness",
            list(KINDS),
            "likeness",
            "Spearman",
            help="Spearman: whether the layers are in the same order of gate mass; with few layers it moves in coarse "
            "steps. cosine: whether the shares themselves are alike; shares are never negative, so it is near 1 even "
            "for profiles that have little in common. Neither is a probability.",
        )
    with right:
        order_by = context.choose(
            "Order",
            ["alike", "task"],
            "run_order",
            "alike",
            help="alike: as a hierarchical clustering (average linkage) puts them, with its tree. task: task by task.",
        )
    names, tasks = short_names(runs), [cell(run.info.task) or "no task named" for run in runs]
    matrix = similarity_matrix(profiles, kind)
    tree = cluster(matrix) if order_by == "alike" else None
    order = tree.order if tree is not None else by_task(tasks, names)
    show_figure(
        profile_similarity_figure(profile_similarity(matrix, names, tasks, kind, order, tree)),
        "similarity",
        "profile-similarity",
        lambda: _pairs_table(matrix, runs, tasks, kind),
        KINDS[kind][:1].upper() + KINDS[kind][1:] + ".",
    )
    found = alikeness(matrix, tasks)
    st.markdown(context.plain(reading(found, kind, tasks)))
    st.caption(
        "The test deals the tasks out to the runs at random, again and again, and asks how often runs of one task come "
        "out as alike. It takes runs as independent: runs retrained from one another are not. A small p says that "
        "profiles tell tasks apart, not that they tell which layers matter."
    )
    backbones = {run.info.model for run in runs}
    if len(backbones) > 1:
        st.warning(
            f"These runs have {len(backbones)} backbones ({context.plain(', '.join(sorted(map(cell, backbones))))}): a "
            "layer of one is not the layer of the other with the same number, and likeness across them means little."
        )
    _show_shares(runs, tasks, profiles)


def _pairs_table(matrix: np.ndarray, runs: list[Run], tasks: list[str], kind: str) -> pd.DataFrame:
    rows, columns = np.triu_indices(len(runs), 1)
    return pd.DataFrame(
        {
            "run": runs[row].key,
            "task": tasks[row],
            "other_run": runs[column].key,
            "other_task": tasks[column],
            kind: matrix[row, column],
        }
        for row, column in zip(rows, columns, strict=True)
    )


def _show_shares(runs: list[Run], tasks: list[str], profiles: np.ndarray) -> None:
    with st.expander("Profiles as numbers"):
        columns = {f"layer {layer + 1}": profiles[:, layer] for layer in range(profiles.shape[1])}
        table = pd.DataFrame({"run": [run.key for run in runs], "task": tasks, **columns})
        st.dataframe(table, hide_index=True, width="stretch", key="shares")
        show_downloads("shares", "profiles", lambda: table)


def _show_excluded(excluded: list[Excluded]) -> None:
    if not excluded:
        return
    with st.expander(f"Not compared: {len(excluded)}"):
        for run, reason in excluded:
            st.markdown(f"- {context.plain(run.key)}: {context.plain(reason)}")


def _show_transfers() -> None:
    st.subheader(
        "Measured transfer",
        help="A task trained with the lengths that another task's run suggests, beside its own, uniform and random "
        "lengths of the same total, with the same seeds. The verdict rests on the source's lengths against uniform "
        "ones. The metric is that of validation, which also chose each checkpoint, in every arm alike.",
    )
    found = find_transfers(context.chosen_roots())
    for folder, reason in found.rejected:
        st.warning(f"{context.plain(folder)} is not shown: {context.plain(reason)}")
    if not found.transfers:
        st.info("No transfer has been measured in the chosen folders. This does it; then start the app on its --out:")
        st.code(COMMAND, language="bash")
        return
    folder = st.selectbox(
        "Transfer", list(found.transfers), key="transfer", bind="query-params", help="The latest first."
    )
    _show_transfer(folder, found.transfers[folder])
    if len(found.transfers) > 1:
        _show_all(found.transfers)


def _show_transfer(folder: str, report: Transfer) -> None:
    results = summary(report)
    st.markdown(f"**{context.plain(results.verdict)}**")
    st.caption(
        context.plain(
            f"{report.total} virtual tokens over {report.num_layers} layers of {report.model}; validation "
            f"{report.metric_name}. The source's shares are from its {report.source_basis}, the target's own from the "
            f"{report.own_basis or 'run that is still to be trained'} of {report.own}."
        )
    )
    arms = arms_table(results)
    st.dataframe(arms, hide_index=True, width="stretch", key="arms")
    differences = differences_table(results)
    st.dataframe(differences, hide_index=True, width="stretch", key="differences")
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(
            f"Intervals are Student's t at {CONFIDENCE:.0%} over seeds; differences are taken seed by seed, above 0 is "
            "better. They are not corrected for there being several, and hold for this task, total and backbone."
        )
        show_downloads("transfer", "transfer", lambda: runs_table({folder: report}))
    if not report.finished:
        st.info("Not all of its runs are finished. The same command goes on with it:")
        st.code(report.command or COMMAND, language="bash", wrap_lines=True)


def _show_all(transfers: dict[str, Transfer]) -> None:
    with st.expander(f"All transfers: {len(transfers)}"):
        table = pd.DataFrame(
            {
                "folder": Path(folder).name,
                "source": report.source,
                "task": report.task,
                "total": report.total,
                "verdict": summary(report).verdict,
            }
            for folder, report in transfers.items()
        )
        st.dataframe(table, hide_index=True, width="stretch", key="transfers")
        show_downloads("transfers", "transfers", lambda: runs_table(transfers))
