"""Figures as parts of a page that stands alone: the library once, then each figure; nothing is loaded."""

from __future__ import annotations

from plotly.io import to_html
from plotly.offline import get_plotlyjs

from analysis.figures.theme import Figure, image_config

TEMPLATE = "plotly_white"
"""grid lines that show on white paper"""


def plotly_script() -> str:
    """The figure library, to be put into a page's one script element before any figure; about 5 MB."""
    return get_plotlyjs()


def figure_html(figure: Figure, name: str) -> str:
    """A figure as HTML, with its data; it needs ``plotly_script`` earlier in the page.

    Args:
        figure: with a title; texts in it safe to show, as everywhere.
        name: letters, digits and dashes; unique in the page. The camera button saves the figure by this name.
    """
    shown = Figure(figure).update_layout(template=TEMPLATE)
    return to_html(
        shown,
        config=image_config(name, "svg"),
        include_plotlyjs=False,
        include_mathjax=False,
        full_html=False,
        div_id=name,
        validate=False,
    )
