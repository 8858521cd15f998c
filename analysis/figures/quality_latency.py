"""Quality against latency of the ways to run one model: backbone, full, folded, pruned, switched."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import plotly.graph_objects as go

from analysis.figures.theme import MUTED, as_text, colour, drawn, empty_figure
from apt_core.inference_format import Inference, Spread, Variant

TITLE = "Quality against latency"
REFERENCES = {"full run": "against_full", "frozen backbone": "against_backbone"}
"""what a pass is compared with -> field of ``Variant``"""
_SHOWN = {
    "backbone": ("frozen backbone", "diamond"),
    "full": ("full run", "star"),
    "folded": ("gates folded", "cross"),
    "pruned": ("pruned, the same for every input", "square"),
    "switched": ("switched, by each input's gates", "circle"),
}
"""kind -> legend, symbol"""
_AT_1 = {
    "type": "line",
    "x0": 1,
    "x1": 1,
    "y0": 0,
    "y1": 1,
    "yref": "paper",
    "line": {"color": MUTED, "width": 1, "dash": "dash"},
    "layer": "below",
}


class Series(NamedTuple):
    """The variants of one kind, by latency."""

    label: str
    symbol: str
    names: list[str]
    ratios: list[Spread]
    quality: list[float]
    tokens: list[float]  # attended to


class QualityAgainstLatency(NamedTuple):
    """What is drawn; what has no quality (untrained, or not defined) is left out."""

    series: list[Series]
    reference: str  # key of REFERENCES
    unit: str  # of quality


def quality_against_latency(
    inference: Inference, reference: str, quality: Callable[[Variant], float | None], unit: str
) -> QualityAgainstLatency:
    """Picks what was measured.

    Args:
        inference: of a run.
        reference: a key of ``REFERENCES``.
        quality: of a variant with quality, such as its loss.
        unit: of ``quality``.
    """
    series = []
    for kind, (label, symbol) in _SHOWN.items():
        found = [
            (variant, value)
            for variant in inference.variants
            if variant.kind == kind and variant.quality is not None and (value := quality(variant)) is not None
        ]
        if found:
            found.sort(key=lambda pair: pair[0].tokens)
            series.append(
                Series(
                    label,
                    symbol,
                    [variant.name for variant, _ in found],
                    [getattr(variant, REFERENCES[reference]) for variant, _ in found],
                    [value for _, value in found],
                    [variant.tokens for variant, _ in found],
                )
            )
    return QualityAgainstLatency(series, reference, unit)


def quality_against_latency_figure(data: QualityAgainstLatency) -> go.Figure:
    """A point per variant, its interval beside it; lines join variants of a kind in the order of their tokens."""
    if not data.series:
        return empty_figure(TITLE, "no quality was measured")
    traces = [
        {
            "type": "scatter",
            "name": as_text(series.label),
            "x": [ratio.median for ratio in series.ratios],
            "y": series.quality,
            "customdata": [
                [as_text(name), f"{ratio.low:.3f} to {ratio.high:.3f}", tokens]
                for name, ratio, tokens in zip(series.names, series.ratios, series.tokens, strict=True)
            ],
            "mode": "lines+markers" if len(series.names) > 1 else "markers",
            "line": {"color": colour(index), "width": 1, "dash": "dot"},
            "marker": {"color": colour(index), "symbol": series.symbol, "size": 12},
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [ratio.high - ratio.median for ratio in series.ratios],
                "arrayminus": [ratio.median - ratio.low for ratio in series.ratios],
                "color": MUTED,
                "thickness": 1,
            },
            "hovertemplate": "%{customdata[0]}<br>%{customdata[2]:.1f} virtual tokens attended to<br>"
            f"%{{x:.3f}} x {data.reference} (%{{customdata[1]}})<br>{as_text(data.unit)} %{{y:.3f}}<extra></extra>",
        }
        for index, series in enumerate(data.series)
    ]
    return drawn(
        traces,
        TITLE,
        420,
        {"title": f"time of a forward pass / that of the {data.reference} (95 % interval)"},
        {"title": as_text(data.unit)},
        showlegend=True,
        shapes=[_AT_1],
    )
