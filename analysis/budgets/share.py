"""Lengths in proportion to the weight of a layer (Zhang et al., section 4.3, PT-2*)."""

from __future__ import annotations

import numpy as np

from analysis.gate_stats import layer_mass
from apt_core.shares import share


def by_share(weights: np.ndarray, total: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Lengths proportional to the summed weights of a layer, see ``apt_core.shares.share``.

    As with every method of largest remainders, one more token in all can take one away from a layer.
    """
    return share(np.maximum(layer_mass(weights), 0.0), total, lower, upper)
