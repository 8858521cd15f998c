"""A quantity of chosen virtual tokens over training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from analysis.figures.theme import MUTED, colour, drawn, empty_figure
from analysis.traces import drawn_points, points_per_line

DASHES = ("solid", "dash", "dot")


class TokenTraces(NamedTuple):
    """What is drawn."""

    positions: np.ndarray  # [S] on the x axis
    values: np.ndarray  # [S, n] one column per chosen token
    names: list[str]  # n
    axis: str  # what the x axis is, with its unit
    unit: str
    title: str
    marked: float  # place on the x axis, drawn as a vertical line


def token_traces_figure(data: TokenTraces) -> go.Figure:
    """One line per virtual token; of more steps than are drawn each interval's smallest and largest value."""
    at_most = points_per_line(len(data.names))
    if not len(data.positions) or not data.names:
        return empty_figure(data.title, "choose at least one virtual token")
    lines = []
    for index, name in enumerate(data.names):
        series = data.values[:, index].astype(np.float32)
        kept = drawn_points(series, at_most)
        lines.append(
            {
                "type": "scatter",
                "x": data.positions[kept].astype(np.float32 if data.positions.dtype.kind == "f" else np.int32),
                "y": series[kept],
                "name": name,
                "mode": "lines+markers" if len(kept) == 1 else "lines",
                "line": {"color": colour(index), "dash": DASHES[index // 8 % len(DASHES)]},
                "hovertemplate": f"{name}<br>{data.axis} %{{x}}: %{{y:.4g}}<extra></extra>",
            }
        )
    mark = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": data.marked, "x1": data.marked}
    return drawn(
        lines,
        data.title,
        380,
        {"title": data.axis},
        {"title": data.unit, "rangemode": "tozero"},
        shapes=[mark | {"line": {"color": MUTED, "dash": "dot", "width": 1}}],
    )
