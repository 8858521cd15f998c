"""Colours and layout that all figures share; readable in light and dark, and by colour-blind people."""

from __future__ import annotations

import plotly.graph_objects as go

SEQUENTIAL = "Cividis"
CATEGORICAL = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999933", "#882255")
"""Okabe and Ito's palette without black and yellow, two of Tol's added"""
MUTED = "#8a94a3"
"""error bars and reference lines"""


def colour(index: int) -> str:
    """The colour of the n-th series, counted from 0; they repeat after eight."""
    return CATEGORICAL[index % len(CATEGORICAL)]


def styled(figure: go.Figure, title: str, height: int) -> go.Figure:
    """Applies the common layout. ``height`` in pixels; the background is left to the page."""
    return figure.update_layout(
        title={"text": title, "x": 0, "xanchor": "left", "font": {"size": 16}},
        height=height,
        margin={"l": 60, "r": 16, "t": 48, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": -0.25, "x": 0},
        hoverlabel={"namelength": -1},
    )


def empty_figure(title: str, reason: str, height: int = 240) -> go.Figure:
    """A titled figure that says why nothing is drawn."""
    figure = go.Figure()
    figure.add_annotation(text=reason, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font={"size": 14})
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return styled(figure, title, height)
