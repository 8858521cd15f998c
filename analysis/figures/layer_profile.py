"""Mean of a quantity per layer, with its two spreads: over the layer's virtual tokens and over the batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from analysis.figures.theme import DARKER, LIGHTER, colour, drawn, empty_figure
from analysis.gate_stats import LayerProfile

ASIDE = 0.18
"""how far from the middle of its bar a spread is drawn, in bar distances"""


class ProfileData(NamedTuple):
    """What is drawn."""

    profile: LayerProfile  # [L] each
    unit: str
    title: str


def layer_profile_figure(data: ProfileData) -> go.Figure:
    """One bar per layer; two error bars of one standard deviation each, named in the legend."""
    profile = data.profile
    if not np.isfinite(profile.mean).any():
        return empty_figure(data.title, "this run has no virtual tokens")
    layers = np.arange(1, len(profile.mean) + 1, dtype=np.int32)
    mean = profile.mean.astype(np.float32)
    bars = {
        "type": "bar",
        "x": layers,
        "y": mean,
        "name": "mean over the layer's virtual tokens",
        "marker": {"color": colour(0)},
        "hovertemplate": "layer %{x}<br>mean %{y:.4g}<extra></extra>",
    }
    spreads = [
        {
            "type": "scatter",
            "x": (layers + aside).astype(np.float32),
            "y": mean,
            "name": name,
            "mode": "markers",
            "marker": {"size": 5, "color": shade, "symbol": symbol},
            "error_y": {"type": "data", "array": spread.astype(np.float32), "color": shade, "thickness": 2, "width": 3},
            "customdata": layers,
            "hovertemplate": f"layer %{{customdata}}<br>{name}: %{{error_y.array:.3g}}<extra></extra>",
        }
        for aside, spread, name, shade, symbol in (
            (-ASIDE, profile.over_tokens, "± 1 SD over virtual tokens", DARKER, "diamond"),
            (ASIDE, profile.over_batch, "± 1 SD over the batch", LIGHTER, "circle"),
        )
    ]
    x = {"title": "layer (1: nearest the input)", **({"dtick": 1} if len(layers) <= 24 else {})}
    return drawn([bars, *spreads], data.title, 380, x, {"title": data.unit, "rangemode": "tozero"})
