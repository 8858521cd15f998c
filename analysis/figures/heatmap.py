"""Layer x virtual token heatmap of one step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from analysis.figures.theme import SEQUENTIAL, empty_figure, styled
from analysis.gate_stats import QUANTITIES, Quantity


class Heatmap(NamedTuple):
    """What is drawn."""

    values: np.ndarray  # [L, P] float32, NaN drawn as a gap
    unit: str  # what a value is
    largest: float  # end of the colour scale, which starts at 0
    title: str


def heatmap(values: np.ndarray, name: Quantity, step: int, largest: float | None = None) -> Heatmap:
    """The heatmap of a quantity at a step.

    Args:
        values: [L, P], NaN where a layer has no such virtual token.
        name: token gates are always drawn from 0 to 1.
        largest: end of the colour scale, so that steps can be compared; None: the largest value.
    """
    if name == "token gate":
        largest = 1.0
    elif largest is None:
        largest = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    return Heatmap(values.astype(np.float32), QUANTITIES[name], largest or 1.0, f"{name.capitalize()} at step {step:,}")


def heatmap_figure(data: Heatmap) -> go.Figure:
    """Layer 1, the one nearest the input, is at the bottom."""
    num_layers, num_tokens = data.values.shape
    if not np.isfinite(data.values).any():
        return empty_figure(data.title, "this run has no virtual tokens")
    figure = go.Figure(
        go.Heatmap(
            z=data.values,
            x=np.arange(1, num_tokens + 1),
            y=np.arange(1, num_layers + 1),
            zmin=0,
            zmax=data.largest,
            colorscale=SEQUENTIAL,
            colorbar={"title": {"text": data.unit, "side": "right"}, "thickness": 14},
            xgap=1 if num_tokens <= 64 else 0,
            ygap=1 if num_layers <= 48 else 0,
            hovertemplate="layer %{y}, virtual token %{x}<br>%{z:.3f}<extra></extra>",
            hoverongaps=False,
        )
    )
    figure.update_xaxes(title="virtual token", constrain="domain", showgrid=False, **_ticks(num_tokens))
    figure.update_yaxes(title="layer (1: nearest the input)", showgrid=False, **_ticks(num_layers))
    return styled(figure, data.title, height=min(720, max(300, 150 + 28 * num_layers)))


def _ticks(count: int) -> dict:
    return {"dtick": 1} if count <= 24 else {"dtick": 8, "tick0": 0}
