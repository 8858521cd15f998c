"""Mean of a quantity per layer, with its spread."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from analysis.figures.theme import MUTED, colour, empty_figure, styled


class ProfileData(NamedTuple):
    """What is drawn."""

    mean: np.ndarray  # [L]
    spread: np.ndarray  # [L] half length of the error bars
    spread_name: str
    unit: str
    title: str


def layer_profile_figure(data: ProfileData) -> go.Figure:
    """One bar per layer; error bars of one standard deviation."""
    if not np.isfinite(data.mean).any():
        return empty_figure(data.title, "this run has no virtual tokens")
    layers = np.arange(1, len(data.mean) + 1)
    figure = go.Figure(
        go.Bar(
            x=layers,
            y=data.mean,
            error_y={"type": "data", "array": data.spread, "color": MUTED, "thickness": 1.5},
            marker_color=colour(0),
            hovertemplate=f"layer %{{x}}<br>mean %{{y:.3f}}, {data.spread_name} %{{error_y.array:.3f}}<extra></extra>",
        )
    )
    figure.update_xaxes(title="layer", **({"dtick": 1} if len(layers) <= 24 else {}))
    figure.update_yaxes(title=data.unit, rangemode="tozero")
    return styled(figure, data.title, height=320)
