"""Statistics of small arrays, computed by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from analysis.gate_stats import (
    batch_spread,
    difference,
    finite,
    heaviest_first,
    heaviest_tokens,
    largest,
    layer_mass,
    layer_profile,
    not_finite,
    present_tokens,
    quantity,
    smallest_positive,
)
from apt_core.errors import AptValueError

NAN = np.nan
GATE = np.array([[0.2, 0.4], [0.5, NAN], [NAN, NAN]])
SCALE = np.array([2.0, -1.0, NAN])


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("weight", [[0.4, 0.8], [0.5, NAN], [NAN, NAN]]),
        ("token gate", GATE),
        ("layer scale", [[2.0, 2.0], [1.0, NAN], [NAN, NAN]]),
    ],
)
def test_quantity_of_one_step_and_of_many(name, expected):
    np.testing.assert_allclose(quantity(name, GATE, SCALE), expected)
    np.testing.assert_allclose(quantity(name, GATE[None], SCALE[None])[0], expected)


def test_layer_profile_leaves_absent_tokens_out():
    profile = layer_profile(GATE, np.where(np.isnan(GATE), NAN, 0.1))
    np.testing.assert_allclose(profile.mean, [0.3, 0.5, NAN])
    np.testing.assert_allclose(profile.over_tokens, [0.1, 0.0, NAN])
    np.testing.assert_allclose(profile.over_batch, [0.1, 0.1, NAN])


def test_layer_mass_sums_what_is_there():
    np.testing.assert_allclose(layer_mass(GATE), [0.6, 0.5, 0.0])


def test_heaviest_tokens_are_the_best_of_each_layer():
    assert heaviest_tokens(GATE) == [(0, 1), (1, 0)]
    assert heaviest_tokens(GATE, at_most=1) == [(1, 0)]
    assert heaviest_tokens(np.zeros((2, 0))) == []


def test_heaviest_first_orders_each_layer_and_puts_what_is_absent_last():
    assert heaviest_first(np.array([[0.2, 0.9, NAN], [0.5, 0.5, 0.6]])).tolist() == [[1, 0, 2], [2, 0, 1]]


def test_padding_is_no_lost_gate_but_nan_and_infinity_of_a_token_are():
    values = np.array([[0.5, NAN, NAN], [np.inf, NAN, 0.1]])
    assert present_tokens((1, 3), 3).tolist() == [[True, False, False], [True, True, True]]
    assert not_finite(values, (1, 3)) == 2
    assert (largest(values), smallest_positive(np.array([0.0, -1.0, 0.25, NAN]))) == (0.5, 0.25)
    np.testing.assert_array_equal(finite(values), [[0.5, NAN, NAN], [NAN, NAN, 0.1]])


@pytest.mark.parametrize("values", [np.zeros((2, 0)), np.full((1, 2), NAN)])
def test_extremes_of_nothing_are_none(values):
    assert (largest(values), smallest_positive(values)) == (None, None)


def test_spread_over_the_batch_scales_with_the_layer_and_is_0_for_a_scale():
    spread = np.array([[0.1, NAN]])
    np.testing.assert_allclose(batch_spread("weight", spread, np.array([-2.0])), [[0.2, NAN]])
    np.testing.assert_allclose(batch_spread("token gate", spread, np.array([-2.0])), spread)
    np.testing.assert_allclose(batch_spread("layer scale", spread, np.array([-2.0])), [[0.0, NAN]])


def test_difference_of_other_shapes_is_refused_with_both():
    np.testing.assert_allclose(difference(GATE, GATE / 2), GATE / 2)
    with pytest.raises(AptValueError, match=r"got '\[L, P\] = \[1, 2\]'; accepted: \[3, 2\]"):
        difference(GATE, np.zeros((1, 2)))
