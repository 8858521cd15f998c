"""Importance of layers by several measures beside what leaving the layer out was measured to cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.agreement import Effects, layer_sums
from analysis.figures.theme import DARKER, MUTED, colour, empty_figure, styled
from analysis.verdict import ORDERS
from apt_core.measure_format import IMPORTANCES

TITLE = "Layers: measured effect and importance"


class ImportanceAgreement(NamedTuple):
    """What is drawn."""

    layers: np.ndarray  # [K] numbers of the layers that were left out, counted from 1
    effect: np.ndarray  # [K] nats
    low: np.ndarray  # [K]
    high: np.ndarray  # [K]
    shares: dict[str, np.ndarray]  # key of ``IMPORTANCES`` -> [L] share of the importance of all tokens
    num_layers: int


def importance_agreement(
    importance: Mapping[str, Sequence[Sequence[float]]], effects: Effects | None, num_layers: int
) -> ImportanceAgreement:
    """Shares of the layers by each measure, in the order of ``IMPORTANCES``; what is not finite is left out."""
    shares = {}
    for name in IMPORTANCES:
        sums = layer_sums([list(layer) for layer in importance.get(name, [])])
        if sums.size and np.isfinite(sums).all() and sums.sum() > 0:
            shares[name] = sums / sums.sum()
    if effects is None:
        nothing = np.zeros(0)
        return ImportanceAgreement(np.zeros(0, np.int64), nothing, nothing, nothing, shares, num_layers)
    return ImportanceAgreement(effects.places + 1, effects.mean, effects.low, effects.high, shares, num_layers)


def importance_agreement_figure(data: ImportanceAgreement) -> go.Figure:
    """Above: the rise of the loss with its interval; below, on the same layers: shares of importance."""
    if not data.layers.size and not data.shares:
        return empty_figure(TITLE, "no layer was measured")
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    figure.add_bar(
        x=data.layers,
        y=data.effect,
        name="measured effect",
        marker_color=MUTED,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": data.high - data.effect,
            "arrayminus": data.effect - data.low,
            "color": DARKER,
            "thickness": 2,
        },
        hovertemplate="layer %{x}<br>loss rises by %{y:.4g} nats<extra></extra>",
        row=1,
        col=1,
    )
    for name, shares in data.shares.items():
        index = list(IMPORTANCES).index(name)
        figure.add_scatter(
            x=np.arange(1, data.num_layers + 1),
            y=shares,
            name=ORDERS[name],
            mode="lines+markers",
            line={"color": colour(index), "dash": ("solid", "dash", "dot", "dashdot")[index]},
            marker={"symbol": index, "size": 8},
            hovertemplate=f"{ORDERS[name]}<br>layer %{{x}}: %{{y:.1%}}<extra></extra>",
            row=2,
            col=1,
        )
    figure.update_yaxes(title="loss without the layer<br>- with it (nats)", row=1, col=1)
    figure.update_yaxes(title="share of importance", tickformat=".0%", rangemode="tozero", row=2, col=1)
    ticks = {"dtick": 1} if data.num_layers <= 24 else {}
    figure.update_xaxes(title="layer (1: nearest the input)", **ticks, row=2, col=1)
    return styled(figure, TITLE, height=520).update_layout(showlegend=True)
