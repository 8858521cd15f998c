"""Gates: which layers and virtual tokens a run uses, at any recorded step."""

from __future__ import annotations

import numpy as np
import streamlit as st

from analysis.figures.heatmap import heatmap, heatmap_figure
from analysis.figures.layer_profile import ProfileData, layer_profile_figure
from analysis.figures.token_traces import TokenTraces, token_traces_figure
from analysis.figures.training_curve import training_curve, training_curve_figure
from analysis.gate_stats import QUANTITIES, heaviest_tokens, layer_profile, quantity
from analysis.pages import context
from analysis.runs import Run
from apt_core.errors import AptError


def show() -> None:
    st.title("Gates")
    run = context.choose_run("Run")
    if run is None:
        return
    _facts(run)
    columns = context.gates_of(run)
    if columns is None:
        return
    _figures(run, columns)
    try:
        st.plotly_chart(
            training_curve_figure(training_curve(run.metrics(), run.info.metric_name)), width="stretch", key="training"
        )
    except AptError as problem:
        st.error(context.plain(problem))
    with st.expander("How this run was made"):
        st.code(run.info.command or "made through the Python API", language="bash")
        st.json(run.info.model_dump(exclude={"command"}), expanded=False)


def _facts(run: Run) -> None:
    info = run.info
    cells = st.columns(5)
    value = run.metric()
    cells[0].metric(f"validation {info.metric_name or 'metric'}", "not yet" if value is None else f"{value:.3f}")
    cells[1].metric("virtual tokens", info.total_tokens, help="Over all layers.")
    cells[2].metric(
        "trained parameters", f"{info.num_trained_parameters:,}", help="Prefix, gates, scales and task head."
    )
    cells[3].metric("method", run.method)
    cells[4].metric("status", run.status, help="Decided from the process and its heartbeat, not from a file alone.")
    if run.status == "failed" and info.error:
        st.error(f"This run failed: {context.plain(info.error)}")
    if run.status == "interrupted":
        st.warning("This run was interrupted. `python -m apt_core train --out RUN --resume` goes on with it.")


@st.fragment
def _figures(run: Run, columns: dict[str, np.ndarray]) -> None:
    name = st.segmented_control(
        "Show",
        list(QUANTITIES),
        default="weight",
        required=True,
        key="show",
        bind="query-params",
        help="weight: mean token gate x |layer scale|, what multiplies a virtual token's keys and values (eq. 4). "
        "token gate: between 0 and 1, how far a token is let through. layer scale: one number per layer. "
        "A large weight says that the prefix is let through there, not that it helps: compare with a retrained run.",
    )
    index = _choose_step(columns["step"])
    step = int(columns["step"][index])
    token_gate, layer_scale = columns["token_gate"][index], columns["layer_scale"][index]
    values = quantity(name, token_gate, layer_scale)
    series = quantity(name, columns["token_gate"], columns["layer_scale"])
    largest = float(np.nanmax(series)) if np.isfinite(series).any() else None
    st.plotly_chart(heatmap_figure(heatmap(values, name, step, largest)), width="stretch", key="heatmap")

    left, right = st.columns(2)
    spread_scale = quantity(name, columns["token_gate_std"][index], layer_scale)
    over = "layer scale" not in name
    profile = layer_profile(values, spread_scale if over else np.zeros_like(values))
    data = ProfileData(profile.mean, profile.over_batch, "over batch", QUANTITIES[name], f"Layers at step {step:,}")
    left.plotly_chart(layer_profile_figure(data), width="stretch", key="profile")
    left.caption("Mean over the layer's virtual tokens; bars: one standard deviation over the examples of the batch.")
    with right:
        _traces(name, columns["step"], series, step)


def _choose_step(steps: np.ndarray) -> int:
    """Index of the chosen step; the slider's positions are exactly the recorded steps."""
    if len(steps) == 1:
        return 0
    options = [int(step) for step in steps]
    chosen = st.select_slider(
        "Optimizer step",
        options,
        value=options[-1],
        key="step",
        help="Every recorded step. Click the handle, then the arrow keys go step by step.",
    )
    return options.index(chosen)


def _traces(name: str, steps: np.ndarray, series: np.ndarray, step: int) -> None:
    num_layers, num_tokens = series.shape[1:]
    options = [
        f"{layer + 1}.{token + 1}"
        for layer in range(num_layers)
        for token in range(num_tokens)
        if not np.isnan(series[-1, layer, token])
    ]
    default = [f"{layer + 1}.{token + 1}" for layer, token in heaviest_tokens(series[-1])]
    chosen = st.multiselect(
        "Virtual tokens (layer.token)",
        options,
        default=default,
        max_selections=12,
        key="tokens",
        help="At the start: the heaviest of each layer at the last step.",
    )
    pairs = [tuple(int(part) - 1 for part in label.split(".")) for label in chosen]
    values = np.array([series[:, layer, token] for layer, token in pairs])
    data = TokenTraces(steps, values, [f"layer {label}" for label in chosen], QUANTITIES[name], "Over training", step)
    st.plotly_chart(token_traces_figure(data), width="stretch", key="traces")
