"""Layer x virtual token heatmap of what changed between two steps, or differs between two runs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from analysis.figures.theme import DIVERGING, GREY_GROUND, as_text, drawn, empty_figure
from analysis.gate_stats import QUANTITIES, Quantity, finite


class GateDifference(NamedTuple):
    """What is drawn."""

    values: np.ndarray  # [L, P] float32, NaN drawn as a gap
    reach: float  # the colour scale goes from -reach to reach
    unit: str
    title: str
    marked: np.ndarray | None = None  # [L, P] of bool: cells with a dot, such as those that pass a test


def gate_difference(values: np.ndarray, name: Quantity, shown: str, reference: str) -> GateDifference:
    """The difference ``shown`` minus ``reference`` of a quantity, [L, P]; both are names a person reads."""
    known = finite(values)
    reach = float(np.nanmax(np.abs(known))) if np.isfinite(known).any() else 0.0
    unit = f"difference of {QUANTITIES[name]}"
    return GateDifference(known.astype(np.float32), reach or 1.0, unit, f"{name.capitalize()}: {shown} - {reference}")


def gate_difference_figure(data: GateDifference) -> go.Figure:
    """Orange is larger, purple smaller, white equal; 0 is always in the middle of the scale."""
    num_layers, num_tokens = data.values.shape
    if not np.isfinite(data.values).any():
        return empty_figure(as_text(data.title), "no virtual token to draw here")
    cells = {
        "type": "heatmap",
        "z": data.values,
        "x": np.arange(1, num_tokens + 1, dtype=np.int32),
        "y": np.arange(1, num_layers + 1, dtype=np.int32),
        "zmin": -data.reach,
        "zmax": data.reach,
        "zmid": 0,
        "colorscale": DIVERGING,
        "colorbar": {
            "title": {"text": data.unit.replace(" of ", " of<br>"), "side": "right"},
            "thickness": 14,
            "outlinewidth": 0,
            "exponentformat": "power",
        },
        "xgap": 1 if num_tokens <= 64 else 0,
        "ygap": 1 if num_layers <= 48 else 0,
        "hovertemplate": "layer %{y}, virtual token %{x}<br>%{z:+.4g}<extra></extra>",
        "hoverongaps": False,
    }
    traces = [cells]
    if data.marked is not None and data.marked.any():
        layer, token = np.nonzero(data.marked)
        traces.append(
            {
                "type": "scatter",
                "x": (token + 1).astype(np.int32),
                "y": (layer + 1).astype(np.int32),
                "mode": "markers",
                "marker": {"size": 5, "color": "#000", "line": {"color": "#fff", "width": 1}},
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
    bare = {"showgrid": False, "zeroline": False}
    return drawn(
        traces,
        as_text(data.title),
        min(640, max(300, 150 + 24 * num_layers)),
        {"title": "virtual token", "constrain": "domain"} | bare,
        {"title": "layer (1: nearest the input)"} | bare,
        **GREY_GROUND,
    )
