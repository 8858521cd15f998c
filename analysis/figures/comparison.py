"""Runs side by side: what each achieved and what it cost, one figure per measure."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from analysis.figures.theme import MUTED, as_text, colour, empty_figure, ink, styled
from analysis.side_by_side import Estimate, lower_is_better


class ComparedRun(NamedTuple):
    """The bar of one run, or of the mean of runs that differ only by seed, in every figure."""

    name: str
    metric: Estimate
    trained_parameters: int
    prefix_tokens: int
    seconds: Estimate


class Comparison(NamedTuple):
    """One measure of several runs."""

    names: list[str]
    values: list[float | None]  # None: not measured
    unit: str
    shown: str  # format of a value
    halves: list[float | None] | None = None  # half length of each interval; None: of none


def metric_unit(metric_name: str, split: str = "validation") -> str:
    """A metric's name for an axis, with its direction where smaller is better."""
    return f"{split} {metric_name or 'metric'}" + (" (lower is better)" if lower_is_better(metric_name) else "")


def comparisons(runs: list[ComparedRun], metric_name: str) -> list[Comparison]:
    """The four measures: metric, trained parameters, virtual tokens, training time."""
    names = [run.name for run in runs]

    def estimated(of: list[Estimate], unit: str, shown: str) -> Comparison:
        return Comparison(names, [each.mean for each in of], unit, shown, [each.half for each in of])

    return [
        estimated([run.metric for run in runs], metric_unit(metric_name), ".3f"),
        Comparison(names, [run.trained_parameters for run in runs], "trained parameters", ",.0f"),
        Comparison(names, [run.prefix_tokens for run in runs], "virtual tokens", ",.0f"),
        estimated([run.seconds for run in runs], "training (seconds)", ",.0f"),
    ]


def comparison_figure(data: Comparison) -> go.Figure:
    """Horizontal bars, the runs in the order given, from the top; intervals where there are any."""
    title = data.unit[:1].upper() + data.unit[1:]
    if not data.names:
        return empty_figure(as_text(title), "choose at least one run")
    halves = data.halves or [None] * len(data.names)
    figure = go.Figure(
        go.Bar(
            y=[as_text(name) for name in data.names],
            x=data.values,
            orientation="h",
            marker_color=[colour(index) for index in range(len(data.names))],
            error_x={"type": "data", "array": halves, "color": MUTED, "thickness": 2} if any(halves) else None,
            text=[_value(*pair, data.shown) for pair in zip(data.values, halves, strict=True)],
            textposition="auto" if not any(halves) else "inside",
            insidetextanchor="start",
            insidetextfont={"color": [ink(index) for index in range(len(data.names))]},
            textangle=0,
            hovertemplate=f"%{{y}}<br>{as_text(data.unit)}: %{{text}}<extra></extra>",
        )
    )
    figure.update_xaxes(title=as_text(data.unit), rangemode="tozero", nticks=5)
    figure.update_yaxes(autorange="reversed", automargin=True, type="category")
    return styled(figure, as_text(title), height=130 + 40 * len(data.names)).update_layout(showlegend=False)


def _value(value: float | None, half: float | None, shown: str) -> str:
    if value is None:
        return "not measured"
    return format(value, shown) + (f" ± {format(half, shown)}" if half is not None else "")
