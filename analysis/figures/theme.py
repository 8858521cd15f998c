"""Colours and layout that all figures share; readable in light and dark, and by colour-blind people."""

from __future__ import annotations

import html
import re
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

ImageFormat = Literal["png", "svg"]

Figure = go.Figure
"""what pages show; they need not know Plotly"""
SEQUENTIAL = "Cividis"
DIVERGING = "PuOr_r"
"""orange above 0, purple below, near white at 0: told apart with any of the usual colour deficiencies"""
CATEGORICAL = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999933", "#882255")
"""Okabe and Ito's palette without black and yellow, two of Tol's added"""
_MARGIN = {"l": 60, "r": 16, "t": 48, "b": 48}
GREY_GROUND = {"plot_bgcolor": "rgba(128, 128, 128, 0.35)", "margin": _MARGIN | {"pad": 0}}
"""layout of a heatmap with gaps, where a layer has no such virtual token: neither the page nor an end of the colours"""
MUTED = "#8a94a3"
"""error bars and reference lines"""
DARKER, LIGHTER = "#c2410c", "#8a94a3"
"""two kinds of error bars on one bar, on light and dark ground"""
_LOG_STOPS = 48


def colour(index: int) -> str:
    """The colour of the n-th series, counted from 0; they repeat after eight."""
    return CATEGORICAL[index % len(CATEGORICAL)]


def ink(index: int) -> str:
    """Black or white, whichever reads better on the colour of the n-th series."""
    red, green, blue = (int(colour(index)[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.45 else "#ffffff"


def as_text(text: object) -> str:
    """Text from a file, safe to place into a figure: Plotly reads a few HTML tags, links among them."""
    return html.escape(str(text), quote=False)


def log_colours(lowest: float, highest: float) -> list[tuple[float, str]]:
    """The sequential colours for values drawn from 0 to ``highest`` so that equal ratios look equally far apart.

    The values keep their meaning under the pointer, and nothing more than they has to be sent. What is below
    ``lowest`` has the colour of ``lowest``.
    """
    at = np.linspace(0, 1, _LOG_STOPS)
    places = (lowest / highest) ** (1 - at)
    return [
        (0.0, sample_colorscale(SEQUENTIAL, [0.0])[0]),
        *zip(places, sample_colorscale(SEQUENTIAL, at), strict=True),
    ]


def image_config(name: str, image_format: ImageFormat) -> dict[str, Any]:
    """Plotly's settings for one figure: the camera button saves it as ``name`` in the format chosen, twice as fine."""
    filename = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "figure"
    return {
        "displaylogo": False,
        "responsive": True,
        "toImageButtonOptions": {"format": image_format, "filename": filename, "scale": 2},
        "modeBarButtonsToRemove": ["autoScale2d", "zoomIn2d", "zoomOut2d"],
    }


def drawn(
    traces: list[dict[str, Any]], title: str, height: int, x: dict[str, Any], y: dict[str, Any], **layout: Any
) -> go.Figure:
    """A figure with the common layout, made in one go: changing a figure afterwards costs more than making it.

    Args:
        traces: as Plotly takes them, each with its ``type``.
        title: of the figure.
        height: in pixels.
        x, y: the axes; a plain text as ``title`` will do.
        layout: what differs from the common layout.
    """
    return go.Figure(data=traces, layout=_common(title, height) | {"xaxis": x, "yaxis": y} | layout)


def styled(figure: go.Figure, title: str, height: int) -> go.Figure:
    """Applies the common layout to a figure made otherwise. ``height`` in pixels."""
    return figure.update_layout(_common(title, height))


def empty_figure(title: str, reason: str, height: int = 240) -> go.Figure:
    """A titled figure that says why nothing is drawn."""
    words = {"text": reason, "showarrow": False, "x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper"}
    return drawn(
        [], title, height, {"visible": False}, {"visible": False}, annotations=[words | {"font": {"size": 14}}]
    )


def _common(title: str, height: int) -> dict[str, Any]:
    return {
        "title": {"text": title, "x": 0, "xanchor": "left", "font": {"size": 16}},
        "height": height,
        "margin": _MARGIN,
        "legend": {"orientation": "h", "y": -0.25, "x": 0},
        "hoverlabel": {"namelength": -1},
        "uirevision": "kept",
    }
