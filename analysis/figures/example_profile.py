"""The gates of one example beside those of all: how far each layer is from its mean, and how far others usually are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from analysis.figures.theme import MUTED, as_text, colour, drawn, empty_figure


class ExampleProfile(NamedTuple):
    """What is drawn."""

    deviation: np.ndarray  # [L] the example's gate minus the mean over all; NaN without a prefix
    spread: np.ndarray  # [L] standard deviation over all examples
    gate: np.ndarray  # [L] the example's gate
    title: str


def example_profile(gates: np.ndarray, index: int, name: str) -> ExampleProfile:
    """The profile of one of ``gates`` [N, L], called ``name``."""
    known = np.where(np.isfinite(gates), gates, np.nan)
    present = np.isfinite(known).any(axis=0)
    mean, spread = (np.full(gates.shape[1], np.nan) for _ in range(2))
    mean[present] = np.nanmean(known[:, present], axis=0)
    spread[present] = np.nanstd(known[:, present], axis=0)
    return ExampleProfile(known[index] - mean, spread, known[index], f"{name}: gates against the mean of all examples")


def example_profile_figure(data: ExampleProfile) -> go.Figure:
    """Points for the example, bars from -1 to 1 standard deviation for all."""
    if not np.isfinite(data.deviation).any():
        return empty_figure(as_text(data.title), "this example has no gates")
    layers = np.arange(1, len(data.deviation) + 1, dtype=np.int32)
    traces = [
        {
            "type": "bar",
            "x": layers,
            "y": 2 * data.spread,
            "base": -data.spread,
            "name": "± 1 SD over all examples",
            "marker": {"color": MUTED, "opacity": 0.4},
            "hovertemplate": "layer %{x}: ± %{customdata:.3g} over all examples<extra></extra>",
            "customdata": data.spread,
        },
        {
            "type": "scatter",
            "x": layers,
            "y": data.deviation,
            "name": "this example",
            "mode": "markers",
            "marker": {"size": 10, "color": colour(0)},
            "customdata": data.gate,
            "hovertemplate": "layer %{x}: %{y:+.3g} (gate %{customdata:.4f})<extra></extra>",
        },
    ]
    x = {"title": "layer (1: nearest the input)", **({"dtick": 1} if len(layers) <= 24 else {})}
    y = {"title": "mean token gate - mean of all", "exponentformat": "power"}
    return drawn(traces, as_text(data.title), 360, x, y, showlegend=True)
