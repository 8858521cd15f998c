"""A run's gates over the whole training: bounded in bytes, or exact over the last tenth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.gate_sample import sample_gates
from apt_core import settled
from apt_core.gate_log import GateLog
from apt_core.gate_writer import GateLogWriter
from apt_core.settled import final_weights

LENGTHS = (3, 1)


def record(folder: Path, steps: int) -> GateLog:
    """Gates of step / (steps + 1), scales of -3; the second layer has one token."""
    writer = GateLogWriter(folder, LENGTHS)
    present = np.arange(3) < np.array(LENGTHS)[:, None]
    for step in range(1, steps + 1):
        gate = np.where(present, step / (steps + 1), np.nan)
        writer.append(step, gate, np.where(present, 0.1, np.nan), np.full(2, -3.0))
    writer.close()
    return GateLog(folder)


@pytest.mark.parametrize(("steps", "last"), [(1, 1), (9, 1), (20, 2), (100, 10)])
@pytest.mark.parametrize("at_a_time", [None, 3])
def test_final_weights_average_the_last_tenth(tmp_path, monkeypatch, steps, last, at_a_time):
    if at_a_time:
        monkeypatch.setattr(settled, "BYTES_AT_A_TIME", at_a_time * 4 * 2 * 4)
    weights = final_weights(record(tmp_path, steps))
    expected = 3 * np.mean(np.arange(steps - last + 1, steps + 1)) / (steps + 1)
    np.testing.assert_allclose(weights, [[expected] * 3, [expected, np.nan, np.nan]], rtol=1e-6)


def test_sample_of_a_small_run_is_the_run_and_of_a_large_one_evenly_spaced(tmp_path):
    log = record(tmp_path, 200)
    whole = sample_gates(log, LENGTHS)
    assert (len(whole.steps), whole.thinned, whole.basis) == (200, False, "from all 200 recorded steps")
    part = sample_gates(log, LENGTHS, at_most_bytes=20 * 4 * 2 * 4)
    assert part.thinned
    assert (part.steps[0], part.steps[-1]) == (1, 200)
    assert len(part.steps) <= 20
    assert np.ptp(np.diff(part.steps)) <= 1
    assert part.basis == f"from {len(part.steps)} of 200 recorded steps, evenly spaced"
    np.testing.assert_array_equal(part.token_gate, whole.token_gate[part.steps - 1])
