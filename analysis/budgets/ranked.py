"""The heaviest tokens: of the whole run (topk), or compared within their own layer (threshold)."""

from __future__ import annotations

import numpy as np

from analysis.budgets.ordering import best_first


def by_topk(weights: np.ndarray, total: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The heaviest (layer, token) pairs of the whole run, after every layer has its minimum."""
    return best_first([weights], total, lower, upper)


def by_threshold(weights: np.ndarray, total: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Tokens whose weight is at least a fraction of the heaviest of their own layer; the fraction that gives the total.

    Unlike ``by_topk`` it does not compare layers with each other: a layer keeps many tokens if they are alike.
    """
    heaviest = np.max(np.nan_to_num(weights), axis=1, keepdims=True, initial=0.0)
    relative = np.divide(weights, heaviest, out=np.zeros_like(weights), where=heaviest > 0)
    return best_first([relative], total, lower, upper)
