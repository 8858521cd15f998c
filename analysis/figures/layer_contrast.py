"""One number per layer with its interval against zero: a difference of mean gates, or a correlation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from analysis.errors import FALSE_DISCOVERIES, LayerTests
from analysis.figures.theme import MUTED, as_text, colour, drawn, empty_figure


class LayerContrast(NamedTuple):
    """What is drawn."""

    tests: LayerTests  # [L] each; NaN is not drawn
    unit: str
    title: str
    reason: str = "no layer could be tested"  # what is said where nothing is drawn


def layer_contrast_figure(data: LayerContrast) -> go.Figure:
    """Filled where the adjusted p-value counts as a difference, open where it does not; zero is in the picture."""
    tests = data.tests
    if not np.isfinite(tests.value).any():
        return empty_figure(as_text(data.title), as_text(data.reason))
    layers = np.arange(1, len(tests.value) + 1, dtype=np.int32)
    counts = np.nan_to_num(tests.adjusted, nan=1.0) < FALSE_DISCOVERIES
    traces = [
        {
            "type": "scatter",
            "x": layers[chosen],
            "y": tests.value[chosen],
            "name": name,
            "mode": "markers",
            "marker": {"size": 10, "symbol": symbol, "color": colour(place)},
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": (tests.high - tests.value)[chosen],
                "arrayminus": (tests.value - tests.low)[chosen],
                "color": colour(place),
                "thickness": 2,
                "width": 5,
            },
            "customdata": np.stack([tests.low, tests.high, tests.adjusted], axis=1)[chosen],
            "hovertemplate": "layer %{x}: %{y:.3g}<br>95% interval %{customdata[0]:.3g} to %{customdata[1]:.3g}"
            "<br>adjusted p %{customdata[2]:.3g}<extra></extra>",
        }
        for chosen, name, symbol, place in (
            (np.isfinite(tests.value) & counts, f"adjusted p below {FALSE_DISCOVERIES}", "circle", 5),
            (np.isfinite(tests.value) & ~counts, f"adjusted p {FALSE_DISCOVERIES} or more", "circle-open", 0),
        )
        if chosen.any()
    ]
    x = {
        "title": "layer (1: nearest the input)",
        "range": [0.5, len(layers) + 0.5],
        **({"dtick": 1} if len(layers) <= 24 else {}),
    }
    zero = {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": 0,
        "y1": 0,
        "line": {"color": MUTED, "dash": "dash"},
    }
    return drawn(
        traces,
        as_text(data.title),
        380,
        x,
        {"title": data.unit, "exponentformat": "power"},
        shapes=[zero],
        showlegend=True,
    )
