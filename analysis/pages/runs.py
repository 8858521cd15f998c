"""Runs: all recorded runs in one table, with filters, groups and actions, and what could not be read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from analysis.pages import context, run_actions
from analysis.pages.charts import show_downloads
from analysis.run_table import (
    COLUMNS,
    DEFAULT_COLUMNS,
    SEVERAL,
    Entry,
    Filter,
    entries_of,
    group_of,
    grouped,
    matching,
    rows_of,
    setting_names,
    task_of,
)
from analysis.runs import Rejected, Run, shown

STATUS_SIGNS = {"running": "▶ running", "finished": "✓ finished", "failed": "✗ failed", "interrupted": "‖ interrupted"}
FILTERS = {"q": "", "status": [], "task": [], "tag": [], "group": None, "value": None}
"""widget key, also in the URL -> value that leaves every run"""
LIVE_SECONDS = 2.0
IDLE_SECONDS = 10.0
OPEN = ":material/grid_on: Open"


def show() -> None:
    st.title("Runs")
    run_actions.show_dialog()
    runs, rejected = context.found()
    if runs:
        _runs(entries_of(runs))
    else:
        context.show_no_runs()
    run_actions.show_trash()
    _not_readable(rejected)


def _runs(entries: list[Entry]) -> None:
    visible = [entry for entry in entries if not entry.notes.hidden]
    newest = (visible or entries)[0].run
    if st.button(f"Open the newest: {context.plain(shown(newest.key))}", type="primary", icon=":material/grid_on:"):
        _open(newest.key)
    wanted, group, columns = _choices(entries)
    left = matching(entries, wanted)
    _summary(entries, left, wanted)
    some_run = any(entry.status == "running" for entry in entries)
    seconds, standing = LIVE_SECONDS if some_run else IDLE_SECONDS, _standing([entry.run for entry in entries])
    value = _groups(left, group) if left and group else None
    if not left or (group and value is None):
        st.fragment(_watch, run_every=seconds)(standing)
        return
    if group:
        left = grouped(left, group)[value]
    st.fragment(_table, run_every=seconds)(_places(left), standing, columns)


def _standing(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What filters and groups are made of: which runs there are, and how they stand."""
    return [(str(run.folder), run.status) for run in runs]


def _watch(drawn: list[tuple[str, str]]) -> None:
    """Draws nothing; the page is drawn again when runs come, go, start or end."""
    if _standing(context.found().runs) != drawn:
        st.rerun()


def _choices(entries: list[Entry]) -> tuple[Filter, str | None, list[str]]:
    """The widgets above the table; what they say is in the URL."""
    tasks = sorted({task_of(entry) for entry in entries})
    tags = sorted({tag for entry in entries for tag in entry.notes.tags})
    settings = setting_names(entries)
    shared = {"bind": "query-params", "persist_state": "session"}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        text = st.text_input(
            "Search",
            key="q",
            type="search",
            placeholder="name, task, model ...",
            width=200,
            help="Runs with every word in name, task, model, method, parent or tags.",
            **shared,
        )
        statuses = st.multiselect("Status", list(STATUS_SIGNS), key="status", placeholder="all", width=130, **shared)
        chosen_tasks = st.multiselect("Task", tasks, key="task", placeholder="all", width=130, **shared)
        chosen_tags = st.multiselect("Tags", tags, key="tag", placeholder="all", width=130, **shared) if tags else []
        group = st.selectbox("Group by", settings, index=None, key="group", placeholder="nothing", width=150, **shared)
        with st.popover("Columns", icon=":material/view_column:"):
            columns = st.multiselect(
                "Columns, in this order",
                [*list(COLUMNS)[1:], *(name for name in settings if name not in COLUMNS)],
                default=list(DEFAULT_COLUMNS),
                key="columns",
                **shared,
            )
            hidden = st.toggle("Show hidden runs", key="hidden", **shared)
    return Filter(text, statuses, chosen_tasks, chosen_tags, hidden), group, columns


def _summary(entries: list[Entry], left: list[Entry], wanted: Filter) -> None:
    """How many runs there are, what keeps the others away, and a button that brings them back."""
    hidden = sum(entry.notes.hidden for entry in entries)
    said = f"{len(left)} of {len(entries)}" if len(left) != len(entries) else f"{len(left)}"
    said += f" run{'' if len(entries) == 1 else 's'}, newest first"
    if hidden and not wanted.hidden:
        said += f"; {hidden} hidden"
    filtered = any(st.session_state.get(key, empty) != empty for key, empty in FILTERS.items())
    with st.container(horizontal=True, vertical_alignment="center"):
        if left:
            st.caption(f"{said}.", width="content")
        elif filtered:
            st.info("No run fits these filters.")
        else:
            st.info("All runs are hidden. 'Columns' holds the switch that shows them.")
        if filtered:
            st.button("Clear filters", icon=":material/filter_alt_off:", on_click=_clear, type="tertiary")


def _clear() -> None:
    for key, empty in FILTERS.items():
        st.session_state[key] = empty


def _groups(entries: list[Entry], setting: str) -> str | None:
    """One row per group; the group whose runs are to be shown, if one was chosen."""
    groups = grouped(entries, setting)
    rows = [group_of(value, members) for value, members in groups.items()]
    values = list(groups)
    st.dataframe(
        pd.DataFrame(
            {
                "show": [":material/filter_alt: Show runs"] * len(rows),
                setting: values,
                "runs": [row.count for row in rows],
                "metric": [row.metric for row in rows],
                "measured": [row.measured for row in rows],
                "mean": [row.mean for row in rows],
                "lowest": [row.low for row in rows],
                "highest": [row.high for row in rows],
            }
        ),
        hide_index=True,
        width="content",
        key="groups_table",
        alt="Groups of runs",
        placeholder="",
        column_config={
            "show": st.column_config.ButtonColumn("", on_click=_show_group, args=(values,), key="group_clicked"),
            "metric": st.column_config.TextColumn(
                help="On the validation split. 'several': the group's runs differ in task or metric, and nothing is "
                "averaged."
            ),
            "measured": st.column_config.NumberColumn(help="Runs in which the metric was measured."),
            **{name: st.column_config.NumberColumn(format="%.3f") for name in ("mean", "lowest", "highest")},
        },
    )
    if any(row.metric == SEVERAL for row in rows):
        st.caption("Nothing is averaged over several tasks or metrics: choose one task above.")
    return st.selectbox(
        f"Runs with {context.plain(setting)}",
        values,
        index=None,
        key="value",
        placeholder="choose a group to see its runs",
        width=360,
        bind="query-params",
        persist_state="session",
    )


def _show_group(values: list[str]) -> None:
    st.session_state["value"] = values[st.session_state["group_clicked"].row]


def _table(places: tuple[str, ...], drawn: list[tuple[str, str]], columns: list[str]) -> None:
    """The runs named, looked up again each time so that a run's progress is seen; a fragment of the page."""
    found = context.found().runs
    if _standing(found) != drawn:
        st.rerun()  # filters and groups have to be made again
    runs = {str(run.folder): run for run in found}
    entries = entries_of(runs[place] for place in places)
    actions = st.container(horizontal=True, vertical_alignment="center")
    table = pd.DataFrame(rows_of(entries, ["run", *columns]))
    table.insert(0, "open", OPEN)
    event = st.dataframe(
        table,
        hide_index=True,
        width="stretch",
        on_select="rerun",
        selection_mode="multi-row",
        key=table_key(places),
        alt="Runs",
        placeholder="",
        column_config=_column_config(),
    )
    clicked = st.session_state.get("open_clicked")
    if clicked:
        _open(entries[clicked.row].run.key)
    run_actions.show_bar(actions, [entries[row] for row in event.selection.rows if row < len(entries)])
    show_downloads("runs", "runs", lambda: table.drop(columns="open"))


def _places(entries: list[Entry]) -> tuple[str, ...]:
    return tuple(str(entry.run.folder) for entry in entries)


def table_key(places: tuple[str, ...]) -> str:
    """The table's widget key. Rows are selected by their place, so other rows must not inherit the selection."""
    return f"runs_table_{hashlib.sha256(repr(places).encode()).hexdigest()[:16]}"


def _column_config() -> dict:
    config = st.column_config
    said = {name: text or None for name, text in COLUMNS.items()}
    return {
        "open": config.ButtonColumn("", pinned=True, key="open_clicked", type="tertiary", width=82),
        "run": config.TextColumn(pinned=True, help=said["run"]),
        "status": config.SelectboxColumn(
            options=list(STATUS_SIGNS), format_func=STATUS_SIGNS.__getitem__, help=said["status"], width=110
        ),
        "validation": config.NumberColumn(format="%.3f", help=said["validation"]),
        "test": config.NumberColumn(format="%.3f", help=said["test"]),
        "curve": config.LineChartColumn(help=said["curve"], width=110),
        "loss curve": config.LineChartColumn(help=said["loss curve"], width=110),
        "trained parameters": config.NumberColumn(format="localized", help=said["trained parameters"]),
        "age": config.DatetimeColumn(format="distance", help=said["age"]),
        "started (UTC)": config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        "time (s)": config.NumberColumn(format="%.0f", help=said["time (s)"]),
        "tags": config.ListColumn(),
        "model": config.TextColumn(help=said["model"], width=150),
        "prefix lengths": config.TextColumn(help=said["prefix lengths"], width=120),
        **{
            name: config.Column(help=said[name])
            for name in ("task", "method", "metric", "virtual tokens", "step", "parent")
        },
    }


def _not_readable(rejected: list[Rejected]) -> None:
    if not rejected:
        return
    st.subheader("Not readable")
    st.caption("These folders are left as they are; the other runs are not affected.")
    st.dataframe(
        pd.DataFrame([{"folder": shown(folder), "reason": shown(reason)} for folder, reason in rejected]),
        hide_index=True,
        width="stretch",
        alt="Folders that cannot be read, with the reason",
        column_config={
            "folder": st.column_config.TextColumn(width="medium"),
            "reason": st.column_config.TextColumn(width="large"),
        },
    )


def _open(key: str) -> None:
    context.go("gates", run=key)
