"""What a budget is limited by, and what lengths cost in that unit; pure numpy. Axis: L layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analysis.costs import Cost, TokenCosts, cost_of, token_costs
from apt_core.errors import AptValueError
from apt_core.inference_format import Inference
from apt_core.run_format import RunInfo


class Limit(NamedTuple):
    """One kind of limit."""

    label: str
    description: str
    whole: bool
    """whether the amount is an integer"""


LIMITS: dict[str, Limit] = {
    "total": Limit("virtual tokens", "virtual tokens over all layers", True),
    "parameters": Limit("trained parameters", "parameters trained at most: prefix, gates, scales and head", True),
    "kv-bytes": Limit("KV-cache bytes", "bytes of keys and values that virtual tokens add per sequence at most", True),
    "milliseconds": Limit(
        "added milliseconds", "milliseconds that virtual tokens add to a forward pass at most", False
    ),
    "coverage": Limit("% of the weight", "per cent of each layer's weight to keep; the total follows from it", False),
    "tolerance": Limit(
        "loss tolerance",
        "how far over the full loss the predicted loss may be, in nats, or per cent with %; the total follows from it",
        False,
    ),
}
COSTED = {"parameters": "parameters", "kv-bytes": "kv_cache_bytes", "milliseconds": "milliseconds"}
"""limits that need costs -> the field of ``Cost`` and of ``TokenCosts``"""


class RunCosts(NamedTuple):
    """What the lengths of a run cost."""

    info: RunInfo
    inference: Inference | None
    token: TokenCosts
    problem: str = ""
    """why its measured latencies cannot be used, a sentence; empty where nothing is wrong with them"""

    def knows(self, limit: str) -> bool:
        """Whether costs in the unit of a limit are known."""
        return getattr(self.token, COSTED[limit]) is not None

    def per_token(self, limit: str) -> np.ndarray:
        """Cost of one more virtual token of each layer [L], in the unit of a limit; what is measured below 0 is 0.

        Raises:
            AptValueError: if it is not known, with the reason.
        """
        if not self.knows(limit):
            raise AptValueError(f"{limit}: not known for this run: {self.token.reasons[COSTED[limit]]}.")
        return np.maximum(getattr(self.token, COSTED[limit]), 0)

    def of(self, lengths: Sequence[int] | np.ndarray) -> Cost:
        """Everything that lengths [L] cost."""
        return cost_of(self.info, [int(length) for length in lengths], self.inference)

    def cost(self, limit: str, lengths: Sequence[int] | np.ndarray) -> float:
        """What lengths [L] cost, in the unit of a limit that is known."""
        return getattr(self.of(lengths), COSTED[limit])

    def unevenness(self, limit: str) -> float:
        """How much more the lengths of a smaller total can cost than those of a larger one, if none is more than one
        virtual token away from exact proportion."""
        each = self.per_token(limit)
        every, none = self.cost(limit, np.ones(len(each))), self.cost(limit, np.zeros(len(each)))
        return float(2 * np.abs(each - np.median(each)).sum() + every - none - each.sum())


def run_costs(info: RunInfo, inference: Inference | None) -> RunCosts:
    """The costs of a run.

    Raises:
        AptValueError: if ``apt_config`` of the run is none.
    """
    return RunCosts(info, inference, token_costs(info, inference))
