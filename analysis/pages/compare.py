"""Compare: a run beside the runs made from it, or any runs beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from analysis.figures.compared_profiles import ComparedProfile, ComparedProfiles, compared_profiles_figure
from analysis.figures.comparison import ComparedRun, comparison_figure, comparisons
from analysis.figures.metric_against_parameters import metric_against_parameters, metric_against_parameters_figure
from analysis.figures.prefix_lengths import PrefixLengths, prefix_lengths_figure
from analysis.pages import context
from analysis.pages.charts import choose_image_format, draw, show_downloads, show_figure
from analysis.pages.gate_data import open_gates, weights_of
from analysis.runs import Run, family_of, parent_of
from analysis.side_by_side import (
    CONFIDENCE,
    PROFILES,
    Group,
    counts_text,
    estimate,
    folded,
    profile,
    settings_table,
    single,
)
from analysis.tables import lengths_table, profiles_table
from apt_core.errors import AptError

MAX_RUNS = 8
COMPARED, FAMILY = "compared", "compared_family"
DIFFERING = "metrics, which differ"


def show() -> None:
    st.title("Compare")
    run = context.choose_run("Run")
    if run is None:
        return
    choose_image_format()
    compared = _choose(run)
    if not compared:
        st.info("Choose at least one run.")
        return
    _warn(compared)
    groups = _fold(compared)
    bars = [_compared(group) for group in groups]
    names = {other.info.metric_name for other in compared}
    metric_name = names.pop() if len(names) == 1 else DIFFERING
    columns = st.columns(2)
    for index, measure in enumerate(comparisons(bars, metric_name)):
        with columns[index % 2]:
            draw(comparison_figure(measure), f"comparison {index}", f"compared-{measure.unit}")
    if any(len(group.runs) > 1 for group in groups):
        st.caption(context.plain(counts_text([(bar.name, bar.metric.count) for bar in bars])))
    show_downloads("bars", "comparison", lambda: _bars_table(bars))
    left, right = st.columns(2)
    with left:
        show_figure(
            metric_against_parameters_figure(metric_against_parameters(bars, metric_name)),
            "against",
            "metric-against-parameters",
            lambda: _bars_table(bars),
            "Which run needs fewer parameters for what it achieves. Trained parameters are what a checkpoint holds; "
            "they do not say how long a prediction takes, the virtual tokens do.",
        )
    with right:
        _profiles(groups)
    lengths = PrefixLengths([group.name for group in groups], [group.runs[0].info.prefix_lengths for group in groups])
    show_figure(prefix_lengths_figure(lengths), "lengths", "prefix-lengths", lambda: lengths_table(*lengths))
    _settings(groups)
    _table(compared)


def open_compare(keys: Sequence[str]) -> None:
    """Opens this page on runs; on a single one beside those that were made from it."""
    for key in (COMPARED, FAMILY):  # else the family that was shown last takes the place of these
        st.session_state.pop(key, None)
    several = {COMPARED: list(keys[:MAX_RUNS])} if len(keys) > 1 else {}
    context.go("compare", run=keys[0], **several)


def _choose(run: Run) -> list[Run]:
    runs = context.found().runs
    by_key = {other.key: other for other in runs}
    parent = parent_of(run, runs) or run
    members = [other.key for other in family_of(parent, runs)]
    first = dict.fromkeys([parent.key, run.key, *reversed(members)])  # then the newest
    family = [key for key in members if key in list(first)[:MAX_RUNS]]
    before = st.session_state.get(FAMILY)
    st.session_state[FAMILY] = (parent.key, run.key)
    if before is not None and before[0] != parent.key:  # another run was chosen above: its family is shown
        st.session_state[COMPARED] = family
    if COMPARED in st.session_state:
        kept = [key for key in st.session_state[COMPARED] if key in by_key]
        if before is not None and before[1] != run.key and run.key not in kept:  # another one of the same family
            kept = [*kept[: MAX_RUNS - 1], run.key]
        st.session_state[COMPARED] = kept
    chosen = st.multiselect(
        "Runs side by side",
        list(by_key),
        default=family,
        max_selections=MAX_RUNS,
        key=COMPARED,
        bind="query-params",
        help=f"At the start: the run, and those retrained from it (pruned, and uniform with the same total). At most "
        f"{MAX_RUNS}.",
    )
    left = len(set(members) - set(chosen))
    if left and len(members) > MAX_RUNS:
        st.caption(f"{left} more of this family can be chosen; at most {MAX_RUNS} are shown side by side.")
    if len(family) == 1 and chosen == family:
        st.info("No run has been made from this one yet. The Budget page retrains it pruned, and uniform beside it.")
    return [by_key[key] for key in chosen]


def _warn(compared: list[Run]) -> None:
    tasks = {other.info.task for other in compared}
    if len(tasks) > 1:
        st.warning(
            f"These runs are of different tasks ({context.plain(', '.join(sorted(tasks)))}): metrics do not compare."
        )
    elif len({other.info.metric_name for other in compared}) > 1:
        st.warning("These runs have different metrics: the numbers do not compare.")
    elif len({other.info.data_hash for other in compared}) > 1:
        st.warning("These runs were trained on different data: metrics do not compare.")
    unfinished = [other.key for other in compared if other.status != "finished"]
    if unfinished:
        st.warning(f"Not finished, so not comparable yet: {context.plain(', '.join(unfinished))}.")


def _fold(compared: list[Run]) -> list[Group]:
    groups = folded(compared)
    if len(groups) == len(compared):
        return single(compared)
    fold = st.toggle(
        "Fold runs that differ only by seed",
        value=True,
        key="fold",
        bind="query-params",
        help=f"On: such runs are one bar, point and line, their mean with a {CONFIDENCE:.0%} interval (Student's t). "
        "The interval is about the mean over seeds, not about a single run, and knows nothing of other data. "
        "Off: every run by itself.",
    )
    return groups if fold else single(compared)


def _compared(group: Group) -> ComparedRun:
    info = group.runs[0].info
    return ComparedRun(
        group.name,
        estimate([run.metric() for run in group.runs]),
        info.num_trained_parameters,
        info.total_tokens,
        estimate([run.info.seconds for run in group.runs]),
    )


def _profiles(groups: list[Group]) -> None:
    kind = context.choose(
        "Layers",
        list(PROFILES),
        "profile",
        "mean weight",
        help="mean weight: mean token gate x |layer scale|, averaged over a layer's virtual tokens. share of gate "
        "mass: what part of all weights is in the layer, so that runs with different lengths compare. Both are means "
        "over the last tenth of the recorded steps. Neither says what a layer is worth.",
    )
    lines = []
    for index, group in enumerate(groups):
        found = [gates for run in group.runs if (gates := open_gates(run)) is not None]
        try:
            weights = [weights_of(gates) for gates in found]
        except (AptError, OSError) as problem:
            st.error(f"The gates of {context.plain(group.name)} cannot be read: {context.plain(problem)}")
            continue
        if weights:
            lines.append(ComparedProfile(group.name, *profile(weights, kind), index))
    show_figure(
        compared_profiles_figure(ComparedProfiles(lines, kind)),
        "profiles",
        "layer-profiles",
        lambda: profiles_table(line[:3] for line in lines),
        "Runs without token gates and layer scales have weight 1 everywhere.",
    )


def _settings(groups: list[Group]) -> None:
    st.subheader("Settings that differ")
    table = settings_table(groups)
    if not table:
        st.caption("None." if len(groups) > 1 else "There is one run, or one group of seeds: nothing to differ from.")
        return
    frame = pd.DataFrame({"setting": list(table), **_columns(groups, table)})
    st.dataframe(frame, hide_index=True, width="stretch", key="settings")
    show_downloads("settings", "settings", lambda: frame)


def _columns(groups: list[Group], table: dict[str, list[str]]) -> dict[str, list[str]]:
    return {group.name: [values[index] for values in table.values()] for index, group in enumerate(groups)}


def _table(compared: list[Run]) -> None:
    st.subheader("All numbers")
    table = pd.DataFrame([_row(other) for other in compared])
    counts = ("trained parameters", "of which prefix", "gates and scales", "head")
    st.dataframe(
        table,
        hide_index=True,
        width="stretch",
        column_config={name: st.column_config.NumberColumn(format="localized") for name in counts},
    )
    show_downloads("numbers", "runs", lambda: table)
    if len({other.info.seed for other in compared}) < len(compared):
        st.caption(
            "Where there is one run each, differences of a few points can be the seed's. Repeat with other seeds "
            "before you decide; they are then folded into a mean with an interval."
        )


def _bars_table(bars: list[ComparedRun]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "run": bar.name,
            "metric": bar.metric.mean,
            "metric_interval_half": bar.metric.half,
            "runs_measured": bar.metric.count,
            "trained_parameters": bar.trained_parameters,
            "virtual_tokens": bar.prefix_tokens,
            "seconds": bar.seconds.mean,
            "seconds_interval_half": bar.seconds.half,
        }
        for bar in bars
    )


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
