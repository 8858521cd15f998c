"""Bounds per layer, multiples and locks: kept by every method, and refused in words where they cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis.budgets import METHODS, Rules, allocate
from analysis.budgets.allocate import room_for
from analysis.budgets.rules import parse_locks, parse_per_layer
from apt_core.errors import AptValueError

WEIGHT = st.one_of(st.floats(0, 100, width=32), st.sampled_from([0.0, float("nan"), float("inf")]))


@st.composite
def ruled(draw, methods: list[str] | None = None) -> tuple[np.ndarray, str, Rules]:
    """Weights, a method, and rules that some total can meet."""
    shape = (draw(st.integers(1, 8)), draw(st.integers(0, 12)))
    weights = draw(arrays(np.float64, shape, elements=WEIGHT))
    method = draw(st.sampled_from(methods or sorted(METHODS)))
    multiple = draw(st.integers(1, 5))
    own = (~np.isnan(weights)).sum(axis=1)
    ceiling = own if METHODS[method].within_own_tokens else np.full(len(own), 40)
    upper = [draw(st.integers(0, int(most))) for most in ceiling]
    lower = [draw(st.integers(0, most // multiple * multiple)) for most in upper]
    locked = draw(st.lists(st.integers(0, len(own) - 1), unique=True, max_size=len(own)))
    locks = {layer: draw(st.integers(0, 20)) for layer in locked}
    return weights, method, Rules(lower, upper, multiple, locks)


@given(ruled(), st.data())
def test_every_possible_total_is_met_exactly_within_all_rules(case, data):
    weights, method, rules = case
    total = data.draw(st.sampled_from(room_for(weights, method, rules).totals))
    lengths = allocate(weights, total, method, rules=rules).prefix_lengths
    assert sum(lengths) == total
    for layer, length in enumerate(lengths):
        if layer in rules.locks:
            assert length == rules.locks[layer]
        else:
            assert rules.min_per_layer[layer] <= length <= rules.max_per_layer[layer]
            assert length % rules.multiple_of == 0
    assert allocate(weights, total, method, rules=rules).prefix_lengths == lengths


@given(ruled(), st.integers(0, 400))
def test_a_total_is_met_or_refused_naming_the_nearest_possible(case, total):
    weights, method, rules = case
    totals = room_for(weights, method, rules).totals
    if total in totals:
        assert allocate(weights, total, method, rules=rules).total == total
        return
    with pytest.raises(AptValueError, match=r"^total: got") as refused:
        allocate(weights, total, method, rules=rules)
    if totals[0] < total < totals[-1]:
        below = max(possible for possible in totals if possible < total)
        assert f"the nearest are {below} and {below + rules.multiple_of}" in str(refused.value)
    else:
        assert f"accepted: {totals[0]} to {totals[-1]}" in str(refused.value)


@given(ruled([name for name, method in METHODS.items() if method.monotone]))
def test_methods_called_monotone_never_take_a_token_away(case):
    weights, method, rules = case
    totals = list(room_for(weights, method, rules).totals)[:30]
    lengths = np.array([allocate(weights, total, method, rules=rules).prefix_lengths for total in totals])
    assert (np.diff(lengths, axis=0) >= 0).all()


def test_share_is_not_monotone_as_no_method_of_largest_remainders_is():
    mass = np.array([6.0, 6.0, 2.0])[:, None]  # the classic paradox of Alabama
    assert not METHODS["share"].monotone
    assert allocate(mass, 10).prefix_lengths == (4, 4, 2)
    assert allocate(mass, 11).prefix_lengths == (5, 5, 1)


@given(ruled(), st.randoms(use_true_random=False), st.data())
def test_permuted_layers_give_permuted_lengths_where_no_two_layers_tie(case, random, data):
    weights, method, rules = case
    distinct = np.where(np.isnan(weights), np.nan, np.random.default_rng(len(weights)).random(weights.shape))
    order = list(range(len(weights)))
    random.shuffle(order)
    permuted = Rules(
        [rules.min_per_layer[layer] for layer in order],
        [rules.max_per_layer[layer] for layer in order],
        rules.multiple_of,
        {place: rules.locks[layer] for place, layer in enumerate(order) if layer in rules.locks},
    )
    total = data.draw(st.sampled_from(room_for(distinct, method, rules).totals))
    assume(method != "share" or (np.nansum(distinct, axis=1) == 0).sum() < 2)  # layers without weight tie
    straight = allocate(distinct, total, method, rules=rules).prefix_lengths
    assert allocate(distinct[order], total, method, rules=permuted).prefix_lengths == tuple(
        straight[layer] for layer in order
    )


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("fill", [0.0, float("nan"), float("inf"), 1e308])
def test_weights_that_say_nothing_crash_no_method(method, fill):
    weights = np.full((5, 4), fill)
    total = 0 if np.isnan(fill) and METHODS[method].within_own_tokens else 7
    assert allocate(weights, total, method).total == total


@pytest.mark.parametrize("method", sorted(METHODS))
def test_512_layers_of_64_tokens_in_multiples_of_8_with_locks(method):
    weights = np.random.default_rng(0).random((512, 64))
    rules = Rules(8, 56, 8, {0: 3, 511: 0})
    lengths = np.array(allocate(weights, 3 + 8 * 1500, method, rules=rules).prefix_lengths)
    assert (lengths[0], lengths[511], lengths.sum()) == (3, 0, 12_003)
    assert (lengths[1:511] % 8 == 0).all()


def test_groups_are_ranked_by_the_sum_of_their_tokens():
    weights = np.array([[1.0, 0.9, 0.1, 0.1], [2.0, 0.1, 0.1, 0.1], [0.6, 0.6, 0.6, 0.6]])
    assert allocate(weights, 2, "topk", rules=Rules(multiple_of=2)).prefix_lengths == (0, 2, 0)  # 1.9, 2.1, 1.2
    assert allocate(weights, 6, "topk", rules=Rules(multiple_of=2)).prefix_lengths == (2, 2, 2)
    assert allocate(weights, 3, "topk").prefix_lengths == (2, 1, 0)


def test_locked_layers_leave_the_rest_to_the_others_by_their_own_weights():
    weights = np.array([[9.0], [1.0], [3.0]])
    assert allocate(weights, 12, rules=Rules(locks={0: 4})).prefix_lengths == (4, 2, 6)
    assert allocate(weights, 4, rules=Rules(locks={0: 4})).prefix_lengths == (4, 0, 0)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (Rules(multiple_of=8), "total: got 12; accepted: a multiple of 8; the nearest are 8 and 16"),
        (Rules(multiple_of=8, locks={1: 3}), "a multiple of 8 plus the 3 of the locked layers; the nearest are 11 and"),
        (Rules(locks={0: 9, 1: 4}), r"total: got 12; accepted: 13 to .* The locked layers take 13 of it"),
        (Rules(locks={0: 9, 1: 2, 2: 0}), "total: got 12; accepted: 11 to 11 for 3 layers"),
        (Rules(locks={3: 1}), "lock: got '4=1'; accepted: a layer from 1 to 3"),
        (Rules(locks={0: 1025}), "lock: got '1=1025'; accepted: a length from 0 to 1024"),
        (Rules(locks={0: -1}), "lock: got -1"),
        (Rules((1, 2)), r"min-per-layer: got \[1, 2\]; accepted: one integer, or 3 of them"),
        (Rules(max_per_layer=(1, 2, 3, 4)), r"max-per-layer: got .* \(got 4\)"),
        (Rules(max_per_layer=(4, -1, 4)), "max-per-layer: got -1"),
        (Rules((0, 5, 0), (9, 4, 9)), "min-per-layer: got 5; accepted: at most 4, the maximum of layer 2"),
        (Rules(1, 7, 8), "min-per-layer: got 1; accepted: at most 0, the maximum of layer 1 in multiples of 8"),
        (Rules(multiple_of=0), "multiple-of: got 0"),
        (Rules(multiple_of=10**30), "multiple-of"),
        (Rules(min_per_layer="2"), "min-per-layer: got '2'"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused_in_words(rules, message):
    with pytest.raises(AptValueError, match=message):
        allocate(np.ones((3, 4)), 12, rules=rules)


@pytest.mark.parametrize(
    ("method", "total", "rules", "message"),
    [
        ("share", 4000, Rules(), "0 to 3072 for 3 layers. (a layer gets at most 1,024 virtual tokens.)"),
        ("share", 4000, Rules(max_per_layer=9), "0 to 27 for 3 layers. (--max-per-layer bounds it.)"),
        ("topk", 13, Rules(), "0 to 12 for 3 layers. (single tokens are chosen among those the run has.)"),
        ("topk", 13, Rules(max_per_layer=2), "0 to 6 for 3 layers. (--max-per-layer bounds it.)"),
        ("share", 2, Rules(1), "3 to 3072 for 3 layers. (--min-per-layer bounds it.)"),
    ],
)
def test_total_out_of_range_says_what_bounds_it(method, total, rules, message):
    with pytest.raises(AptValueError) as refused:
        allocate(np.ones((3, 4)), total, method, rules=rules)
    assert str(refused.value) == f"total: got {total}; accepted: {message}"


def test_locks_and_bounds_are_read_from_text():
    assert parse_locks("3=8, 5=0") == {2: 8, 4: 0}
    assert parse_per_layer("min-per-layer", "2") == 2
    assert parse_per_layer("min-per-layer", "0,2, 4") == (0, 2, 4)


@pytest.mark.parametrize("text", ["3", "3=", "=3", "a=1", "1=2,1=3", "1=2,"])
def test_locks_that_are_no_locks_are_refused(text):
    with pytest.raises(AptValueError, match="accepted: LAYER=LENGTH"):
        parse_locks(text)


@pytest.mark.parametrize("text", ["", "x", "1,", "1.5"])
def test_bounds_that_are_no_numbers_are_refused(text):
    with pytest.raises(AptValueError, match=r"min-per-layer: got .* one per layer separated by commas"):
        parse_per_layer("min-per-layer", text)
