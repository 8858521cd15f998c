"""Layer x virtual token heatmap of one step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from analysis.figures.theme import GREY_GROUND, SEQUENTIAL, drawn, empty_figure, log_colours
from analysis.gate_stats import QUANTITIES, Quantity, finite, heaviest_first, largest, smallest_positive

MAX_DECADES = 3
"""of a logarithmic colour scale: below a thousandth of the largest value all cells look alike"""


class Heatmap(NamedTuple):
    """What is drawn."""

    values: np.ndarray  # [l, p] float32, NaN drawn as a gap
    unit: str  # what a value is
    largest: float  # end of the colour scale, which starts at 0
    title: str
    lowest: float | None = None  # where a logarithmic colour scale starts; None: the scale is linear
    first_layer: int = 0  # of the model's, counted from 0, in the lowest row
    first_token: int = 0
    tokens: np.ndarray | None = None  # [l, p] true virtual tokens, counted from 1, of cells put in another order


class Window(NamedTuple):
    """The part of the heatmap to draw: layers and columns, counted from 0, the ends not included."""

    layers: tuple[int, int]
    tokens: tuple[int, int]


def heatmap(
    values: np.ndarray,
    name: Quantity,
    step: int,
    colour_end: float | None = None,
    *,
    colour_start: float | None = None,
    logarithmic: bool = False,
    ordered: bool = False,
    window: Window | None = None,
) -> Heatmap:
    """The heatmap of a quantity at a step.

    Args:
        values: [L, P], NaN where a layer has no such virtual token; infinite values are drawn as gaps, too.
        name: token gates are always drawn from 0 to 1.
        colour_end: end of the colour scale, so that steps can be compared; None: the largest value.
        colour_start: where a logarithmic scale starts, if not ``MAX_DECADES`` below its end; None: the smallest
            positive value.
        logarithmic: whether equal ratios, not equal differences, are to look equally far apart.
        ordered: whether each layer's virtual tokens are to go by falling value.
        window: what to draw, counted after the ordering; None: all.
    """
    shown = finite(values)
    end = largest(shown) if colour_end is None else colour_end
    end = 1.0 if name == "token gate" else _round_up(end or 1.0)
    lowest = None
    if logarithmic:
        start = smallest_positive(shown) if colour_start is None else colour_start
        lowest = min(max(start or 0.0, end * 10.0**-MAX_DECADES), end / 2)
    tokens = None
    if ordered:
        order = heaviest_first(shown)
        shown = np.take_along_axis(shown, order, axis=1)
        tokens = (order + 1).astype(np.uint8 if values.shape[1] < 256 else np.uint16)
    (top, bottom), (left, right) = window or Window((0, values.shape[0]), (0, values.shape[1]))
    title = f"{name.capitalize()} at step {step:,}"
    return Heatmap(
        shown[top:bottom, left:right].astype(np.float32),
        QUANTITIES[name],
        end,
        title,
        lowest,
        top,
        left,
        None if tokens is None else tokens[top:bottom, left:right],
    )


def heatmap_figure(data: Heatmap) -> go.Figure:
    """Layer 1, the one nearest the input, is at the bottom."""
    num_layers, num_tokens = data.values.shape
    if not np.isfinite(data.values).any():
        return empty_figure(data.title, "no virtual token to draw here")
    ordered = data.tokens is not None
    logarithmic = data.lowest is not None
    place = "virtual token %{customdata} (place %{x})" if ordered else "virtual token %{x}"
    trace = {
        "type": "heatmap",
        "z": data.values,
        "x": np.arange(1, num_tokens + 1, dtype=np.int32) + data.first_token,
        "y": np.arange(1, num_layers + 1, dtype=np.int32) + data.first_layer,
        "customdata": data.tokens,
        "zmin": 0,
        "zmax": data.largest,
        "colorscale": log_colours(data.lowest, data.largest) if logarithmic else SEQUENTIAL,
        "showscale": not logarithmic,
        "colorbar": _colour_bar(data.unit),
        "xgap": 1 if num_tokens <= 64 else 0,
        "ygap": 1 if num_layers <= 48 else 0,
        "hovertemplate": f"layer %{{y}}, {place}<br>%{{z:.4g}}<extra></extra>",
        "hoverongaps": False,
    }
    x = {
        "title": "virtual tokens of each layer, heaviest first" if ordered else "virtual token",
        "range": [data.first_token + 0.5, data.first_token + num_tokens + 0.5],
        "constrain": "domain",
    }
    y = {
        "title": "layer (1: nearest the input)",
        "range": [data.first_layer + 0.5, data.first_layer + num_layers + 0.5],
    }
    bare = {"showgrid": False, "zeroline": False}
    return drawn(
        [trace, _log_scale(data)] if logarithmic else [trace],
        data.title,
        min(720, max(300, 150 + 28 * num_layers)),
        x | bare | _ticks(num_tokens),
        y | bare | _ticks(num_layers),
        **GREY_GROUND,
        showlegend=False,
    )


def _colour_bar(unit: str) -> dict:
    return {"title": {"text": unit, "side": "right"}, "thickness": 14, "outlinewidth": 0}


def _log_scale(data: Heatmap) -> dict:
    """Draws nothing but the colour bar of a logarithmic scale."""
    low, high = np.log10(data.lowest), np.log10(data.largest)
    candidates = [digit * 10.0**power for power in range(-12, 13) for digit in (1, 2, 5)]
    ticks = [tick for tick in candidates if data.lowest <= tick * 1.001 and tick <= data.largest * 1.001]
    if len(ticks) > 6:
        ticks = [tick for tick in ticks if np.log10(tick).round(6) % 1 == 0]
    bar = _colour_bar(f"{data.unit} (log scale)")
    return {
        "type": "scatter",
        "x": [None],
        "y": [None],
        "mode": "markers",
        "hoverinfo": "skip",
        "marker": {
            "color": [low],
            "cmin": low,
            "cmax": high,
            "colorscale": SEQUENTIAL,
            "showscale": True,
            "colorbar": bar | {"tickvals": np.log10(ticks).tolist(), "ticktext": [f"{tick:g}" for tick in ticks]},
        },
    }


def _round_up(value: float) -> float:
    """The next of 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten: it changes rarely while a run grows."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(top * power for top in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if top * power >= value * 0.9999))


def _ticks(count: int) -> dict:
    return {"dtick": 1} if count <= 24 else {"dtick": 8, "tick0": 0}
