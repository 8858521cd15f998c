"""What the methods share: tokens in groups, and giving out by rank; pure numpy.

Axes: L layers, P virtual tokens, U groups of virtual tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

HEAVIEST = 1e290
"""larger weights count as this, so that sums stay finite"""


def grouped(weights: np.ndarray, group: int) -> np.ndarray:
    """Sums of ``group`` virtual tokens each, the heaviest of a layer first.

    What a layer has beyond full groups makes a last, smaller one. Infinite weights, of a diverged gate, count as 0.

    Args:
        weights: [L, P], NaN where a layer has no such virtual token.

    Returns:
        [L, U], falling within each layer, NaN where there is none.
    """
    known = np.minimum(np.where(np.isinf(weights), 0.0, weights), HEAVIEST, dtype=np.float64)
    falling = -np.sort(-known, axis=1)  # NaN last
    num_layers, num_tokens = falling.shape
    num_groups = -(-num_tokens // group)
    padded = np.full((num_layers, num_groups * group), np.nan)
    padded[:, :num_tokens] = falling
    parts = padded.reshape(num_layers, num_groups, group)
    return np.where(np.isnan(parts).all(axis=2), np.nan, np.nansum(parts, axis=2))


def best_first(scores: Sequence[np.ndarray], total: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Gives every layer its minimum, then takes what is left by score; ties: the lower layer, then the lower token.

    Because scores fall within a layer, a larger total never takes a token away.

    Args:
        scores: the most important one first, each [L, U], not rising within a layer.
        total: between the sums of ``lower`` and ``upper``.
        lower, upper: bounds [L].

    Returns:
        lengths [L].
    """
    place = np.arange(scores[0].shape[1])
    open_places = (place >= lower[:, None]) & (place < upper[:, None])
    layer = np.nonzero(open_places)[0]
    order = np.lexsort([-score[open_places] for score in reversed(scores)])
    taken = layer[order[: total - lower.sum()]]
    return lower + np.bincount(taken, minlength=len(lower))
