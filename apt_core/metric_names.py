"""What a metric's name says: which direction is better, and in what unit a difference is read. No torch."""

from __future__ import annotations

LOWER_IS_BETTER = ("perplexity", "loss")


def lower_is_better(metric_name: str) -> bool:
    """Whether a smaller value of a metric is the better one."""
    return metric_name.endswith(LOWER_IS_BETTER)


def reading_unit(metric_name: str) -> tuple[float, str]:
    """What to multiply a difference with, and its unit: points of a metric in [0, 1], else the metric's own unit."""
    return (1.0, metric_name) if lower_is_better(metric_name) else (100.0, "points")
