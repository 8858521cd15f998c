"""Deletion curves: what the model loses while virtual tokens are taken away, in several orders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import plotly.graph_objects as go

from analysis.curves import complete_examples, curves_by_order, loss_table, metrics_of
from analysis.figures.comparison import metric_unit
from analysis.figures.theme import MUTED, as_text, colour, drawn, empty_figure
from analysis.verdict import ORDERS
from apt_core.measure_format import IMPORTANCES, REVERSED, Curve, Measures

TITLE = "Taking virtual tokens away"
BAND = "rgba(138,148,163,0.25)"
Quantity = Literal["loss", "metric"]


class DeletionLine(NamedTuple):
    """One order of taking away."""

    name: str
    removed: np.ndarray  # [K] virtual tokens taken away, rising
    values: np.ndarray  # [K]
    colour: int
    reverse: bool


class DeletionCurves(NamedTuple):
    """What is drawn."""

    lines: list[DeletionLine]
    removed: np.ndarray  # [K] of the random orders; empty: none were measured
    random: np.ndarray  # [R, K] one row per random order
    total: int  # virtual tokens
    unit: str


def deletion_curves(measures: Measures, orders: Sequence[str], quantity: Quantity) -> DeletionCurves:
    """Picks the curves of some orders, and all random ones.

    Args:
        measures: of a run.
        orders: as in ``Curve.order``; those that were not measured are passed over.
        quantity: loss is averaged over the examples that have one at every point; metric is as measured.
    """
    named, random = curves_by_order(measures)
    complete = complete_examples(measures)

    def values(curve: Curve) -> np.ndarray:
        if quantity == "metric":
            return metrics_of(curve)
        losses = loss_table(curve.points)[:, complete]
        return losses.mean(axis=1) if complete.any() else np.full(len(losses), np.nan)

    total = sum(measures.prefix_lengths)
    lines = [
        DeletionLine(
            order_name(name),
            total - np.array(named[name].kept),
            values(named[name]),
            list(IMPORTANCES).index(name.removesuffix(REVERSED)),
            name.endswith(REVERSED),
        )
        for name in orders
        if name in named
    ]
    random = [curve for curve in random if curve.kept == random[0].kept]
    unit = f"{measures.split} loss (nats)" if quantity == "loss" else metric_unit(measures.metric_name, measures.split)
    return DeletionCurves(
        lines,
        total - np.array(random[0].kept if random else [], dtype=np.int64),
        np.array([values(curve) for curve in random]),
        total,
        unit,
    )


def order_name(order: str) -> str:
    """An order of ``Curve.order`` in words."""
    name = ORDERS[order.removesuffix(REVERSED)]
    return f"{name}, {'most' if order.endswith(REVERSED) else 'least'} important first"


def deletion_curves_figure(data: DeletionCurves) -> go.Figure:
    """Solid with dots: least important first; dashed: the reverse; grey: mean and range of random orders."""
    random = data.random[:, np.isfinite(data.random).all(axis=0)] if data.random.size else data.random
    if not any(np.isfinite(line.values).any() for line in data.lines) and not random.size:
        return empty_figure(TITLE, "no curve was measured, or none has a finite value")
    traces = []
    if random.size:
        removed = data.removed[np.isfinite(data.random).all(axis=0)]
        low, high = random.min(axis=0), random.max(axis=0)
        traces = [
            {
                "type": "scatter",
                "x": np.concatenate([removed, removed[::-1]]),
                "y": np.concatenate([high, low[::-1]]),
                "fill": "toself",
                "fillcolor": BAND,
                "line": {"width": 0},
                "hoverinfo": "skip",
                "name": f"range of {len(random)} random orders",
            },
            {
                "type": "scatter",
                "x": removed,
                "y": random.mean(axis=0),
                "name": "random, mean",
                "mode": "lines",
                "line": {"color": MUTED, "dash": "dot", "width": 3},
                "hovertemplate": "random, mean<br>%{x} taken away: %{y:.4g}<extra></extra>",
            },
        ]
    traces += [
        {
            "type": "scatter",
            "x": line.removed,
            "y": line.values,
            "name": as_text(line.name),
            "mode": "lines+markers",
            "line": {"color": colour(line.colour), "dash": "dash" if line.reverse else "solid"},
            "marker": {"symbol": "circle-open" if line.reverse else "circle", "size": 7},
            "hovertemplate": f"{as_text(line.name)}<br>%{{x}} taken away: %{{y:.4g}}<extra></extra>",
        }
        for line in data.lines
    ]
    x = {"title": f"virtual tokens taken away (of {data.total})", "range": [-0.02 * data.total, 1.02 * data.total]}
    return drawn(traces, TITLE, 440, x, {"title": as_text(data.unit)}, showlegend=True)
