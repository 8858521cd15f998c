"""The panels of the Gates page: heatmap, layer profile and traces, all at one step of one run."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import streamlit as st

from analysis.figures.heatmap import Window, heatmap, heatmap_figure
from analysis.figures.layer_profile import ProfileData, layer_profile_figure
from analysis.figures.token_traces import TokenTraces, token_traces_figure
from analysis.gate_stats import QUANTITIES, Quantity, batch_spread, layer_profile, not_finite, quantity
from analysis.pages import context
from analysis.pages.charts import show_figure
from analysis.pages.gate_data import Gates, WholeRun, metrics_of, trace_of
from analysis.runs import Run
from analysis.tables import cells_table, profile_table, traces_table
from analysis.traces import AXES, axes_of, chosen_tokens, points_per_line, positions, smoothed, step_window, token_label
from apt_core.errors import AptError
from apt_core.gate_log import GateRow

LARGE_LAYERS, LARGE_TOKENS = 24, 64
MAX_TRACES = 12
TRACES_AT_FIRST = 6
SMOOTHING = {"none": 1, "10 steps": 10, "50 steps": 50, "200 steps": 200}
TOKENS, TOKENS_OF = "tokens", "tokens_of"
"""session state: virtual tokens whose traces are drawn; (run, those that are drawn at first)"""
SHOW_HELP = (
    "weight: mean token gate x |layer scale|, what multiplies a virtual token's keys and values (eq. 4 of the paper). "
    "token gate: between 0 and 1, how far a token is let through, averaged over the batch. layer scale: one number "
    "per layer. A large weight says that the prefix is let through there, not that it helps: compare with a "
    "retrained run."
)


class View(NamedTuple):
    """What the controls above the panels say."""

    name: Quantity
    logarithmic: bool
    ordered: bool


def choose_view() -> View:
    """Quantity, colour scale and order of the tokens."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = context.choose("Show", list(QUANTITIES), "show", "weight", help=SHOW_HELP)
        scale = context.choose(
            "Colours",
            ["linear", "log"],
            "scale",
            "linear",
            help="linear: equal differences look equally far apart. log: equal ratios do, over at most three decades; "
            "what is smaller has the darkest colour.",
        )
        order = context.choose(
            "Tokens",
            ["in place", "heaviest first"],
            "order",
            "in place",
            help="heaviest first: within each layer by falling value at this step, so a column is no longer one "
            "token; pointing at a cell still names the token it is.",
        )
    return View(name, scale == "log", order == "heaviest first")


def show_heatmap(run: Run, gates: Gates, whole: WholeRun, view: View, row: GateRow) -> None:
    """The heatmap of one step."""
    values = quantity(view.name, row.token_gate, row.layer_scale)
    window = _choose_window(gates)
    data = heatmap(
        values,
        view.name,
        row.step,
        whole.largest[view.name],
        colour_start=whole.smallest_positive[view.name],
        logarithmic=view.logarithmic,
        ordered=view.ordered,
        window=window,
    )
    lost = not_finite(values, gates.prefix_lengths)
    if lost:
        st.warning(f"{lost} values of this step are NaN or infinite and drawn as gaps: the training diverged here.")
    show_figure(
        heatmap_figure(data),
        "heatmap",
        f"{run.name}-{view.name}-step-{row.step}",
        lambda: cells_table(
            row.step,
            weight=quantity("weight", row.token_gate, row.layer_scale),
            token_gate=row.token_gate,
            token_gate_sd_over_batch=row.token_gate_std,
            layer_scale=quantity("layer scale", row.token_gate, row.layer_scale),
        ),
        "One colour scale for the whole training, " + whole.basis + "." if view.name != "token gate" else "",
    )


def _choose_window(gates: Gates) -> Window:
    """Range sliders where a run is large; they hold while a figure is redrawn, which zooming does not."""
    num_layers, num_tokens = gates.log.num_layers, gates.log.num_virtual_tokens
    layers, tokens = (1, num_layers), (1, num_tokens)
    left, right = st.columns(2) if num_layers > LARGE_LAYERS or num_tokens > LARGE_TOKENS else (None, None)
    if num_layers > LARGE_LAYERS:
        layers = left.slider("Layers shown", 1, num_layers, layers, key="layers_shown", bind="query-params")
    if num_tokens > LARGE_TOKENS:
        tokens = right.slider("Virtual tokens shown", 1, num_tokens, tokens, key="tokens_shown", bind="query-params")
    return Window((layers[0] - 1, layers[1]), (tokens[0] - 1, tokens[1]))


def show_profile(run: Run, view: View, row: GateRow) -> None:
    """Each layer as a whole at one step."""
    values = quantity(view.name, row.token_gate, row.layer_scale)
    profile = layer_profile(values, batch_spread(view.name, row.token_gate_std, row.layer_scale))
    show_figure(
        layer_profile_figure(ProfileData(profile, QUANTITIES[view.name], f"Layers at step {row.step:,}")),
        "profile",
        f"{run.name}-layers-step-{row.step}",
        lambda: profile_table(row.step, profile),
        "SD: standard deviation. Over virtual tokens: how unlike a layer's tokens are. Over the batch: how unlike one "
        "token's gate is from example to example, averaged over the layer; it says nothing about other data.",
    )


def show_traces(run: Run, gates: Gates, whole: WholeRun, view: View, step: int) -> None:
    """Chosen virtual tokens over training."""
    heaviest = [token_label(*token) for token in whole.suggested]
    at_first = [token_label(*token) for token in whole.heaviest[:TRACES_AT_FIRST]]
    _forget_other_tokens(run, gates, at_first)
    labels = st.multiselect(
        "Virtual tokens (layer.token)",
        heaviest,
        default=at_first,
        max_selections=MAX_TRACES,
        accept_new_options=True,
        filter_mode="prefix",
        key=TOKENS,
        bind="query-params",
        help="Offered: the heaviest of each layer at the end. Any other can be typed, such as 5.12 for token 12 of "
        "layer 5.",
    )
    chosen = chosen_tokens(labels, gates.prefix_lengths)
    if chosen.refused:
        st.warning(
            f"Not a virtual token of this run: {context.plain(', '.join(chosen.refused))}. Write layer.token, such as "
            "1.1, with numbers that the run has."
        )
    try:
        rows = metrics_of(run)
    except (AptError, OSError):
        rows = []  # said where the training curve would be
    with st.container(horizontal=True, vertical_alignment="bottom"):
        axis = st.selectbox(
            "X axis",
            axes_of(rows),
            key="axis",
            bind="query-params",
            width=140,
            help="Epochs and seconds are logged every few steps; between two lines they are taken to run evenly.",
        )
        smoothing = st.selectbox(
            "Smoothing",
            list(SMOOTHING),
            key="smoothing",
            bind="query-params",
            width=140,
            help="The mean over that many neighbouring recorded steps, the step itself in the middle. It hides how "
            "much a gate changes from batch to batch.",
        )
    first, last = _choose_steps(gates)
    part = step_window(gates.steps, first, last)
    steps = gates.steps[part]
    series = trace_of(gates, tuple(chosen.tokens), view.name)
    names = [token_label(*token) for token in chosen.tokens]
    title = "Over training" if smoothing == "none" else f"Over training, mean over {smoothing}"
    data = TokenTraces(
        positions(steps, rows, axis),
        smoothed(series, SMOOTHING[smoothing])[part],
        [f"layer {name}" for name in names],
        AXES[axis],
        QUANTITIES[view.name],
        title,
        float(positions(np.array([step]), rows, axis)[0]),
    )

    def as_drawn() -> dict[str, np.ndarray]:
        """What the figure has beside the recorded values."""
        found = {} if axis == "step" else {axis: positions(gates.steps, rows, axis)}
        if smoothing != "none":
            found[f"mean over {smoothing}"] = smoothed(series, SMOOTHING[smoothing])
        return found

    about, at_most = f"Every one of the {len(steps):,} recorded steps.", points_per_line(len(names))
    if len(steps) > at_most:
        about = (
            f"Of {len(steps):,} recorded steps, {at_most} points a line: the smallest and the largest value of each "
            "interval. From step and to step show every one. The download holds all."
        )
    show_figure(
        token_traces_figure(data),
        "traces",
        f"{run.name}-{view.name}-traces",
        lambda: traces_table(gates.steps, series, names, view.name, **as_drawn()),
        about,
    )


def _forget_other_tokens(run: Run, gates: Gates, at_first: list[str]) -> None:
    """When another run is shown, the tokens that a person chose stay, if it has them; the last run's own do not."""
    before = st.session_state.get(TOKENS_OF)
    st.session_state[TOKENS_OF] = (run.key, at_first)
    if before is None or before[0] == run.key or TOKENS not in st.session_state:
        return
    labels = st.session_state[TOKENS]
    if labels == before[1] or chosen_tokens(labels, gates.prefix_lengths).refused:
        st.session_state[TOKENS] = at_first


def _choose_steps(gates: Gates) -> tuple[int, int]:
    first, last = int(gates.steps[0]), int(gates.steps[-1])
    if len(gates.steps) <= points_per_line(MAX_TRACES):
        return first, last
    with st.container(horizontal=True):
        start = st.number_input(
            "From step",
            min_value=0,
            value=None,
            key="from",
            bind=context.bind("from"),
            placeholder=f"{first:,}",
            width=140,
        )
        stop = st.number_input(
            "To step", min_value=0, value=None, key="to", bind=context.bind("to"), placeholder=f"{last:,}", width=140
        )
    return first if start is None else start, last if stop is None else stop
