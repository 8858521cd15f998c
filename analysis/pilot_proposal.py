"""The lengths that a pilot proposes after the audit of its first run. No torch, no Streamlit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analysis.budgets import allocate, uniform
from analysis.budgets.weighing import Weighed, weigh
from analysis.pilot import ChosenBudget
from analysis.verdict import UNIFORM
from apt_core.errors import bad_value
from apt_core.measure_format import Measures

KEPT_PERCENT = 50
"""virtual tokens that a proposal keeps of the full length"""


class Proposal(NamedTuple):
    """Lengths to retrain with, and where they come from."""

    budget: ChosenBudget
    weighed: Weighed | None  # None: uniform


def propose(total: int, weighed_by: str, log_weights: np.ndarray, measures: Measures | None) -> Proposal:
    """Shares ``total`` virtual tokens out in proportion to what the layers weigh.

    Args:
        total: over all layers.
        weighed_by: a key of ``IMPORTANCES``, or uniform.
        log_weights: of the first run [L, P], see ``final_weights``.
        measures: of the same run; None: not measured.

    Raises:
        AptValueError: if the importance was not measured, or the total cannot be met.
    """
    if total < 1:
        raise bad_value("total", total, "at least 1 virtual token")
    if weighed_by == UNIFORM:
        lengths = uniform(total, len(log_weights)).prefix_lengths
        return Proposal(ChosenBudget(weighed_by=UNIFORM, prefix_lengths=lengths), None)
    weighed = weigh(weighed_by, log_weights, measures)
    lengths = allocate(weighed.weights, total).prefix_lengths
    return Proposal(ChosenBudget(weighed_by=weighed_by, prefix_lengths=lengths), weighed)
