"""Gates: which layers and virtual tokens a run uses, at any recorded step, while it trains and after."""

from __future__ import annotations

import streamlit as st

from analysis.figures.training_curve import training_curve, training_curve_figure
from analysis.pages import context, gate_changes, gate_panels
from analysis.pages.charts import choose_image_format, first_figure_is_drawn, show_figure, wait_for_first_figure
from analysis.pages.gate_data import Gates, WholeRun, metrics_of, open_gates, row_at, state_of, whole_run
from analysis.pages.step_control import choose_step, frame_interval
from analysis.runs import Run
from analysis.tables import metrics_table
from apt_core.errors import AptError

REFRESH_SECONDS, IDLE_SECONDS = 2, 8
"""between two looks at a run that trains, and at one that may be gone on with"""
TABS = ("Settling", "Loss and metric")


def show() -> None:
    st.title("Gates")
    run = context.choose_run("Run")
    if run is None:
        return
    choose_image_format()
    live = run.status == "running"
    st.fragment(_watch, run_every=REFRESH_SECONDS if live else IDLE_SECONDS)(run, state_of(run))
    _facts(run, live)
    gates = open_gates(run)
    if gates is not None:
        try:
            whole = whole_run(gates)
            _reading(whole)
            interval = frame_interval()
            st.fragment(_at_one_step, run_every=interval)(run, gates, whole, live, interval)
            if not first_figure_is_drawn():
                wait_for_first_figure()
                return
            st.fragment(_whole_training)(run, whole)
        except (AptError, OSError) as problem:
            st.error(f"The gates of {context.plain(run.key)} cannot be read: {context.plain(problem)}")
    made = st.expander("How this run was made", key="made", bind="query-params")
    if made.open:  # what shows code and JSON is a third of what the browser has to load for this page
        with made:
            st.code(run.info.command or "made through the Python API", language="bash")
            st.json(run.info.model_dump(exclude={"command"}), expanded=False)


def _watch(run: Run, drawn: str) -> None:
    """Draws nothing; when the run's files say something new, the page is drawn again."""
    if state_of(run) != drawn:
        st.rerun()


def _facts(run: Run, live: bool) -> None:
    info = run.info
    cells = st.container(horizontal=True, gap="medium")
    value = run.metric()
    cells.metric(
        f"validation {info.metric_name or 'metric'}",
        "not yet" if value is None else f"{value:.3f}",
        help="Of the step whose adapter was kept, the best one on the validation split; so it flatters a little.",
        width="content",
    )
    cells.metric("virtual tokens", f"{info.total_tokens:,}", help="Over all layers.", width="content")
    cells.metric(
        "trained parameters",
        f"{info.num_trained_parameters:,}",
        help="Prefix, gates, scales and task head.",
        width="content",
    )
    cells.metric("method", run.method, width="content")
    cells.metric(
        "status",
        run.status,
        help="Decided from the process and its heartbeat, not from a file alone.",
        width="content",
    )
    if live and info.total_steps:
        st.progress(
            min(1.0, info.step / info.total_steps),
            text=f"Training: step {info.step:,} of {info.total_steps:,}. New steps appear by themselves, at the latest "
            f"every {REFRESH_SECONDS} seconds.",
        )
    if run.status == "failed" and info.error:
        st.error(f"This run failed: {context.plain(info.error)}")
    if run.status == "interrupted":
        st.warning("This run was interrupted. `python -m apt_core train --out RUN --resume` goes on with it.")


def _reading(whole: WholeRun) -> None:
    with st.container(border=True):
        st.markdown(f"**What these gates show** :small[:gray[{context.plain(whole.basis)}]]")
        for sentence in whole.sentences:
            st.markdown(f"- {context.plain(sentence.text)}", help=context.plain(sentence.definition))


def _at_one_step(run: Run, gates: Gates, whole: WholeRun, live: bool, interval: float | None) -> None:
    """Everything that the step slider moves; a fragment, so that nothing else is drawn again."""
    if frame_interval() != interval:  # Play ended inside this fragment: its clock can stop
        st.rerun()
    view = gate_panels.choose_view()
    step = choose_step(run.key, gates.steps, run.info.total_steps, live)
    try:
        row = row_at(gates, step)
        gate_panels.show_heatmap(run, gates, whole, view, row)
        if not first_figure_is_drawn():
            return
        left, right = st.columns(2)
        with left:
            gate_panels.show_profile(run, view, row)
        with right:
            gate_panels.show_traces(run, gates, whole, view, step)
        differing = st.expander("Difference to another step or run", key="difference", bind="query-params")
        if differing.open:
            with differing:
                gate_changes.show_difference(run, gates, view, row)
    except (AptError, OSError) as problem:
        st.error(f"The gates of {context.plain(run.key)} cannot be read: {context.plain(problem)}")


def _whole_training(run: Run, whole: WholeRun) -> None:
    """What does not depend on the step."""
    settling, training = st.tabs(TABS, key="panel", bind="query-params")
    if settling.open:
        with settling:
            gate_changes.show_settling(run, whole)
    if training.open:
        with training:
            _training(run)


def _training(run: Run) -> None:
    try:
        rows = metrics_of(run)
    except (AptError, OSError) as problem:
        st.error(context.plain(problem))
        return
    show_figure(
        training_curve_figure(training_curve(rows, run.info.metric_name)),
        "training",
        f"{run.name}-training",
        lambda: metrics_table(rows),
    )
