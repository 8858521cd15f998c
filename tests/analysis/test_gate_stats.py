"""Statistics of small arrays, computed by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from analysis.gate_stats import heaviest_tokens, layer_mass, layer_profile, quantity, settled_weights

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


@pytest.mark.parametrize(("num_steps", "last"), [(1, 1), (9, 1), (20, 2), (100, 10)])
def test_settled_weights_average_the_last_tenth(num_steps, last):
    gate = np.broadcast_to(np.arange(num_steps)[:, None, None] / num_steps, (num_steps, 2, 3))
    expected = np.full((2, 3), 3 * gate[-last:].mean())
    np.testing.assert_allclose(settled_weights(gate, np.full((num_steps, 2), 3.0)), expected)


def test_layer_mass_sums_what_is_there():
    np.testing.assert_allclose(layer_mass(GATE), [0.6, 0.5, 0.0])


def test_heaviest_tokens_are_the_best_of_each_layer():
    assert heaviest_tokens(GATE) == [(0, 1), (1, 0)]
    assert heaviest_tokens(GATE, at_most=1) == [(1, 0)]
    assert heaviest_tokens(np.zeros((2, 0))) == []
