"""A quantity of chosen virtual tokens over the steps of training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from analysis.figures.theme import MUTED, colour, empty_figure, styled


class TokenTraces(NamedTuple):
    """What is drawn."""

    steps: np.ndarray  # [S]
    values: np.ndarray  # [n, S] one row per chosen token
    names: list[str]  # n
    unit: str
    title: str
    marked_step: int  # drawn as a vertical line


def token_traces_figure(data: TokenTraces) -> go.Figure:
    """One line per virtual token, every recorded step drawn."""
    if not len(data.steps) or not len(data.names):
        return empty_figure(data.title, "choose at least one virtual token")
    figure = go.Figure(
        [
            go.Scattergl(x=data.steps, y=row.astype(np.float32), name=name, mode="lines", line={"color": colour(index)})
            for index, (name, row) in enumerate(zip(data.names, data.values, strict=True))
        ]
    )
    figure.add_vline(x=data.marked_step, line={"color": MUTED, "dash": "dot", "width": 1})
    figure.update_xaxes(title="optimizer step")
    figure.update_yaxes(title=data.unit, rangemode="tozero")
    return styled(figure, data.title, height=360)
