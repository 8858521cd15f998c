"""Intervals against scipy's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from apt_core.estimates import Difference, estimate, paired, welch

values = st.lists(st.floats(-100, 100), min_size=2, max_size=8).filter(lambda found: np.ptp(found) > 1e-3)


@given(values)
def test_estimate_is_scipys_t_interval(found):
    low, high = stats.t.interval(0.95, len(found) - 1, loc=np.mean(found), scale=stats.sem(found))
    mean, half, count = estimate(found)
    assert (mean - half, mean + half, count) == (pytest.approx(low), pytest.approx(high), len(found))


@given(values, values)
def test_welch_is_scipys_interval_for_unequal_variances(one, two):
    expected = stats.ttest_ind(one, two, equal_var=False)
    interval = expected.confidence_interval(0.95)
    found = welch(one, two)
    assert found.mean == pytest.approx(np.mean(one) - np.mean(two), abs=1e-9)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.count == min(len(one), len(two))


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=8))
def test_paired_is_scipys_interval_of_pairs(pairs):
    one, two = zip(*pairs, strict=True)
    assume(np.ptp(np.subtract(one, two)) > 1e-3)
    interval = stats.ttest_rel(one, two).confidence_interval(0.95)
    found = paired(one, two)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_sign_needs_the_whole_interval_on_one_side():
    assert [Difference(mean, half, 3).sign for mean, half in ((2, 1), (-2, 1), (1, 2), (1, 1), (1, None))] == [
        "above",
        "below",
        "undecided",
        "undecided",
        "undecided",
    ]


def test_what_was_not_measured_is_left_out_and_too_little_has_no_interval():
    assert welch([0.5, None], [0.25, 0.25, 0.5]) == (pytest.approx(0.5 - 1 / 3), None, 1)
    assert welch([None], [0.5]) is None
    assert paired([0.5, None, 0.75], [0.25, 0.25, float("nan")]) == (0.25, None, 1)
    assert paired([], []) is None


def test_values_without_scatter_have_no_interval_and_claim_nothing():
    for found in (welch([0.6, 0.6], [0.5, 0.5]), paired([0.6, 0.7, 0.8], [0.5, 0.6, 0.7])):
        assert found.mean == pytest.approx(0.1)
        assert (found.half, found.sign) == (None, "undecided")
