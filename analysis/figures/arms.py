"""A metric by arm of a pilot: every seed's value, and the mean with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from analysis.figures.comparison import metric_unit
from analysis.figures.theme import as_text, colour, drawn, empty_figure
from analysis.pilot_decision import ArmResult

ASIDE = 0.16
"""how far beside its mean a seed's value is drawn, in distances between arms"""


class ArmPoints(NamedTuple):
    """One arm."""

    name: str
    values: list[float]  # one per measured seed
    mean: float
    half: float | None  # half length of the interval; None: there is none


class Arms(NamedTuple):
    """What is drawn."""

    arms: list[ArmPoints]
    unit: str


def arms_by_metric(results: Sequence[ArmResult], metric_name: str, split: str) -> Arms:
    """The arms that were measured, with their virtual tokens in their names."""
    arms = [
        ArmPoints(
            f"{result.arm}, {result.tokens} virtual tokens",
            [value for value in result.values if value is not None],
            result.metric.mean,
            result.metric.half,
        )
        for result in results
        if result.metric.mean is not None
    ]
    return Arms(arms, metric_unit(metric_name, split))


def arms_figure(data: Arms) -> go.Figure:
    """Open circles: seeds; filled diamonds with bars: means with intervals. The axis need not start at 0."""
    title = data.unit[:1].upper() + data.unit[1:]
    if not data.arms:
        return empty_figure(as_text(title), "no training has finished yet")
    places = np.arange(len(data.arms))
    seeds = {
        "type": "scatter",
        "x": np.repeat(places - ASIDE, [len(arm.values) for arm in data.arms]),
        "y": [value for arm in data.arms for value in arm.values],
        "mode": "markers",
        "name": "one seed",
        "marker": {"symbol": "circle-open", "size": 9, "color": colour(4)},
        "hovertemplate": "one seed: %{y:.4g}<extra></extra>",
    }
    means = {
        "type": "scatter",
        "x": places,
        "y": [arm.mean for arm in data.arms],
        "mode": "markers",
        "name": "mean with interval",
        "marker": {"symbol": "diamond", "size": 11, "color": colour(0)},
        "error_y": {
            "type": "data",
            "array": [arm.half or 0.0 for arm in data.arms],
            "color": colour(0),
            "thickness": 2,
            "width": 6,
        },
        "hovertemplate": "mean: %{y:.4g}<extra></extra>",
    }
    x = {
        "tickvals": places,
        "ticktext": [as_text(arm.name) for arm in data.arms],
        "range": [-0.5, len(data.arms) - 0.5],
        "showgrid": False,
    }
    return drawn([seeds, means], as_text(title), 360, x, {"title": as_text(data.unit)})
