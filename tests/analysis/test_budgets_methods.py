"""Coverage, greedy on measured effect and Pareto: each what its description says, checked by trying everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis.budgets import Rules, allocate, allocate_covering
from analysis.budgets.coverage import covered
from analysis.budgets.pareto import Prediction, Tolerance, best_prediction, parse_tolerance, smallest_total
from analysis.budgets.weighing import layer_effect, per_cost, weigh, weigh_effect
from apt_core.errors import AptValueError
from tests.analysis.simulated_measures import layered_effects, shuffled, simulate

WEIGHTS = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 7)), elements=st.integers(0, 9).map(float))


@given(WEIGHTS, st.integers(0, 100))
def test_coverage_keeps_the_part_asked_for_with_no_token_to_spare(weights, per_cent):
    lengths = allocate_covering(weights, per_cent).prefix_lengths
    for layer, length in zip(weights, lengths, strict=True):
        falling, wanted = sorted(layer, reverse=True), per_cent / 100 * sum(layer)
        enough = [count for count in range(len(layer) + 1) if sum(falling[:count]) >= wanted - 1e-9]
        assert length == enough[0]


@given(WEIGHTS, st.integers(0, 100))
def test_a_total_chooses_the_coverage_that_gives_it(weights, per_cent):
    by_part = allocate_covering(weights, per_cent)
    assert allocate(weights, by_part.total, "coverage") == by_part


def test_coverage_of_a_known_profile():
    weights = np.array([[0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.4, 0.3, 0.3]])
    assert allocate_covering(weights, 70).prefix_lengths == (2, 1, 2)
    assert allocate_covering(weights, 100).prefix_lengths == (3, 3, 3)
    assert allocate_covering(weights, 70, Rules(1, (1, 3, 3), 1, {2: 0})).prefix_lengths == (1, 1, 0)
    assert allocate_covering(weights, 70, Rules(multiple_of=2)).prefix_lengths == (2, 2, 2)
    assert covered(weights, np.array([2, 1, 2])) == pytest.approx([0.8, 0.9, 0.7])
    assert allocate(weights, 3, "coverage").prefix_lengths == (1, 1, 1)  # every layer before any second token


@pytest.mark.parametrize("per_cent", [-1, 101, float("nan")])
def test_coverage_out_of_range_is_refused(per_cent):
    with pytest.raises(AptValueError, match=r"coverage: got .*; accepted: 0 to 100 per cent"):
        allocate_covering(np.ones((2, 2)), per_cent)


@given(WEIGHTS, st.data())
def test_greedy_keeps_as_much_measured_effect_as_any_budget_of_its_total(effect, data):
    assume(effect.size <= 15)
    num_layers, num_tokens = effect.shape
    total = data.draw(st.integers(0, effect.size))
    falling = np.cumsum(np.concatenate([np.zeros((num_layers, 1)), -np.sort(-effect, axis=1)], axis=1), axis=1)
    kept = [
        sum(falling[layer, length] for layer, length in enumerate(lengths))
        for lengths in itertools.product(range(num_tokens + 1), repeat=num_layers)
        if sum(lengths) == total
    ]
    lengths = allocate(effect, total, "greedy").prefix_lengths
    assert sum(falling[layer, length] for layer, length in enumerate(lengths)) == max(kept)


def test_greedy_takes_single_tokens_by_their_measured_effect():
    effects = [np.array([0.1, 0.4]), np.array([0.3, 0.02]), np.array([0.01, 0.01])]
    weighed = weigh_effect(simulate(effects, tokens=True, noise=0))
    assert weighed.weights / weighed.weights.sum() == pytest.approx(np.array(effects) / np.sum(effects))
    assert allocate(weighed.weights, 3, "greedy").prefix_lengths == (2, 1, 0)


PRIMES = (31, 37, 41, 47, 53, 97, 211, 401)
"""over 30: divided by up to 30 they never tie"""


@given(st.lists(st.sampled_from(PRIMES), min_size=1, max_size=5, unique=True), st.integers(0, 30))
def test_greedy_on_whole_layers_gives_seats_as_dhondt_does(effects, total):
    measures = simulate([np.full(30, effect / 1000) for effect in effects], noise=0, num_examples=2, random_orders=0)
    layers = layer_effect(measures)
    seats = np.zeros(len(effects), int)
    for _ in range(total):
        seats[np.argmax(layers / (seats + 1))] += 1
    lengths = allocate(weigh_effect(measures).weights, total, "greedy").prefix_lengths
    assert lengths == tuple(seats)


def test_tokens_that_raise_the_loss_come_last_and_the_worst_of_them_at_the_end():
    effect = np.array([[0.2, -0.1], [-0.3, -0.05], [0.1, np.nan]])
    order = [allocate(effect, total, "greedy").prefix_lengths for total in range(6)]
    assert order == [(0, 0, 0), (1, 0, 0), (1, 0, 1), (1, 1, 1), (2, 1, 1), (2, 2, 1)]


def test_effect_per_cost_prefers_the_cheaper_of_two_equal_layers():
    effect = np.array([[0.2, 0.2], [0.2, 0.2], [0.1, -0.1], [0.01, 0.01]])
    worth = per_cost(effect, np.array([2.0, 1.0, 1.0, 0.0]))
    assert worth[:3] == pytest.approx(np.array([[0.1, 0.1], [0.2, 0.2], [0.1, -0.1]]))
    assert allocate(worth, 4, "greedy").prefix_lengths == (0, 2, 0, 2)  # what costs nothing comes first


def test_layers_of_other_lengths_and_without_prefix_are_weighed():
    effects = [np.array([0.5, 0.1, 0.1]), np.zeros(0), np.array([0.3])]
    for tokens in (True, False):
        weights = weigh_effect(simulate(effects, tokens=tokens, noise=0)).weights
        assert weights.shape == (3, 3)
        assert np.isnan(weights).tolist() == [[False] * 3, [True] * 3, [False, True, True]]
    assert np.isnan(layer_effect(simulate(effects, noise=0))).tolist() == [False, True, False]


@pytest.mark.parametrize("losses", [[None, None], [float("inf"), float("nan")]])
def test_measures_without_a_finite_loss_say_so(losses):
    measures = simulate([np.ones(2)], num_examples=2)
    for point in [measures.full, *filter(None, measures.layers)]:
        point.losses = losses
    with pytest.raises(AptValueError, match="no example has a finite loss"):
        weigh_effect(measures)
    with pytest.raises(AptValueError, match="no deletion curve in an order of importance with finite losses"):
        best_prediction(measures)


def test_examples_without_a_label_are_left_out():
    measures = simulate([np.array([0.5, 0.1])], noise=0, num_examples=3)
    expected = layer_effect(measures)
    for point in [measures.full, *filter(None, measures.layers)]:
        point.losses = [*point.losses, None]
    assert layer_effect(measures) == pytest.approx(expected)


def test_importances_come_from_measures_and_gate_from_the_log_without_them():
    log = np.ones((2, 2))
    assert weigh("gate", log, None).weights is log
    measures = simulate([np.array([0.5, 0.1]), np.array([0.3])], {"norm": [np.array([1.0, 2.0]), np.array([3.0])]})
    np.testing.assert_array_equal(weigh("norm", log, measures).weights, [[1, 2], [3, np.nan]])
    assert weigh("gate", log, measures).source == "measured on validation data"
    with pytest.raises(AptValueError, match=r"attention was not measured. 'python -m apt_core measure RUN' does it"):
        weigh("attention", log, None)
    with pytest.raises(AptValueError, match="importance: got 'magic'; accepted: gate, norm, attention, effect"):
        weigh("magic", log, measures)


LOSSES = st.lists(st.integers(0, 20).map(lambda loss: loss / 10), min_size=3, max_size=6)


@given(LOSSES, st.integers(0, 15), st.integers(0, 15))
def test_smallest_total_is_the_first_from_which_all_larger_ones_stay_within(losses, tolerance, more):
    kept = np.array([0, 3, 4, 9, 12, 20][: len(losses)])
    prediction = Prediction("gate", kept, np.array(losses))
    found = smallest_total(prediction, Tolerance(tolerance / 10, False))
    allowed = losses[-1] + tolerance / 10 + 1e-9
    within = [np.interp(total, kept, losses) <= allowed for total in range(kept[-1] + 1)]
    assert all(within[found:])
    assert found == 0 or not within[found - 1]
    assert smallest_total(prediction, Tolerance((tolerance + more) / 10, False)) <= found


def test_tolerance_in_per_cent_is_of_the_full_loss():
    prediction = Prediction("gate", np.array([0, 10]), np.array([3.0, 2.0]))
    assert smallest_total(prediction, parse_tolerance("25%")) == smallest_total(prediction, parse_tolerance("0.5")) == 5
    assert smallest_total(prediction, parse_tolerance("0")) == 10
    assert smallest_total(prediction, parse_tolerance("1")) == 0


def test_basis_of_a_prediction_says_what_was_measured():
    prediction = Prediction("gate", np.array([0, 4, 10]), np.array([3.0, 2.5, 2.0]))
    assert prediction.basis(4) == "measured at 4 tokens"
    assert prediction.basis(6) == "interpolated between 4 and 10 measured tokens"
    assert prediction.basis(12) == "that of all 10 tokens, because more were not measured"
    assert prediction.at(12) == 2.0


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "inf", "5%%", "%"])
def test_tolerance_that_is_none_is_refused(text):
    with pytest.raises(AptValueError, match="tolerance: got"):
        parse_tolerance(text)


@pytest.mark.parametrize("best", ["norm", "attention", "effect"])
def test_pareto_follows_the_best_curve(best):
    effects = layered_effects(1)
    wrong = {name: shuffled(effects, seed) for seed, name in enumerate(("gate", "norm", "attention", "effect"))}
    measures = simulate(effects, wrong | {best: effects}, noise=0)
    prediction = best_prediction(measures)
    assert prediction.order == best
    sensitivity = (np.mean(measures.empty.losses) - prediction.full_loss) / np.sum(effects)
    total = smallest_total(prediction, Tolerance(0.1 * sensitivity, False))
    removed = np.cumsum(np.sort(np.concatenate(effects)))
    exact = len(removed) - int((removed <= 0.1).sum())
    assert exact <= total <= exact + 3  # linear between sizes lies above a curve that bends upwards
