"""Virtual tokens per layer of several runs."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from analysis.figures.theme import as_text, colour, empty_figure, styled

TITLE = "Virtual tokens per layer"


class PrefixLengths(NamedTuple):
    """What is drawn."""

    names: list[str]
    lengths: list[list[int]]  # one list of L integers per name


def prefix_lengths_figure(data: PrefixLengths) -> go.Figure:
    """Grouped bars, one group per layer."""
    if not data.names:
        return empty_figure(TITLE, "choose at least one run")
    figure = go.Figure(
        [
            go.Bar(x=list(range(1, len(lengths) + 1)), y=lengths, name=as_text(name), marker_color=colour(index))
            for index, (name, lengths) in enumerate(zip(data.names, data.lengths, strict=True))
        ]
    )
    figure.update_xaxes(title="layer (1: nearest the input)", dtick=1 if max(map(len, data.lengths)) <= 24 else None)
    figure.update_yaxes(title="virtual tokens", rangemode="tozero")
    return styled(figure, TITLE, height=320)
