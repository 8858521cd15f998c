"""How few virtual tokens keep the loss near the full one, as the deletion curves of a run predict it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from analysis.budgets.weighing import measure_command, not_measured
from analysis.curves import area, complete_examples, curves_by_order, loss_table
from apt_core.errors import AptValueError, bad_value
from apt_core.measure_format import Measures

ROUNDING = 1e-12


class Prediction(NamedTuple):
    """Loss against virtual tokens kept, measured without retraining and linear between the measured sizes."""

    order: str
    """a key of ``IMPORTANCES``: the least important tokens go first"""
    kept: np.ndarray  # [n] rising from 0 to all
    loss: np.ndarray  # [n] nats

    @property
    def full_loss(self) -> float:
        """With all virtual tokens, nats."""
        return float(self.loss[-1])

    def at(self, total: int | np.ndarray) -> float | np.ndarray:
        """The predicted loss with ``total`` virtual tokens, nats; at most all of them count."""
        return np.interp(total, self.kept, self.loss)

    def basis(self, total: int) -> str:
        """What the prediction for a total rests on, in words."""
        if total in self.kept:
            return f"measured at {total} tokens"
        above = int(np.searchsorted(self.kept, total))
        if above == len(self.kept):
            return f"that of all {self.kept[-1]} tokens, because more were not measured"
        return f"interpolated between {self.kept[above - 1]} and {self.kept[above]} measured tokens"


class Tolerance(NamedTuple):
    """How much larger than the full loss a loss may be."""

    amount: float
    """nats, or per cent of the full loss"""
    relative: bool

    def nats(self, full_loss: float) -> float:
        """The tolerance in nats."""
        return self.amount / 100 * abs(full_loss) if self.relative else self.amount


def parse_tolerance(text: str) -> Tolerance:
    """Reads ``"0.05"`` (nats) or ``"5%"`` (of the full loss).

    Raises:
        AptValueError: if it is no number, negative or not finite.
    """
    number = text.strip().removesuffix("%")
    try:
        amount = float(number)
    except ValueError:
        amount = float("nan")
    if not 0 <= amount < float("inf"):
        raise bad_value("tolerance", text, "nats such as 0.05, or per cent of the full loss such as 5%")
    return Tolerance(amount, text.strip().endswith("%"))


def best_prediction(measures: Measures | None, folder: Path | None = None) -> Prediction:
    """The deletion curve with the smallest mean loss over all sizes, among those in an order of importance.

    Args:
        measures: of the run; None where there are none.
        folder: of the run, for messages.

    Raises:
        AptValueError: if no such curve was measured, or no example has all its losses.
    """
    if measures is None:
        raise not_measured("method: pareto rests on deletion curves", folder)
    named, _ = curves_by_order(measures)
    if not any(order in measures.importance for order in named):
        raise AptValueError(
            f"pareto: no deletion curve in an order of importance was measured; "
            f"{measure_command(folder, everything=True)}."
        )
    complete = complete_examples(measures)
    predictions = [
        Prediction(order, np.array(curve.kept[::-1]), loss_table(curve.points)[::-1, complete].mean(axis=1))
        for order, curve in named.items()
        if order in measures.importance and complete.any()
    ]
    if not predictions:
        raise AptValueError(
            "measures.json: holds no deletion curve in an order of importance with finite losses, which pareto needs."
        )
    return min(predictions, key=lambda each: area(each.kept[::-1], each.loss[::-1]))


def smallest_total(prediction: Prediction, tolerance: Tolerance) -> int:
    """The smallest total such that it and every larger one are predicted to stay within the tolerance."""
    totals = np.arange(prediction.kept[-1] + 1)
    allowed = prediction.full_loss + tolerance.nats(prediction.full_loss)
    outside = np.flatnonzero(prediction.at(totals) > allowed + ROUNDING)
    return int(outside[-1]) + 1 if len(outside) else 0
