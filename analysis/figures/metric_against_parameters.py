"""What runs achieved against what they trained: one point per run."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from analysis.figures.comparison import ComparedRun, metric_unit
from analysis.figures.theme import MUTED, as_text, colour, empty_figure, styled

TITLE = "Metric against trained parameters"


class MetricAgainstParameters(NamedTuple):
    """What is drawn; runs that were not measured are left out."""

    names: list[str]
    parameters: list[int]
    metric: list[float]
    halves: list[float | None]  # half length of each interval
    colours: list[int]  # place of each among the runs compared
    unit: str


def metric_against_parameters(runs: list[ComparedRun], metric_name: str) -> MetricAgainstParameters:
    """Picks the measured runs."""
    measured = [(index, run) for index, run in enumerate(runs) if run.metric.mean is not None]
    return MetricAgainstParameters(
        [run.name for _, run in measured],
        [run.trained_parameters for _, run in measured],
        [run.metric.mean for _, run in measured],
        [run.metric.half for _, run in measured],
        [index for index, _ in measured],
        metric_unit(metric_name),
    )


def metric_against_parameters_figure(data: MetricAgainstParameters) -> go.Figure:
    """Each point has its run's colour of the other figures, and its name in the legend."""
    if not data.names:
        return empty_figure(TITLE, "no run has been measured yet")
    figure = go.Figure()
    for place, name in enumerate(data.names):
        half = data.halves[place]
        figure.add_scatter(
            x=[data.parameters[place]],
            y=[data.metric[place]],
            name=as_text(name),
            mode="markers",
            marker={"color": colour(data.colours[place]), "size": 12, "symbol": data.colours[place]},
            error_y={"type": "data", "array": [half or 0], "color": MUTED, "thickness": 2, "visible": half is not None},
            hovertemplate=f"{as_text(name)}<br>%{{x:,}} trained parameters<br>%{{y:.3f}}<extra></extra>",
        )
    figure.update_xaxes(title="trained parameters", rangemode="tozero", nticks=6)
    figure.update_yaxes(title=as_text(data.unit))
    return styled(figure, TITLE, height=380).update_layout(showlegend=True)
