"""From one number per layer to virtual tokens per layer that sum exactly to a total; pure numpy, no torch.

Axes: L layers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from apt_core.config import MAX_TOKENS_PER_LAYER
from apt_core.errors import bad_value

_SMALLEST = 1e-200
"""part of the largest mass; bounds divided by less would overflow"""


def share(
    mass: Sequence[float] | np.ndarray,
    total: int,
    lower: Sequence[int] | np.ndarray | int = 0,
    upper: Sequence[int] | np.ndarray | int = MAX_TOKENS_PER_LAYER,
) -> np.ndarray:
    """Lengths in proportion to ``mass`` (Zhang et al., section 4.3, PT-2*), within bounds.

    Bounds are met by fixing the layers that would break them and sharing the rest among the others; what is left
    after rounding down goes to the largest remainders, the lower layer first among equals. Layers without mass get
    what the others cannot take.

    Args:
        mass: [L], 0 or larger.
        total: virtual tokens over all layers.
        lower, upper: bounds of each layer [L], or one for all.

    Returns:
        [L] integers that sum to ``total``.

    Raises:
        AptValueError: if a mass is negative or not finite, or the bounds do not allow the total.
    """
    mass = np.asarray(mass, dtype=np.float64)
    lower, upper = (np.broadcast_to(np.asarray(bound, dtype=np.int64), mass.shape) for bound in (lower, upper))
    if mass.ndim != 1 or not mass.size or not (np.isfinite(mass) & (mass >= 0)).all():
        raise bad_value("mass", mass.tolist(), "one finite number per layer, 0 or larger")
    if not lower.sum() <= total <= upper.sum():
        raise bad_value("total", total, f"{lower.sum()} to {upper.sum()} for {mass.size} layers")
    quota = _bounded(mass, total, lower, upper)
    lengths = np.floor(quota + 1e-9).astype(np.int64)
    order = np.lexsort((np.arange(mass.size), -np.round(quota - lengths, 9)))
    while lengths.sum() < total:
        with_room = order[lengths[order] < upper[order]]
        lengths[with_room[: total - lengths.sum()]] += 1
    return lengths


def uniform_lengths(total: int, num_layers: int) -> tuple[int, ...]:
    """The same length in every layer; what is left over goes to the first ones."""
    return tuple(share(np.ones(num_layers), total).tolist())


def random_lengths(total: int, num_layers: int, seed: int | Sequence[int]) -> tuple[int, ...]:
    """In proportion to a point drawn evenly from all splits of 1 over the layers: the same for the same seed."""
    return tuple(share(np.random.default_rng(seed).dirichlet(np.ones(num_layers)), total).tolist())


def _bounded(mass: np.ndarray, total: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Real-valued shares within the bounds: clip(factor x mass), with the factor that meets the total."""
    mass = mass / mass.max() if mass.max() > 0 else np.ones_like(mass)
    mass = np.where(mass > 0, np.maximum(mass, _SMALLEST), mass)
    mass = np.where(mass > 0, mass, mass[mass > 0].min() * 1e-12)
    breaks = np.unique(np.concatenate([lower / mass, upper / mass]))

    def met(factor: float) -> float:
        return float(np.clip(factor * mass, lower, upper).sum())

    after = min(bisect_left(breaks, total, key=met), len(breaks) - 1)
    high = breaks[after]
    if met(high) == total or after == 0:
        return np.clip(high * mass, lower, upper)
    low = breaks[after - 1]  # the sum is linear between two breaks
    factor = low + (high - low) * (total - met(low)) / (met(high) - met(low))
    return np.clip(factor * mass, lower, upper)
