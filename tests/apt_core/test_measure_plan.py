"""How much is measured for an allowance: within it, more for more, and what is left out is said."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_core.errors import AptValueError
from apt_core.measure_format import IMPORTANCES, MAX_MEASURES_BYTES, RANDOM, REVERSED
from apt_core.measure_plan import (
    FEWEST_EXAMPLES,
    FIRST_ORDERS,
    FRACTIONS,
    FURTHER_ORDERS,
    TRAINING_FORWARDS,
    Plan,
    left_out,
    make_plan,
    plans,
)

LENGTHS = st.lists(st.integers(0, 200), min_size=1, max_size=48).filter(any)
COUNTS = st.integers(1, 100_000)
COSTS = st.floats(0.01, 10_000)


def has(plan: Plan) -> tuple:
    """What a plan has, each part growing with the plan."""
    return plan.num_examples, plan.layers, set(plan.orders), set(plan.sizes), plan.tokens


def at_least(more: Plan, less: Plan) -> bool:
    return all(one >= other for one, other in zip(has(more), has(less), strict=True))


@given(LENGTHS, COUNTS, COUNTS, COSTS)
def test_a_plan_is_within_its_allowance_or_the_smallest_there_is(lengths, available, num_train, cost):
    plan = make_plan(lengths, available, num_train, cost)
    smallest = Plan(tuple(lengths), min(FEWEST_EXAMPLES, available))
    assert plan.forwards <= cost * TRAINING_FORWARDS * num_train or plan == smallest
    assert min(FEWEST_EXAMPLES, available) <= plan.num_examples <= available


@given(LENGTHS, COUNTS, COUNTS, COSTS, COSTS)
def test_a_larger_allowance_never_gives_less(lengths, available, num_train, one, other):
    less, more = (make_plan(lengths, available, num_train, cost) for cost in sorted((one, other)))
    assert at_least(more, less)
    assert at_least(make_plan(lengths, available, num_train, 0), more)


@given(LENGTHS, COUNTS)
def test_plans_grow_and_their_losses_fit_into_the_file(lengths, available):
    steps = list(plans(lengths, available))
    assert all(at_least(after, before) for before, after in pairwise(steps))
    assert all(after.forwards >= before.forwards for before, after in pairwise(steps))
    last = steps[-1]
    assert last.num_points * last.num_examples * 10 <= MAX_MEASURES_BYTES or last.num_examples <= 400


@given(LENGTHS, COUNTS)
def test_sizes_fall_from_all_to_none(lengths, available):
    for plan in plans(lengths, available):
        assert (plan.sizes[0], plan.sizes[-1]) == (sum(lengths), 0)
        assert sorted(set(plan.sizes), reverse=True) == plan.sizes


def test_everything_is_measured_without_a_limit():
    plan = make_plan([16] * 6, available=360, num_train=1620, cost=0)
    assert (plan.num_examples, plan.layers, plan.tokens) == (360, True, True)
    assert plan.sizes == [96, 84, 72, 60, 48, 36, 24, 18, 12, 6, 3, 0]
    assert {96 * 3 // 4, 96 // 2, 96 // 4} < set(plan.sizes)
    assert len(plan.orders) == len(set(plan.orders))
    both = {name + suffix for name in IMPORTANCES for suffix in ("", REVERSED)}
    assert set(plan.orders) == both | {f"{RANDOM}{number}" for number in range(1, 6)}
    assert left_out(plan, available=360, num_train=1620) == []


def test_an_epoch_of_a_small_task_buys_layers_and_the_first_orders():
    plan = make_plan([16] * 6, available=100, num_train=400, cost=1)
    assert (plan.num_examples, plan.layers, plan.orders) == (32, True, ("gate", "effect", "random 1"))
    plan = make_plan([16] * 6, available=360, num_train=1620, cost=1)
    assert (plan.orders, plan.fractions) == (FIRST_ORDERS, FRACTIONS)
    assert plan.num_examples == int(2 * 1620 / (2.5 + 1 + 6 + 6 * 10))


@given(LENGTHS, COUNTS, COUNTS, COSTS)
def test_notes_name_what_is_missing_and_an_allowance_that_is_enough(lengths, available, num_train, cost):
    plan = make_plan(lengths, available, num_train, cost)
    notes = left_out(plan, available, num_train)
    assert any("without each layer" in note for note in notes) == (not plan.layers)
    assert any("without each virtual token" in note for note in notes) == (not plan.tokens)
    assert any("were drawn" in note for note in notes) == (plan.num_examples < available)
    missing = [order for order in (*FIRST_ORDERS, *FURTHER_ORDERS) if order not in plan.orders]
    assert all(any(order in note for note in notes) for order in missing)
    for note in notes:
        if "--cost " in note and "does it" in note:
            enough = make_plan(lengths, available, num_train, float(note.split("--cost ")[1].split("'")[0]))
            assert at_least(enough, plan)
            assert enough != plan


@pytest.mark.parametrize("cost", [-1.0, math.nan])
def test_a_negative_allowance_is_refused(cost):
    with pytest.raises(AptValueError, match=r"cost: got .*; accepted: training epochs"):
        make_plan([1], 10, 10, cost)
