"""Metric against cost: every group of seeds with its interval, the Pareto front and its knee."""

from __future__ import annotations

from typing import Any, NamedTuple

import plotly.graph_objects as go

from analysis.figures.theme import MUTED, as_text, colour, drawn, empty_figure
from analysis.investment import Investment, Option
from apt_core.metric_names import lower_is_better

TITLE = "What it buys"


class Panel(NamedTuple):
    """What is drawn."""

    others: list[Option]
    front: list[Option]
    knee: Option | None
    cost_unit: str
    metric_unit: str


def investment_panel(found: Investment, cost_unit: str, metric_name: str, split: str) -> Panel:
    """Parts an investment into what is on the front and what is not."""
    on_front = set(found.front)
    return Panel(
        [option for place, option in enumerate(found.options) if place not in on_front],
        [found.options[place] for place in found.front],
        found.knee.option if found.knee else None,
        cost_unit,
        f"{split} {metric_name}" + (" (lower is better)" if lower_is_better(metric_name) else ""),
    )


def investment_figure(data: Panel) -> go.Figure:
    """Error bars only where there are several seeds; the front is a line through means."""
    if not data.front:
        return empty_figure(TITLE, "no run of this task has been measured yet")
    traces = [
        _points(data.others, "not on the front", MUTED, "circle-open", data, "markers"),
        _points(data.front, "Pareto front", colour(0), "circle", data, "lines+markers"),
    ]
    if data.knee is not None:
        ring = {"symbol": "circle-open", "size": 24, "color": colour(5), "line": {"width": 3}}
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [data.knee.cost],
                "y": [data.knee.metric.mean],
                "name": "knee",
                "marker": ring,
                "hoverinfo": "skip",
            }
        )
    return drawn(
        traces,
        TITLE,
        440,
        {"title": as_text(data.cost_unit), "rangemode": "tozero", "nticks": 7},
        {"title": as_text(data.metric_unit)},
        showlegend=True,
    )


def _points(options: list[Option], name: str, shade: str, symbol: str, data: Panel, mode: str) -> dict[str, Any]:
    halves = [option.metric.half for option in options]
    return {
        "type": "scatter",
        "mode": mode,
        "x": [option.cost for option in options],
        "y": [option.metric.mean for option in options],
        "name": name,
        "text": [f"{as_text(option.name)}<br>n = {option.metric.count}" for option in options],
        "marker": {"color": shade, "symbol": symbol, "size": 11},
        "line": {"color": shade, "width": 1.5},
        "error_y": {"type": "data", "array": [half or 0 for half in halves], "thickness": 1.5, "color": shade}
        if any(halves)
        else None,
        "hovertemplate": f"%{{text}}<br>%{{x:,}} {as_text(data.cost_unit)}<br>%{{y:.3f}}<extra></extra>",
    }
