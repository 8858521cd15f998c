"""From gate weights to virtual tokens per layer; pure numpy. Every result sums exactly to the total asked for.

Axes: L layers, P virtual tokens (NaN where a layer has fewer).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from analysis.gate_stats import layer_mass
from apt_core.config import MAX_TOKENS_PER_LAYER
from apt_core.errors import AptValueError, bad_value


class Budget(NamedTuple):
    """Virtual tokens per layer."""

    prefix_lengths: tuple[int, ...]
    total: int
    method: str


class Method(NamedTuple):
    """A way to share a budget out."""

    allocate: Callable[[np.ndarray, int, np.ndarray, np.ndarray], np.ndarray]
    """weights [L, P], total, minimum [L], maximum [L] -> lengths [L]"""
    description: str
    within_own_tokens: bool
    """whether a layer can get at most the virtual tokens it has, because single tokens are chosen"""


def allocate(
    weights: np.ndarray,
    total: int,
    method: str = "share",
    min_per_layer: int = 0,
    max_per_layer: int | None = None,
) -> Budget:
    """Shares ``total`` virtual tokens out over the layers.

    Args:
        weights: |layer scale| x mean token gate [L, P], 0 or larger.
        total: virtual tokens over all layers.
        method: a key of ``METHODS``.
        min_per_layer, max_per_layer: bounds for every layer; without a maximum, what the run has where single tokens
            are chosen, and ``MAX_TOKENS_PER_LAYER`` otherwise.

    Raises:
        AptValueError: if the method is unknown, a number is no integer or out of range, or the total cannot be met.
    """
    if method not in METHODS:
        raise bad_value("method", method, ", ".join(METHODS))
    for field, value in (("total", total), ("min-per-layer", min_per_layer), ("max-per-layer", max_per_layer or 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise bad_value(field, value, "an integer, 0 or larger")
    num_layers = weights.shape[0]
    ceiling = MAX_TOKENS_PER_LAYER if max_per_layer is None else min(max_per_layer, MAX_TOKENS_PER_LAYER)
    own = (~np.isnan(weights)).sum(axis=1)
    single = METHODS[method].within_own_tokens
    upper = np.minimum(own, ceiling) if single else np.full(num_layers, ceiling)
    lower = np.full(num_layers, min_per_layer)
    if (lower > upper).any():
        layer = int(np.argmax(lower > upper))
        raise bad_value("min-per-layer", min_per_layer, f"at most {upper[layer]}, the maximum of layer {layer + 1}")
    if not lower.sum() <= total <= upper.sum():
        what = f"method {method} chooses among the tokens the run has" if single else "--max-per-layer bounds it"
        raise bad_value("total", total, f"{lower.sum()} to {upper.sum()} for {num_layers} layers", f"({what}.)")
    lengths = METHODS[method].allocate(weights, int(total), lower, upper)
    if lengths.sum() != total:
        raise AptValueError(f"method: {method} shared out {lengths.sum()} instead of {total} virtual tokens.")
    return Budget(tuple(int(length) for length in lengths), int(total), method)


def uniform(total: int, num_layers: int) -> Budget:
    """The same number for every layer; what is left over goes to the first layers."""
    return allocate(np.ones((num_layers, 1)), total)._replace(method="uniform")


def by_share(weights: np.ndarray, total: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Lengths proportional to the layer's gate mass (Zhang et al., section 4.3, PT-2*).

    Bounds are met by fixing the layers that would break them and sharing the rest among the others; what is left
    after rounding down goes to the largest remainders, the lower layer first among equals.
    """
    mass = layer_mass(weights).astype(np.float64)
    quota = _bounded_shares(mass, total, lower, upper)
    lengths = np.floor(quota + 1e-9).astype(int)
    order = np.lexsort((np.arange(len(mass)), -np.round(quota - lengths, 9)))
    return _hand_out(lengths, total, upper, order)


def by_topk(weights: np.ndarray, total: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The heaviest (layer, token) pairs of the whole run, after every layer has its minimum."""
    return _best_first(np.nan_to_num(weights, nan=-1.0), weights, total, lower, upper)


def by_threshold(weights: np.ndarray, total: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Tokens whose weight is at least a fraction of the heaviest of their own layer; the fraction that gives the total.

    Unlike ``topk`` it does not compare layers with each other: a layer keeps many tokens if they are alike.
    """
    heaviest = np.max(np.nan_to_num(weights, nan=0.0), axis=1, keepdims=True, initial=0.0)
    relative = np.divide(weights, heaviest, out=np.zeros_like(weights, dtype=np.float64), where=heaviest > 0)
    return _best_first(np.where(np.isnan(weights), -1.0, relative), weights, total, lower, upper)


METHODS: dict[str, Method] = {
    "share": Method(by_share, "in proportion to the layer's gate mass, as in the paper", False),
    "threshold": Method(by_threshold, "tokens close to the heaviest of their own layer", True),
    "topk": Method(by_topk, "the heaviest tokens of the whole run", True),
}


def _bounded_shares(mass: np.ndarray, total: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Real-valued shares within the bounds: clip(factor x mass), with the factor that meets the total."""
    if mass.sum() <= 0:
        mass = np.ones_like(mass)
    mass = np.where(mass > 0, mass, mass[mass > 0].min() * 1e-12)  # layers without mass get what others cannot take
    breaks = np.unique(np.concatenate([lower / mass, upper / mass]))
    sums = np.array([np.clip(factor * mass, lower, upper).sum() for factor in breaks])
    after = min(int(np.searchsorted(sums, total)), len(breaks) - 1)
    if sums[after] == total or after == 0:
        return np.clip(breaks[after] * mass, lower, upper)
    low, high = breaks[after - 1], breaks[after]  # the sum is linear between two breaks
    factor = low + (high - low) * (total - sums[after - 1]) / (sums[after] - sums[after - 1])
    return np.clip(factor * mass, lower, upper)


def _hand_out(lengths: np.ndarray, total: int, upper: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Gives what is missing from the total, one token a layer in ``order``, where there is room."""
    while lengths.sum() < total:
        for layer in order:
            if lengths.sum() == total:
                break
            lengths[layer] += lengths[layer] < upper[layer]
    return lengths


def _best_first(score: np.ndarray, weights: np.ndarray, total: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Takes tokens by score, within the bounds; ties: the lower layer, then the lower token."""
    num_layers, num_tokens = score.shape
    layers = np.repeat(np.arange(num_layers), num_tokens)
    order = np.argsort(-score.ravel(), kind="stable")
    lengths = lower.astype(int).copy()
    left = int(total - lengths.sum())
    promised = lower.astype(int).copy()  # the first tokens a layer would take are its minimum
    for index in order:
        if left == 0:
            break
        layer = layers[index]
        if np.isnan(weights.ravel()[index]):
            continue
        if promised[layer] > 0:
            promised[layer] -= 1
        elif lengths[layer] < upper[layer]:
            lengths[layer] += 1
            left -= 1
    return lengths
