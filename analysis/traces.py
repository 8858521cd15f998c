"""Series over training for drawing: choosing tokens, smoothing, thinning without hiding peaks, other x axes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

Axis = Literal["step", "epoch", "seconds"]
AXES: dict[Axis, str] = {"step": "optimizer step", "epoch": "epoch", "seconds": "training time (seconds)"}
MAX_POINTS = 400
"""drawn per line of up to ``MAX_LINES``, fewer of more lines: every step of the slider sends them"""
MAX_LINES = 6
_LABEL = re.compile(r"\s*(\d{1,5})\s*\.\s*(\d{1,6})\s*")


def token_label(layer: int, token: int) -> str:
    """``layer.token`` as people read it, counted from 1."""
    return f"{layer + 1}.{token + 1}"


class Chosen(NamedTuple):
    """Virtual tokens that were asked for."""

    tokens: list[tuple[int, int]]  # (layer, token), counted from 0
    refused: list[str]  # what names no virtual token of this run


def chosen_tokens(labels: Iterable[str], prefix_lengths: Sequence[int]) -> Chosen:
    """Labels such as ``5.3`` (layer 5, virtual token 3) to indices; each once, in the order given."""
    tokens: list[tuple[int, int]] = []
    refused: list[str] = []
    for label in labels:
        match = _LABEL.fullmatch(label)
        layer, token = (int(match[1]) - 1, int(match[2]) - 1) if match else (-1, -1)
        if not 0 <= layer < len(prefix_lengths) or not 0 <= token < prefix_lengths[layer]:
            refused.append(label)
        elif (layer, token) not in tokens:
            tokens.append((layer, token))
    return Chosen(tokens, refused)


def step_window(steps: np.ndarray, first: int, last: int) -> slice:
    """The recorded steps [S] from ``first`` to ``last``; all of them where that would leave none."""
    start, stop = int(np.searchsorted(steps, first)), int(np.searchsorted(steps, last, side="right"))
    return slice(start, stop) if start < stop else slice(0, len(steps))


def smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Mean over up to ``width`` neighbouring recorded steps, the step itself in the middle.

    Args:
        values: [S, n]; what is not finite is left out of the means.
        width: 1 or less: nothing is smoothed. At the ends the window is cut off, not filled up.
    """
    if width <= 1 or not len(values):
        return values
    known = np.isfinite(values)
    zero = np.zeros((1, values.shape[1]))
    total = np.concatenate([zero, np.cumsum(np.where(known, values, 0.0), axis=0, dtype=np.float64)])
    count = np.concatenate([zero, np.cumsum(known, axis=0)])
    at = np.arange(len(values))
    start = np.maximum(at - (width - 1) // 2, 0)
    stop = np.minimum(at + width // 2 + 1, len(values))
    inside = count[stop] - count[start]
    return np.divide(total[stop] - total[start], inside, out=np.full(values.shape, np.nan), where=inside > 0)


def points_per_line(lines: int) -> int:
    """How many points of each of several lines to draw."""
    return MAX_POINTS * MAX_LINES // max(MAX_LINES, lines)


def drawn_points(values: np.ndarray, at_most: int = MAX_POINTS) -> np.ndarray:
    """Indices [m] of the points to draw of one series: all, or of each of equal intervals its extremes.

    Args:
        values: [S]. A line through the points kept reaches every peak and every trough of the series.
        at_most: 4 or more.
    """
    count = len(values)
    if count <= at_most:
        return np.arange(count)
    edges = np.linspace(1, count - 1, (at_most - 2) // 2 + 1).astype(np.int64)
    low = np.nan_to_num(values, nan=np.inf)
    high = np.nan_to_num(values, nan=-np.inf)
    kept = {0, count - 1}
    for start, stop in pairwise(edges):
        kept.add(start + int(low[start:stop].argmin()))
        kept.add(start + int(high[start:stop].argmax()))
    return np.array(sorted(kept))


def axes_of(rows: list[dict[str, Any]]) -> list[Axis]:
    """The x axes that the lines of ``metrics.jsonl`` allow: those that two lines or more give with a step."""
    return ["step", *(axis for axis in ("epoch", "seconds") if len(_known(rows, axis)[0]) >= 2)]


def positions(steps: np.ndarray, rows: list[dict[str, Any]], axis: Axis) -> np.ndarray:
    """Where recorded steps lie on an axis: [S] to [S].

    Between two logged lines the axis is taken to run evenly, from 0 at step 0; after the last line, as between the
    last two.
    """
    if axis == "step":
        return steps
    known_steps, known = _known(rows, axis)
    known_steps, known = np.concatenate([[0.0], known_steps]), np.concatenate([[0.0], known])
    inside = np.interp(steps, known_steps, known)
    slope = (known[-1] - known[-2]) / (known_steps[-1] - known_steps[-2])
    return np.where(steps > known_steps[-1], known[-1] + slope * (steps - known_steps[-1]), inside)


def _known(rows: list[dict[str, Any]], axis: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps (rising, above 0) and values of the lines that give both."""
    pairs: dict[float, float] = {}
    for row in rows:
        step, value = row.get("step"), row.get(axis)
        if _is_number(step) and _is_number(value) and step > 0:
            pairs[float(step)] = float(value)
    ordered = sorted(pairs.items())
    return np.array([step for step, _ in ordered]), np.array([value for _, value in ordered])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
