"""When each gate settled: layer x virtual token heatmap of steps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from analysis.figures.theme import GREY_GROUND, drawn, empty_figure
from analysis.settling import Settling

EARLY_TO_LATE = [[0, "#08306b"], [0.5, "#4292c6"], [1, "#c6dbef"]]
UNSETTLED = "#E69F00"
"""orange against blues: the pair that every colour deficiency leaves apart"""
TITLE = "When each weight settled"


class SettlingMap(NamedTuple):
    """What is drawn."""

    step: np.ndarray  # [L, P] float32, NaN where not settled or absent
    unsettled: np.ndarray  # [L, P] bool
    last_step: int  # end of the colour scale


def settling_map(settled: Settling, last_step: int) -> SettlingMap:
    """The map of a settling of single weights."""
    return SettlingMap(settled.step.astype(np.float32), settled.unsettled, last_step)


def settling_figure(data: SettlingMap) -> go.Figure:
    """Early is dark blue, late is light blue, orange has not settled."""
    num_layers, num_tokens = data.step.shape
    if not np.isfinite(data.step).any() and not data.unsettled.any():
        return empty_figure(TITLE, "there is nothing to say yet")
    cells = {
        "type": "heatmap",
        "x": np.arange(1, num_tokens + 1, dtype=np.int32),
        "y": np.arange(1, num_layers + 1, dtype=np.int32),
        "xgap": 1 if num_tokens <= 64 else 0,
        "ygap": 1 if num_layers <= 48 else 0,
        "hoverongaps": False,
    }
    unsettled = cells | {
        "z": np.where(data.unsettled, 1, np.nan).astype(np.float32),
        "colorscale": [[0, UNSETTLED], [1, UNSETTLED]],
        "showscale": False,
        "hovertemplate": "layer %{y}, virtual token %{x}<br>not settled<extra></extra>",
    }
    settled = cells | {
        "z": data.step,
        "zmin": 0,
        "zmax": data.last_step,
        "colorscale": EARLY_TO_LATE,
        "colorbar": {"title": {"text": "settled at step", "side": "right"}, "thickness": 14, "outlinewidth": 0},
        "hovertemplate": "layer %{y}, virtual token %{x}<br>settled at step %{z:,.0f}<extra></extra>",
    }
    bare = {"showgrid": False, "zeroline": False}
    return drawn(
        [unsettled, settled],
        TITLE,
        min(640, max(300, 150 + 24 * num_layers)),
        {"title": "virtual token", "constrain": "domain"} | bare,
        {"title": "layer (1: nearest the input)"} | bare,
        **GREY_GROUND,
    )
