"""When values settle: small series, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.settling import MIN_STEPS, settling

STEPS = np.arange(10, 410, 10)  # 40 steps: the last part is the last 4


def settled(series: list[float] | np.ndarray, steps: np.ndarray = STEPS):
    return settling(steps, np.asarray(series, dtype=float)[:, None], np.ones(1, bool))


def test_value_settles_after_the_last_step_outside_the_band():
    series = np.full(40, 1.0)
    series[:13] = 0.94  # 6 % below the final 1.0
    series[20] = 1.049  # inside again
    found = settled(series)
    assert found.settled.tolist() == [True]
    assert found.step.tolist() == [STEPS[13]]
    series[20] = 1.051
    assert settled(series).step.tolist() == [STEPS[21]]


def test_constant_value_has_settled_from_the_first_step():
    assert settled(np.full(40, 0.3)).step.tolist() == [10]
    assert settled(np.zeros(40)).step.tolist() == [10]


@pytest.mark.parametrize(
    "series",
    [
        np.linspace(-2, 1, 40),  # still moving: over the last four steps by more than the band
        [1.0] * 38 + [1.2, 1.0],  # jumps inside the last part
        [1.0] * 39 + [np.nan],
        [1.0] * 39 + [np.inf],
    ],
)
def test_value_that_leaves_the_band_in_the_last_part_has_not_settled(series):
    found = settled(series)
    assert found.unsettled.tolist() == [True]
    assert np.isnan(found.step).all()


def test_few_steps_say_nothing_and_padding_neither():
    few = settled(np.ones(MIN_STEPS - 1), np.arange(1, MIN_STEPS))
    assert (few.enough, few.settled.any()) == (False, False)
    padding = settling(STEPS, np.full((40, 1), np.nan), np.zeros(1, bool))
    assert (padding.settled.any(), padding.unsettled.any()) == (False, False)


def test_largest_gap_between_the_steps_looked_at_is_told():
    assert settled(np.ones(40), np.cumsum(np.r_[1, np.full(38, 5), 12])).between == 12
