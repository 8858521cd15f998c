"""The smallest lengths that keep a fraction of the weight of each layer."""

from __future__ import annotations

import numpy as np

from analysis.budgets.ordering import best_first
from analysis.gate_stats import layer_mass

ROUNDING = 1e-12


def by_coverage(weights: np.ndarray, total: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Lengths that keep the same fraction of each layer's weight; the fraction that gives the total.

    A token is needed from the moment that the heavier ones of its layer keep too little; among tokens needed at the
    same moment, that with the larger share of its layer comes first.
    """
    before, share = _shares(weights)
    return best_first([-before, share], total, lower, upper)


def covering(weights: np.ndarray, fraction: float, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The smallest lengths [L] that keep ``fraction`` (0 to 1) of each layer's weight, moved into the bounds.

    A layer without any weight needs no token.
    """
    before, _ = _shares(weights)
    return np.clip((before < fraction - ROUNDING).sum(axis=1), lower, upper)


def covered(weights: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Which fraction of each layer's weight its heaviest tokens keep [L]; NaN for a layer without weight."""
    falling = -np.sort(-np.nan_to_num(weights, posinf=0.0, neginf=0.0), axis=1)
    kept = (falling * (np.arange(weights.shape[1]) < lengths[:, None])).sum(axis=1)
    mass = falling.sum(axis=1)
    return np.divide(kept, mass, out=np.full(len(mass), np.nan), where=mass > 0)


def _shares(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(share of the layer's weight in heavier tokens, share in the token itself), each [L, U]."""
    mass = layer_mass(weights)[:, None]
    share = np.divide(np.nan_to_num(weights), mass, out=np.zeros_like(weights), where=mass > 0)
    before = np.cumsum(share, axis=1)[:, :-1]
    before = np.concatenate([np.zeros_like(share[:, :1]), before], axis=1)
    return np.where(mass > 0, before, np.inf), share
