"""A run's gates over the whole training, bounded in bytes: all recorded steps, or evenly spaced ones of a large run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analysis.gate_stats import present_tokens
from apt_core.gate_log import GateLog
from apt_core.settled import last_part

MAX_BYTES = 24 * 2**20
"""of gates read for statistics over the whole training"""


class GateSample(NamedTuple):
    """Gates of the steps that were looked at. S of them, L layers, P virtual tokens; NaN is padding or diverged."""

    steps: np.ndarray  # [S]
    token_gate: np.ndarray  # [S, L, P]
    layer_scale: np.ndarray  # [S, L]
    last_std: np.ndarray  # [s, L, P] over the batch, at the last part of the steps
    present: np.ndarray  # [L, P] bool
    recorded: int  # steps in the log

    @property
    def thinned(self) -> bool:
        """Whether recorded steps were passed over."""
        return len(self.steps) < self.recorded

    @property
    def basis(self) -> str:
        """What statistics of this sample rest on, in words."""
        if self.thinned:
            return f"from {len(self.steps):,} of {self.recorded:,} recorded steps, evenly spaced"
        return f"from all {self.recorded:,} recorded steps" if self.recorded > 1 else "from 1 recorded step"


def sample_gates(log: GateLog, prefix_lengths: Sequence[int], at_most_bytes: int = MAX_BYTES) -> GateSample:
    """Reads at most ``at_most_bytes`` of token gates and layer scales, evenly spread, first and last step included.

    Raises:
        AptError: if the log cannot be read.
    """
    names = ("token_gate", "layer_scale")
    indices = np.asarray(log.thinned(at_most_bytes, names))
    columns = log.rows(indices, names)
    last_std = log.rows(indices[-last_part(len(indices)) :], ("token_gate_std",))["token_gate_std"]
    present = present_tokens(prefix_lengths, log.num_virtual_tokens)
    return GateSample(
        log.steps[indices], columns["token_gate"], columns["layer_scale"], last_std, present, len(log.steps)
    )
