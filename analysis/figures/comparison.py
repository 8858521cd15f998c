"""Runs side by side: what each achieved and what it cost."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures.theme import colour, empty_figure, styled

TITLE = "Metric and cost"


class ComparedRun(NamedTuple):
    """One run's bar in every panel."""

    name: str
    metric: float | None
    trained_parameters: int
    prefix_tokens: int
    seconds: float


class Comparison(NamedTuple):
    """What is drawn."""

    runs: list[ComparedRun]
    metric_name: str


def comparison_figure(data: Comparison) -> go.Figure:
    """Four panels of horizontal bars, the runs in the order given, from the top."""
    if not data.runs:
        return empty_figure(TITLE, "choose at least one run")
    panels = {
        f"validation {data.metric_name}": [run.metric for run in data.runs],
        "trained parameters": [run.trained_parameters for run in data.runs],
        "virtual tokens": [run.prefix_tokens for run in data.runs],
        "training (seconds)": [run.seconds for run in data.runs],
    }
    figure = make_subplots(rows=1, cols=len(panels), shared_yaxes=True, horizontal_spacing=0.03)
    formats = (".3f", ",.0f", ",.0f", ",.0f")
    for column, ((unit, values), shown) in enumerate(zip(panels.items(), formats, strict=True), start=1):
        figure.add_bar(
            y=[run.name for run in data.runs],
            x=values,
            orientation="h",
            marker_color=[colour(index) for index in range(len(data.runs))],
            text=["not measured" if value is None else format(value, shown) for value in values],
            textposition="auto",
            hovertemplate=f"%{{y}}<br>{unit}: %{{text}}<extra></extra>",
            row=1,
            col=column,
        )
        figure.update_xaxes(title=unit, rangemode="tozero", nticks=4, row=1, col=column)
    figure.update_yaxes(autorange="reversed", row=1, col=1)
    return styled(figure, TITLE, height=160 + 44 * len(data.runs)).update_layout(showlegend=False)
