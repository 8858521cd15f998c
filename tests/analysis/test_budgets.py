"""Budgets: exact, within bounds, deterministic; each method what its description says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis.budgets import METHODS, allocate, uniform
from apt_core.errors import AptValueError

WEIGHT = st.one_of(st.floats(0, 100, width=32), st.just(float("nan")))


@st.composite
def weights_of(draw, max_layers: int = 12, max_tokens: int = 9) -> np.ndarray:
    shape = (draw(st.integers(1, max_layers)), draw(st.integers(1, max_tokens)))
    return draw(arrays(np.float32, shape, elements=WEIGHT))


@st.composite
def cases(draw) -> tuple[np.ndarray, str, int, int, int]:
    """Weights, method, total, minimum and maximum that can be met."""
    weights = draw(weights_of())
    method = draw(st.sampled_from(sorted(METHODS)))
    at_most = draw(st.integers(0, 40))
    own = (~np.isnan(weights)).sum(axis=1)
    upper = np.minimum(own, at_most) if METHODS[method].within_own_tokens else np.full(len(weights), at_most)
    at_least = draw(st.integers(0, int(upper.min())))
    total = draw(st.integers(at_least * len(weights), int(upper.sum())))
    return weights, method, total, at_least, at_most


@given(cases())
def test_every_budget_sums_to_the_total_within_its_bounds(case):
    weights, method, total, at_least, at_most = case
    budget = allocate(weights, total, method, at_least, at_most)
    assert sum(budget.prefix_lengths) == budget.total == total
    assert all(at_least <= length <= at_most for length in budget.prefix_lengths)
    assert len(budget.prefix_lengths) == len(weights)
    assert allocate(weights, total, method, at_least, at_most) == budget


@given(cases())
def test_token_methods_never_give_more_than_a_layer_has(case):
    weights, method, total, at_least, at_most = case
    assume(METHODS[method].within_own_tokens)
    own = (~np.isnan(weights)).sum(axis=1)
    assert (allocate(weights, total, method, at_least, at_most).prefix_lengths <= own).all()


@given(cases(), st.integers(0, 5))
def test_token_methods_are_monotone_in_the_total(case, more):
    weights, method, total, at_least, at_most = case
    assume(METHODS[method].within_own_tokens)
    own = np.minimum((~np.isnan(weights)).sum(axis=1), at_most)
    assume(total + more <= own.sum())
    smaller = allocate(weights, total, method, at_least, at_most).prefix_lengths
    larger = allocate(weights, total + more, method, at_least, at_most).prefix_lengths
    assert all(a <= b for a, b in zip(smaller, larger, strict=True))


@given(st.permutations(list(range(1, 25))), st.integers(0, 24))
def test_permuted_layers_give_permuted_lengths(numbers, total):
    weights = np.array(numbers, dtype=np.float64).reshape(6, 4)
    order = np.argsort(weights[:, 0])
    straight = np.array(allocate(weights, total, "topk").prefix_lengths)
    assert (np.array(allocate(weights[order], total, "topk").prefix_lengths) == straight[order]).all()
    straight = np.array(allocate(weights, total, "share").prefix_lengths)
    permuted = np.array(allocate(weights[order], total, "share").prefix_lengths)
    assert np.abs(permuted - straight[order]).max() <= 1  # equal remainders go to the lower layer


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(0, 300))
def test_share_is_within_one_token_of_exact_proportion(mass, total):
    weights = np.array(mass, dtype=np.float64)[:, None]
    lengths = np.array(allocate(weights, total).prefix_lengths)
    exact = total * weights[:, 0] / weights.sum()
    assert (np.abs(lengths - exact) < 1).all()


def test_share_of_a_known_profile():
    weights = np.array([[0.5, 0.5], [1.0, 1.0], [0.0, 1.0]])  # masses 1, 2, 1
    assert allocate(weights, 8).prefix_lengths == (2, 4, 2)
    assert allocate(weights, 9).prefix_lengths == (2, 5, 2)  # quotas 2.25 4.5 2.25
    assert allocate(weights, 8, max_per_layer=3).prefix_lengths == (3, 3, 2)
    assert allocate(weights, 8, min_per_layer=2, max_per_layer=5).prefix_lengths == (2, 4, 2)


def test_topk_takes_the_heaviest_pairs_of_the_run():
    weights = np.array([[0.9, 0.1, 0.2], [0.5, 0.6, 0.4], [0.3, np.nan, np.nan]])
    assert allocate(weights, 3, "topk").prefix_lengths == (1, 2, 0)
    assert allocate(weights, 3, "topk", min_per_layer=1).prefix_lengths == (1, 1, 1)
    assert allocate(weights, 4, "topk", max_per_layer=2).prefix_lengths == (1, 2, 1)


def test_threshold_compares_tokens_within_their_layer():
    weights = np.array([[0.9, 0.1, 0.1], [0.1, 0.1, 0.1]])
    assert allocate(weights, 4, "threshold").prefix_lengths == (1, 3)
    assert allocate(weights, 4, "topk").prefix_lengths == (3, 1)


def test_equal_weights_give_equal_lengths_the_rest_to_the_first_layers():
    assert allocate(np.ones((4, 5)), 10).prefix_lengths == (3, 3, 2, 2)
    assert uniform(10, 4).prefix_lengths == (3, 3, 2, 2)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_512_layers_and_one_layer_work(method):
    weights = np.random.default_rng(0).random((512, 16))
    assert sum(allocate(weights, 4_000, method).prefix_lengths) == 4_000
    assert allocate(weights[:1], 7, method).prefix_lengths == (7,)


def test_layers_without_weight_get_something_only_when_the_others_are_full():
    weights = np.array([[np.nan, np.nan], [0.0, 0.0], [1.0, 1.0]])
    assert allocate(weights, 6).prefix_lengths == (0, 0, 6)
    assert allocate(weights, 6, max_per_layer=4).prefix_lengths == (1, 1, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"total": 200, "method": "topk"}, "total: got 200; accepted: 0 to 6 for 2 layers"),
        ({"total": 7, "max_per_layer": 3}, "total: got 7; accepted: 0 to 6 for 2 layers"),
        ({"total": 3, "min_per_layer": 2}, "total: got 3; accepted: 4 to 2048"),
        ({"total": -1}, "total: got -1; accepted: an integer, 0 or larger"),
        ({"total": 2.5}, "total: got 2.5; accepted: an integer"),
        ({"total": 4, "min_per_layer": -1}, "min-per-layer: got -1"),
        ({"total": 4, "min_per_layer": 4, "max_per_layer": 3}, "min-per-layer: got 4; accepted: at most 3"),
        ({"total": 4, "method": "magic"}, "method: got 'magic'; accepted: share, threshold, topk"),
    ],
)
def test_allocate_with_a_budget_that_cannot_be_raises(arguments, message):
    with pytest.raises(AptValueError, match=message):
        allocate(np.ones((2, 3)), **arguments)
