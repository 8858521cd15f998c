"""The ways to share a budget out. A new one is a file with its function, and an entry in ``METHODS``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from analysis.budgets.coverage import by_coverage
from analysis.budgets.ranked import by_threshold, by_topk
from analysis.budgets.share import by_share


class Method(NamedTuple):
    """A way to share a budget out."""

    allocate: Callable[[np.ndarray, int, np.ndarray, np.ndarray], np.ndarray]
    """weights [L, U] falling within a layer, total, minimum [L], maximum [L] -> lengths [L]; all counted in groups of
    virtual tokens, see ``ordering.grouped``"""
    description: str
    within_own_tokens: bool
    """whether a layer can get at most the virtual tokens it has, because single tokens are chosen"""
    monotone: bool
    """whether a larger total never takes a token away from a layer"""
    weighs: Literal["importance", "effect", "curve"] = "importance"
    """what the weights are: an importance that a person chooses, the measured effect of a token (``effect``), or the
    importance with the best deletion curve (``curve``)"""
    own_limit: str | None = None
    """a key of ``limits.LIMITS`` by which the method finds its total itself"""


METHODS: dict[str, Method] = {
    "share": Method(by_share, "in proportion to the layer's weight, as in the paper", False, False),
    "threshold": Method(by_threshold, "tokens close to the heaviest of their own layer", True, True),
    "topk": Method(by_topk, "the heaviest tokens of the whole run", True, True),
    "coverage": Method(by_coverage, "the same part of each layer's weight is kept", True, True, own_limit="coverage"),
    "greedy": Method(
        by_topk,
        "the tokens whose removal was measured to raise the loss most, per unit of what is limited",
        True,
        True,
        weighs="effect",
    ),
    "pareto": Method(
        by_topk,
        "the smallest total whose loss is predicted to stay near the full one, in the order of the best deletion curve",
        True,
        True,
        weighs="curve",
        own_limit="tolerance",
    ),
}
