"""Runs side by side: what each achieved and what it cost, one figure per measure."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from analysis.figures.theme import colour, empty_figure, styled


class ComparedRun(NamedTuple):
    """One run's bar in every figure."""

    name: str
    metric: float | None
    trained_parameters: int
    prefix_tokens: int
    seconds: float


class Comparison(NamedTuple):
    """One measure of several runs."""

    names: list[str]
    values: list[float | None]  # None: not measured
    unit: str
    shown: str  # format of a value


def comparisons(runs: list[ComparedRun], metric_name: str) -> list[Comparison]:
    """The four measures: metric, trained parameters, virtual tokens, training time."""
    names = [run.name for run in runs]
    return [
        Comparison(names, [run.metric for run in runs], f"validation {metric_name}", ".3f"),
        Comparison(names, [run.trained_parameters for run in runs], "trained parameters", ",.0f"),
        Comparison(names, [run.prefix_tokens for run in runs], "virtual tokens", ",.0f"),
        Comparison(names, [run.seconds for run in runs], "training (seconds)", ",.0f"),
    ]


def comparison_figure(data: Comparison) -> go.Figure:
    """Horizontal bars, the runs in the order given, from the top."""
    title = data.unit.capitalize()
    if not data.names:
        return empty_figure(title, "choose at least one run")
    figure = go.Figure(
        go.Bar(
            y=data.names,
            x=data.values,
            orientation="h",
            marker_color=[colour(index) for index in range(len(data.names))],
            text=["not measured" if value is None else format(value, data.shown) for value in data.values],
            textposition="auto",
            textangle=0,
            hovertemplate=f"%{{y}}<br>{data.unit}: %{{text}}<extra></extra>",
        )
    )
    figure.update_xaxes(title=data.unit, rangemode="tozero", nticks=5)
    figure.update_yaxes(autorange="reversed", automargin=True)
    return styled(figure, title, height=130 + 40 * len(data.names)).update_layout(showlegend=False)
