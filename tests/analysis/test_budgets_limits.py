"""The largest total within a limit on parameters, bytes or milliseconds; by trying every total."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis.budgets import METHODS, Rules, allocate, allocate_within
from analysis.budgets.allocate import room_for
from analysis.budgets.limits import RunCosts, run_costs
from apt_core.errors import AptValueError
from apt_core.inference_format import Inference
from apt_core.run_format import RunInfo


def costs_of(heads: list[int], head: int = 0, layer_scale: bool = False, **fields) -> RunCosts:
    """A run without token gates whose virtual tokens have 2 parameters for each key/value head of their layer."""
    info = RunInfo(
        num_layers=len(heads),
        prefix_lengths=[1] * len(heads),
        apt_config={"token_gate": "none", "layer_scale": layer_scale},
        num_parameters={"head": head},
        layer_shapes=[[count, 1, 1, 8, count] for count in heads],
        layer_kinds=["encoder"] * len(heads),
        backbone_dtype="float16",
    )
    return run_costs(info, fields.get("inference"))


@st.composite
def limited(draw) -> tuple[np.ndarray, str, Rules, RunCosts, float]:
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 6)))
    weights = draw(arrays(np.float64, shape, elements=st.floats(0, 10, width=16)))
    multiple = draw(st.integers(1, 3))
    upper = [draw(st.integers(0, shape[1])) for _ in range(shape[0])]
    locks = draw(st.dictionaries(st.integers(0, shape[0] - 1), st.integers(0, 5), max_size=2))
    rules = Rules(0, upper, multiple, locks)
    heads = draw(st.lists(st.integers(0, 4), min_size=shape[0], max_size=shape[0]))
    costs = costs_of(heads, draw(st.integers(0, 20)), draw(st.booleans()))
    return weights, draw(st.sampled_from(sorted(METHODS))), rules, costs, draw(st.integers(0, 150))


@given(limited())
def test_no_larger_total_stays_within_the_limit(case):
    weights, method, rules, costs, limit = case
    every = [allocate(weights, total, method, rules=rules) for total in room_for(weights, method, rules).totals]
    fitting = [budget for budget in every if costs.cost("parameters", budget.prefix_lengths) <= limit]

    def within():
        cost = lambda lengths: costs.cost("parameters", lengths)  # noqa: E731
        return allocate_within(weights, limit, cost, method, rules, costs.unevenness("parameters"), "parameters")

    if costs.cost("parameters", every[0].prefix_lengths) > limit:
        with pytest.raises(AptValueError, match=r"parameters: got .* what the smallest possible total of"):
            within()
    else:
        assert within() == fitting[-1]


def test_a_total_whose_share_costs_less_than_a_smaller_one_is_found():
    mass = np.array([6.0, 6.0, 2.0])[:, None]  # 10 tokens: 4 4 2, 11 tokens: 5 5 1
    costs = costs_of([1, 1, 9])
    assert costs.cost("parameters", (4, 4, 2)) > costs.cost("parameters", (5, 5, 1)) == 38
    found = allocate_within(
        mass, 38, lambda lengths: costs.cost("parameters", lengths), unevenness=costs.unevenness("parameters")
    )
    assert found.prefix_lengths == (5, 5, 1)


def test_limit_on_512_layers_with_costs_that_differ_is_met():
    random = np.random.default_rng(0)
    weights, heads = random.random((512, 64)), random.integers(1, 4, 512)
    costs = costs_of(heads.tolist())
    for method in METHODS:
        found = allocate_within(
            weights,
            20_000,
            lambda lengths: costs.cost("parameters", lengths),
            method,
            unevenness=costs.unevenness("parameters"),
        )
        assert 19_980 <= 2 * heads @ np.array(found.prefix_lengths) <= 20_000


def test_nan_as_a_limit_is_refused():
    with pytest.raises(AptValueError, match="milliseconds: got nan; accepted: at least 0"):
        allocate_within(np.ones((2, 2)), float("nan"), lambda lengths: 0.0, name="milliseconds")


def test_costs_count_what_does_not_depend_on_lengths_and_what_every_layer_with_tokens_has():
    costs = costs_of([3, 3, 3], head=77, layer_scale=True)
    assert costs.cost("parameters", [2, 0, 4]) == 6 * 6 + 2 + 77
    assert costs.cost("parameters", [0, 0, 0]) == 77
    assert costs.cost("kv-bytes", [2, 0, 4]) == 6 * 6 * 2
    assert costs.unevenness("parameters") == 3  # the scales: three more layers with a first token
    assert costs.unevenness("kv-bytes") == 0


def test_costs_that_are_not_known_say_why_and_name_the_command():
    older = run_costs(RunInfo(num_layers=2, prefix_lengths=[1, 1], num_parameters={"prefix": 12}), None)
    assert [older.knows(limit) for limit in ("parameters", "kv-bytes", "milliseconds")] == [True, False, False]
    with pytest.raises(AptValueError, match=r"kv-bytes: not known for this run: an older run, .* bench-inference"):
        older.per_token("kv-bytes")
    with pytest.raises(AptValueError, match=r"milliseconds: not known for this run: not measured; .* bench-inference"):
        costs_of([1, 1]).per_token("milliseconds")


def test_measured_milliseconds_are_a_limit_and_none_is_below_zero():
    inference = Inference(prefix_lengths=[1, 1], token_milliseconds=[0.5, -0.01], layer_milliseconds=0.25)
    costs = costs_of([1, 1], inference=inference)
    assert costs.cost("milliseconds", [2, 0]) == 1.25
    assert costs.per_token("milliseconds").tolist() == [0.5, 0]
