"""Training loss and validation metric over the steps of training."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures.theme import as_text, colour, empty_figure, styled
from analysis.traces import drawn_points

TITLE = "Training"
MAX_DRAWN = 1_000
"""points per line"""


class TrainingCurve(NamedTuple):
    """What is drawn: (step, value) pairs."""

    loss: list[tuple[int, float]]
    metric: list[tuple[int, float]]
    metric_name: str


def training_curve(rows: list[dict[str, Any]], metric_name: str) -> TrainingCurve:
    """Picks loss and metric from the lines of ``metrics.jsonl``; lines without them are passed over."""

    def pairs(field: str) -> list[tuple[int, float]]:
        return [(row["step"], row[field]) for row in rows if _is_number(row.get(field)) and _is_number(row.get("step"))]

    return TrainingCurve(pairs("loss"), pairs(f"eval_{metric_name}"), metric_name)


def training_curve_figure(data: TrainingCurve) -> go.Figure:
    """Loss above, metric below, on the same steps; of very many points each interval's smallest and largest."""
    if not data.loss and not data.metric:
        return empty_figure(TITLE, "nothing was logged yet")
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    for row, (points, name) in enumerate(((data.loss, "training loss"), (data.metric, data.metric_name)), start=1):
        drawn = drawn_points(np.array([value for _, value in points], dtype=np.float64), MAX_DRAWN)
        figure.add_scatter(
            x=[points[place][0] for place in drawn],
            y=[points[place][1] for place in drawn],
            name=as_text(name),
            mode="lines" if row == 1 else "lines+markers",
            line={"color": colour(row - 1)},
            row=row,
            col=1,
        )
    figure.update_yaxes(title="training loss (nats)", row=1, col=1)
    figure.update_yaxes(title=f"validation<br>{as_text(data.metric_name)}", row=2, col=1)
    figure.update_xaxes(title="optimizer step", row=2, col=1)
    return styled(figure, TITLE, height=400).update_layout(showlegend=False)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
