"""A metric against the virtual tokens of a budget, one line per way to share it out, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from analysis.figures.comparison import metric_unit
from analysis.figures.theme import MUTED, as_text, colour, drawn, empty_figure
from apt_core.sweep_plan import FULL
from apt_core.sweep_spec import METHODS
from apt_core.sweep_summary import Cell

BESIDE = 0.012
"""how far methods of one total are drawn beside each other, in parts of the largest total"""


class Point(NamedTuple):
    """One cell."""

    total: int
    mean: float
    half: float | None  # half length of the interval; None: there is none
    count: int  # seeds


class SweepLines(NamedTuple):
    """What is drawn."""

    lines: dict[str, list[Point]]
    """method -> its cells, the smallest total first; ``FULL`` is one of them"""
    unit: str


def sweep_lines(cells: Sequence[Cell], split: str) -> SweepLines:
    """The measured cells of one task and learning rate."""
    lines: dict[str, list[Point]] = {}
    for method in (FULL, *METHODS):
        points = [
            Point(cell.total, cell.metric[split].mean, cell.metric[split].half, cell.metric[split].count)
            for cell in cells
            if cell.method == method and cell.metric[split].mean is not None
        ]
        if points:
            lines[method] = sorted(points)
    metric_name = next((cell.metric_name for cell in cells if cell.metric_name), "")
    return SweepLines(lines, metric_unit(metric_name, split))


def sweep_figure(data: SweepLines) -> go.Figure:
    """Methods of one total stand a little beside each other, so that their intervals can be told apart."""
    title = as_text(data.unit[:1].upper() + data.unit[1:])
    if not data.lines:
        return empty_figure(title, "no training has finished yet")
    largest = max(point.total for points in data.lines.values() for point in points)
    methods = [method for method in data.lines if method != FULL]
    traces = []
    for method, points in data.lines.items():
        place = 0.0 if method == FULL else methods.index(method) - (len(methods) - 1) / 2
        traces.append(_trace(method, points, place * BESIDE * largest, data.unit))
    x = {"title": "virtual tokens over all layers", "rangemode": "tozero", "nticks": 8}
    return drawn(traces, title, 420, x, {"title": as_text(data.unit)}, showlegend=True)


def _trace(method: str, points: list[Point], aside: float, unit: str) -> dict[str, Any]:
    shade = MUTED if method == FULL else colour(METHODS.index(method))
    halves = [point.half or 0.0 for point in points]
    return {
        "type": "scatter",
        "mode": "markers" if method == FULL else "lines+markers",
        "x": [point.total + aside for point in points],
        "y": [point.mean for point in points],
        "name": as_text(method),
        "text": [f"{point.total} virtual tokens, n = {point.count}" for point in points],
        "marker": {"color": shade, "symbol": "diamond" if method == FULL else "circle", "size": 10},
        "line": {"color": shade, "width": 1.5},
        "error_y": {"type": "data", "array": halves, "thickness": 1.5, "width": 5, "color": shade}
        if any(halves)
        else None,
        "hovertemplate": f"{as_text(method)}, %{{text}}<br>{as_text(unit)} %{{y:.3f}}<extra></extra>",
    }
