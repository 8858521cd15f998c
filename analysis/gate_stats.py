"""Statistics of gate arrays; pure numpy.

Axes: S recorded steps, L layers, P virtual tokens (NaN where a layer has fewer).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

Quantity = Literal["weight", "token gate", "layer scale"]
QUANTITIES: dict[Quantity, str] = {
    "weight": "mean token gate x |layer scale|",
    "token gate": "mean token gate",
    "layer scale": "|layer scale|",
}
SETTLED_FRACTION = 0.1
"""budgets rest on the mean over this last part of the recorded steps"""


def quantity(name: Quantity, token_gate: np.ndarray, layer_scale: np.ndarray) -> np.ndarray:
    """What a heatmap shows.

    Args:
        name: ``weight`` is |lambda_i| alpha_i, the size of what eq. 4 multiplies a prefix with.
        token_gate: [..., L, P] in (0, 1).
        layer_scale: [..., L].

    Returns:
        [..., L, P]; NaN where a layer has no such virtual token.
    """
    scale = np.abs(layer_scale)[..., None]
    if name == "token gate":
        return token_gate
    if name == "layer scale":
        return np.where(np.isnan(token_gate), np.nan, scale)
    return token_gate * scale


class LayerProfile(NamedTuple):
    """Each layer as a whole; NaN for a layer without virtual tokens."""

    mean: np.ndarray  # [L] over the layer's virtual tokens
    over_tokens: np.ndarray  # [L] standard deviation over the layer's virtual tokens
    over_batch: np.ndarray  # [L] standard deviation over the batch, averaged over the virtual tokens


def layer_profile(values: np.ndarray, spread: np.ndarray) -> LayerProfile:
    """Averages over virtual tokens.

    Args:
        values: [L, P].
        spread: standard deviation over the batch [L, P], on the same scale as ``values``.
    """
    mean = _mean(values)
    variance = _mean((values - mean[:, None]) ** 2)
    return LayerProfile(mean, np.sqrt(variance), _mean(spread))


def settled_weights(token_gate: np.ndarray, layer_scale: np.ndarray) -> np.ndarray:
    """Weights |lambda_i| alpha_i, averaged over the last ``SETTLED_FRACTION`` of the steps (at least one).

    Args:
        token_gate: [S, L, P], S at least 1.
        layer_scale: [S, L].

    Returns:
        [L, P]; NaN where a layer has no such virtual token.
    """
    last = max(1, round(SETTLED_FRACTION * len(token_gate)))
    return quantity("weight", token_gate[-last:], layer_scale[-last:]).mean(axis=0)


def layer_mass(weights: np.ndarray) -> np.ndarray:
    """Sum of the weights of a layer's virtual tokens: [L, P] to [L], 0 for a layer without any."""
    return np.nansum(weights, axis=1)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis, NaN left out; NaN where there is nothing else."""
    count = (~np.isnan(values)).sum(axis=-1)
    total = np.nansum(values, axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan, total.dtype), where=count > 0)


def heaviest_tokens(values: np.ndarray, at_most: int = 6) -> list[tuple[int, int]]:
    """(layer, token) of the largest value of each layer, for the ``at_most`` layers where it is largest.

    Args:
        values: [L, P], NaN where a layer has no such virtual token.
    """
    filled = np.nan_to_num(values, nan=-np.inf)
    if filled.shape[1] == 0:
        return []
    best = filled.argmax(axis=1)
    layers = [layer for layer in np.argsort(-filled.max(axis=1), kind="stable") if np.isfinite(filled[layer]).any()]
    return sorted((int(layer), int(best[layer])) for layer in layers[:at_most])
