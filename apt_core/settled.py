"""The weights that a run's gates settled on: what budgets, transfers and verdicts rest on. Pure numpy, no torch.

Axes: L layers, P virtual tokens of the longest prefix.
"""

from __future__ import annotations

import numpy as np

from apt_core.errors import AptValueError
from apt_core.gate_log import GateLog

SETTLED_FRACTION = 0.1
"""weights are averaged over this last part of the recorded steps"""
SATURATED = 0.02
"""a token gate closer than this to 0 or 1 has under 8 % of the gradient that it has at 1/2"""
DIVERGED = "the gates are not finite at the end of training: it diverged"
BYTES_AT_A_TIME = 24 * 2**20
"""of gates in memory"""


def last_part(num_steps: int) -> int:
    """How many steps ``SETTLED_FRACTION`` of ``num_steps`` is; at least one."""
    return max(1, round(SETTLED_FRACTION * num_steps))


def final_weights(log: GateLog) -> np.ndarray:
    """Weights |lambda_i| alpha_i (eq. 4) averaged over the last tenth of the recorded steps.

    Exact also for large runs: every one of these steps is read, some at a time.

    Returns:
        [L, P]; NaN where a layer has no such virtual token, infinite where the training diverged.

    Raises:
        AptError: if the log cannot be read.
    """
    end = len(log.steps)
    start = end - last_part(end)
    at_a_time = max(1, BYTES_AT_A_TIME // (4 * log.num_layers * (log.num_virtual_tokens + 1)))
    total = np.zeros((log.num_layers, log.num_virtual_tokens))
    for first in range(start, end, at_a_time):
        columns = log.read(("token_gate", "layer_scale"), first, min(first + at_a_time, end))
        with np.errstate(over="ignore", invalid="ignore"):  # a training that diverged
            total += (columns["token_gate"] * np.abs(columns["layer_scale"])[..., None]).sum(axis=0)
    return np.where(_present(log) & ~np.isfinite(total), np.inf, total / (end - start))


def is_saturated(token_gate: np.ndarray) -> np.ndarray:
    """Which token gates hardly learn any more: a sigmoid's gradient is alpha (1 - alpha). False for NaN; any shape."""
    with np.errstate(invalid="ignore"):
        return (token_gate < SATURATED) | (token_gate > 1 - SATURATED)


def settled_mass(log: GateLog) -> np.ndarray:
    """Gate mass of each layer: its final weights, summed over its virtual tokens.

    Returns:
        [L]; 0 for a layer without virtual tokens.

    Raises:
        AptValueError: if nothing was recorded, the log cannot be read, or the training diverged.
    """
    if not len(log):
        raise AptValueError(f"{log.folder}: no recorded gates.")
    mass = np.where(_present(log), final_weights(log), 0).sum(axis=1)
    if not np.isfinite(mass).all():
        raise AptValueError(f"{log.folder}: {DIVERGED}.")
    return mass


def _present(log: GateLog) -> np.ndarray:
    """Which virtual tokens there are: bool [L, P]."""
    return np.arange(log.num_virtual_tokens) < np.array(log.prefix_lengths)[:, None]
