"""What the virtual tokens of a run weigh for a budget: an importance, or the measured effect of removing them.

Axes: L layers, P virtual tokens (NaN where a layer has fewer).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from analysis.budgets.ordering import HEAVIEST
from analysis.curves import loss_table
from apt_core.errors import AptValueError, bad_value
from apt_core.measure_format import IMPORTANCES, Measures, Point
from apt_core.settled import DIVERGED

EFFECT = "measured effect"


class Weighed(NamedTuple):
    """Weights of a run's virtual tokens."""

    name: str
    """a key of ``IMPORTANCES``, or ``EFFECT``"""
    weights: np.ndarray  # [L, P]
    source: str
    """where they are from, in words"""


def weigh(name: str, log_weights: np.ndarray, measures: Measures | None, folder: Path | None = None) -> Weighed:
    """An importance of each virtual token.

    Args:
        name: a key of ``IMPORTANCES``.
        log_weights: gate mass from the gate log [L, P], used for ``gate`` where it was not measured.
        measures: of the run; None where there are none.
        folder: of the run, for messages.

    Raises:
        AptValueError: if the importance is unknown or was not measured, or the training diverged.
    """
    if name not in IMPORTANCES:
        raise bad_value("importance", name, ", ".join(IMPORTANCES))
    if measures is not None and name in measures.importance:
        return Weighed(name, padded(measures.importance[name]), f"measured on {measures.split} data")
    if name == "gate":
        if np.isinf(log_weights).any():
            raise AptValueError(f"{'run' if folder is None else folder}: {DIVERGED}; there is no order to share by.")
        return Weighed(name, log_weights, "from the recorded gates")
    raise not_measured(f"importance: {name} was not measured", folder)


def weigh_effect(measures: Measures | None, folder: Path | None = None) -> Weighed:
    """How much the loss rises without each virtual token, in nats; negative where it falls.

    Where only whole layers were measured, the k-th token of a layer whose removal costs E nats counts E / k: given out
    by that, lengths are in proportion to E (D'Hondt's divisors), and each further token is worth less.

    Raises:
        AptValueError: if no such effect was measured, or no example has all its losses.
    """
    if measures is None:
        raise not_measured("method: greedy rests on measured effects", folder)
    if not has_effects(measures):
        command = measure_command(folder, everything=True)
        raise AptValueError(f"greedy: the effect of layers was not measured; {command}.")
    lengths = measures.prefix_lengths
    if measures.tokens is not None:
        rises = _rises(measures, [point for layer in measures.tokens for point in layer])
        effect = padded(np.split(rises, np.cumsum(lengths)[:-1]))
        return Weighed(EFFECT, effect, f"each virtual token left out, {measures.split} data")
    layers = np.nan_to_num(layer_effect(measures))
    effect = padded([rise / np.arange(1, length + 1) for rise, length in zip(layers, lengths, strict=True)])
    source = f"each layer left out, the k-th token of a layer counting 1/k of it, {measures.split} data"
    return Weighed(EFFECT, effect, source)


def has_effects(measures: Measures) -> bool:
    """Whether leaving out each virtual token, or each layer that has any, was measured."""
    lengths = measures.prefix_lengths
    layers = zip(measures.layers, lengths, strict=True)
    return measures.tokens is not None or all(point is not None for point, length in layers if length)


def layer_effect(measures: Measures) -> np.ndarray:
    """How much the loss rises without each layer's virtual tokens [L], in nats; NaN for a layer without any.

    Raises:
        AptValueError: if no example has all its losses.
    """
    effect = np.full(len(measures.layers), np.nan)
    places = [layer for layer, point in enumerate(measures.layers) if point is not None]
    effect[places] = _rises(measures, [point for point in measures.layers if point is not None])
    return effect


def per_cost(effect: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Effect per unit of cost. What lowers the loss by its absence keeps its effect below 0, and so comes last.

    Args:
        effect: [L, P].
        costs: of one virtual token [L], 0 or larger; what costs nothing comes first.
    """
    worth = np.full(effect.shape, HEAVIEST)
    np.divide(effect, costs[:, None], out=worth, where=np.broadcast_to(costs[:, None] > 0, effect.shape))
    return np.where(effect > 0, worth, effect)


def padded(layers: Sequence[Sequence[float] | np.ndarray]) -> np.ndarray:
    """Numbers of layers of different lengths as one array [L, P], NaN where a layer has fewer."""
    table = np.full((len(layers), max(map(len, layers), default=0)), np.nan)
    for row, layer in zip(table, layers, strict=True):
        row[: len(layer)] = layer
    return table


def not_measured(what: str, folder: Path | None = None) -> AptValueError:
    """The error for what needs measures that a run, whose folder may be known, does not have."""
    return AptValueError(f"{what}. {measure_command(folder)}.")


def measure_command(folder: Path | None, *, everything: bool = False) -> str:
    """The command that measures a run, in a clause; ``everything``: without a limit on what it computes."""
    run = "RUN" if folder is None else shlex.quote(str(folder))
    return f"'python -m apt_core measure {run}{' --cost 0' if everything else ''}' does it"


def _rises(measures: Measures, points: Sequence[Point]) -> np.ndarray:
    """Mean rise of the loss at each point over the full one [K], over the examples whose losses are all finite."""
    if not points:
        return np.zeros(0)
    with np.errstate(invalid="ignore"):  # a loss that is infinite at both
        rises = loss_table(points) - loss_table([measures.full])
    rises = rises[:, np.isfinite(rises).all(axis=0)]
    if not rises.shape[1]:
        raise AptValueError("measures.json: no example has a finite loss everywhere, so no effect follows from it.")
    return rises.mean(axis=1)
