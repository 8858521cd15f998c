"""How alike the gate profiles of runs are: a matrix, and the tree of a clustering over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from analysis.figures.theme import DIVERGING, MUTED, SEQUENTIAL, as_text, drawn, empty_figure
from analysis.similarity import Tree

MAX_LABEL = 40
"""characters"""


class ProfileSimilarity(NamedTuple):
    """What is drawn, in the order of drawing."""

    names: list[str]  # [N] "task: run"
    values: np.ndarray  # [N, N]; NaN drawn as a gap
    kind: str
    tree: Tree | None  # None: the runs are not in the order of a clustering


def profile_similarity(
    matrix: np.ndarray, names: Sequence[str], tasks: Sequence[str], kind: str, order: Sequence[int], tree: Tree | None
) -> ProfileSimilarity:
    """Puts a matrix [N, N] into an order; ``tree`` only where the order is its own."""
    places = np.array(order, dtype=np.int64)
    labels = [_short(f"{tasks[place]}: {names[place]}") for place in order]
    return ProfileSimilarity(labels, matrix[np.ix_(places, places)], kind, tree)


def profile_similarity_figure(data: ProfileSimilarity) -> go.Figure:
    """The tree's joints are at a distance of 1 - the mean similarity of what they join."""
    title = f"Likeness of gate profiles ({data.kind})"
    count = len(data.names)
    if count < 2:
        return empty_figure(as_text(title), "choose at least two runs with gates")
    at = 10 * np.arange(count) + 5
    labels = [as_text(name) for name in data.names]
    spearman = data.kind == "Spearman"
    lowest = float(np.nanmin(data.values))
    cells: dict[str, Any] = {
        "type": "heatmap",
        "z": data.values.astype(np.float32),
        "x": at,
        "y": at,
        "customdata": [[f"{row}<br>{column}" for column in labels] for row in labels],
        "zmin": -1 if spearman else lowest,
        "zmax": 1,
        "colorscale": DIVERGING if spearman else SEQUENTIAL,
        "colorbar": {"title": {"text": data.kind, "side": "right"}, "thickness": 14, "outlinewidth": 0},
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": "%{customdata}<br>%{z:.2f}<extra></extra>",
        "hoverongaps": False,
    }
    bare = {"showgrid": False, "zeroline": False}
    ticks = {"tickvals": at, "ticktext": labels, "automargin": True, "range": [0, 10 * count]}
    traces, layout = [cells], {}
    if data.tree is not None:
        traces.append(_branches(data.tree))
        layout["yaxis2"] = {"domain": [0.82, 1], "title": "distance", "rangemode": "tozero", "nticks": 3} | bare
    return drawn(
        traces,
        as_text(title),
        240 + 26 * count + (90 if data.tree is not None else 0),
        {"tickangle": -40, "title": "run"} | ticks | bare,
        {"title": "run", "domain": [0, 0.8 if data.tree is not None else 1]} | ticks | bare,
        showlegend=False,
        **layout,
    )


def _branches(tree: Tree) -> dict[str, Any]:
    x = [corner for joint in tree.x for corner in (*joint, None)]
    y = [corner for joint in tree.y for corner in (*joint, None)]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "yaxis": "y2",
        "name": "tree",
        "line": {"color": MUTED, "width": 1.5},
        "hoverinfo": "skip",
    }


def _short(text: str) -> str:
    return text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 3] + "..."
