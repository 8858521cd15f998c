"""Layer profiles of several runs over each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from analysis.figures.theme import as_text, colour, empty_figure, styled

TITLE = "Layers, at the end of training"
DASHES = ("solid", "dash", "dot", "dashdot")


class ComparedProfile(NamedTuple):
    """One line."""

    name: str
    mean: np.ndarray  # [L], NaN for a layer without virtual tokens
    half: np.ndarray | None  # [L] half length of the interval over seeds; None: one run
    colour: int  # place among the runs compared


class ComparedProfiles(NamedTuple):
    """What is drawn."""

    lines: list[ComparedProfile]
    unit: str


def compared_profiles_figure(data: ComparedProfiles) -> go.Figure:
    """One line per run, told apart by colour, dash and marker; error bars only over seeds."""
    if not any(np.isfinite(line.mean).any() for line in data.lines):
        return empty_figure(TITLE, "none of these runs has recorded gates")
    figure = go.Figure()
    for line in data.lines:
        figure.add_scatter(
            x=np.arange(1, len(line.mean) + 1),
            y=line.mean,
            name=as_text(line.name),
            mode="lines+markers",
            line={"color": colour(line.colour), "dash": DASHES[line.colour % len(DASHES)]},
            marker={"symbol": line.colour, "size": 8},
            error_y={"type": "data", "array": line.half, "thickness": 1.5} if line.half is not None else None,
            hovertemplate=f"{as_text(line.name)}<br>layer %{{x}}: %{{y:.4g}}<extra></extra>",
        )
    longest = max(len(line.mean) for line in data.lines)
    figure.update_xaxes(title="layer (1: nearest the input)", **({"dtick": 1} if longest <= 24 else {}))
    figure.update_yaxes(title=data.unit, rangemode="tozero")
    return styled(figure, TITLE, height=380).update_layout(showlegend=True)
