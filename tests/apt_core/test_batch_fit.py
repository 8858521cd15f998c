"""The estimate of what a batch needs, on passes whose need is known exactly."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_core.batch_fit import CLEAR, MORE, SAFE, fit_batch

ROOM = 1000.0


class Passes:
    """Passes that take ``fixed + each * examples`` bytes, and run out where that is more than there is."""

    def __init__(self, fixed: float, each: float, room: float = ROOM) -> None:
        self.fixed, self.each, self.room = fixed, each, room
        self.measured: list[int] = []

    def need(self, examples: int) -> float:
        return self.fixed + self.each * examples

    def __call__(self, examples: int) -> float | None:
        self.measured.append(examples)
        return self.need(examples) if self.need(examples) <= self.room else None


@given(fixed=st.floats(0, 400), each=st.floats(0.01, 2000), batch_size=st.integers(1, 5000))
def test_what_is_said_to_fit_fits_and_no_pass_but_the_first_runs_out(fixed, each, batch_size):
    passes = Passes(fixed, each)
    fit = fit_batch(passes, batch_size, ROOM)
    assert 0 <= fit.largest <= batch_size
    if fit.largest:
        assert passes.need(fit.largest) <= ROOM * 1.0001
    else:
        assert passes.need(1) > SAFE * ROOM
    assert all(passes.need(size) <= ROOM for size in passes.measured[1:])
    assert len(passes.measured) <= 3


@given(fixed=st.floats(0, 100), each=st.floats(0.01, 100), batch_size=st.integers(5, 5000))
def test_batch_that_fits_is_accepted_and_of_others_the_largest_is_found(fixed, each, batch_size):
    passes = Passes(fixed, each)
    fit = fit_batch(passes, batch_size, ROOM)
    if passes.need(batch_size) <= SAFE * ROOM:
        assert fit.largest == batch_size
    elif passes.need(batch_size) > ROOM * 1.0001:
        assert fit.largest in (largest := math.floor((SAFE * ROOM - fixed) / each), largest - 1, batch_size - 1)
        assert fit.need == pytest.approx(passes.need(batch_size), rel=1e-6)


def test_one_example_is_enough_where_there_is_plenty():
    passes = Passes(0, 1)
    assert fit_batch(passes, int(CLEAR * ROOM), ROOM) == (CLEAR * ROOM, CLEAR * ROOM)
    assert passes.measured == [1]


def test_more_examples_are_looked_at_only_in_doubt():
    for each, measured in ((0.6, [1, MORE]), (0.9, [1, MORE, 250]), (1.6, [1, MORE])):
        passes = Passes(0, each)
        fit_batch(passes, 1000, ROOM)
        assert passes.measured == measured


def test_first_pass_that_runs_out_leaves_no_batch():
    fit = fit_batch(Passes(0, 2 * ROOM), 16, ROOM)
    assert (fit.largest, fit.need) == (0, math.inf)


def test_pass_that_runs_out_against_the_estimate_halves_what_is_proposed():
    """As where something else takes the memory meanwhile."""

    def measure(examples: int) -> float | None:
        return 20.0 * examples if examples < MORE else None

    fit = fit_batch(measure, 40, ROOM)
    assert fit.largest == MORE // 2
    assert fit.need >= ROOM


def test_nothing_left_fits_nothing():
    assert fit_batch(Passes(0, 1), 8, -5.0).largest == 0
