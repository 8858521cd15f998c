"""Costs from what a run says; ``tests/apt_core/test_costs.py`` holds them against real tensors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.costs import IN_THE_NOISE, NOT_MEASURED, OLDER_RUN, cost_of, costs_table, token_costs
from analysis.inference_table import conditions, inference_table
from apt_core.errors import AptValueError
from apt_core.run_format import MAX_WIDTH, RunInfo
from tests.inferences import make_inference

BERT = [4, 8, 8, 32, 4]
GROUPED = [2, 16, 24, 32, 4]
PROJECTED = {"prefix_projection": True}


def run_info(shapes=(BERT, GROUPED, BERT), kinds=("encoder",) * 3, **fields) -> RunInfo:
    return RunInfo(
        **{
            "num_layers": len(shapes),
            "prefix_lengths": [3, 0, 2],
            "layer_shapes": list(shapes),
            "layer_kinds": list(kinds),
            "backbone_dtype": "bfloat16",
            "num_parameters": {"head": 7},
            **fields,
        }
    )


def older(**fields) -> RunInfo:
    """As runs were before shapes were recorded: 6 layers of 16 tokens of MiniLM."""
    given_ = {
        "num_layers": 6,
        "prefix_lengths": [16] * 6,
        "apt_config": {"token_gate": "hidden", "layer_scale": True},
        "num_parameters": {"prefix": 96 * 768, "token_gate": 96 * 384, "layer_scale": 6, "head": 385, "frozen": 1},
    }
    return RunInfo(**{**given_, **fields})


def test_one_token_costs_what_the_formulas_say():
    costs = token_costs(run_info())
    assert costs.parameters.tolist() == [4 * 16 + 32, 2 * 40 + 32, 4 * 16 + 32]
    assert costs.adapter_bytes.tolist() == [4 * 96, 4 * 112, 4 * 96]
    assert costs.kv_cache_bytes.tolist() == [2 * 64, 2 * 80, 2 * 64]
    assert costs.multiply_adds.tolist() == [4 * 16, 4 * 40, 4 * 16]
    assert costs.sequence_multiply_adds.tolist() == [32 + 64, 32 + 80, 32 + 64]
    assert costs.reasons == {"milliseconds": NOT_MEASURED}


def test_gates_per_position_are_paid_at_every_position():
    decoder = token_costs(run_info(kinds=("encoder", "decoder", "cross")))
    assert decoder.multiply_adds.tolist() == [64, 4 * 40 + 32 + 8, 64 + 32 + 8]
    assert decoder.sequence_multiply_adds.tolist() == [96, 0, 0]
    asked = token_costs(run_info(apt_config={"gate_pooling": "per-position"}))
    assert asked.sequence_multiply_adds.tolist() == [0, 0, 0]


@given(st.lists(st.integers(0, 1024), min_size=3, max_size=3), st.lists(st.integers(0, 1024), min_size=3, max_size=3))
def test_costs_add_up_token_by_token(one, other):
    """What is linear is; parameters and adapter bytes jump by a layer scale at a layer's first token."""
    info = run_info()
    inference = make_inference((3, 0, 2), layer_milliseconds=0.0)
    each, costs = token_costs(info, inference), [cost_of(info, lengths, inference) for lengths in (one, other)]
    difference = np.array(other) - one
    first = sum(length > 0 for length in other) - sum(length > 0 for length in one)
    for field in ("kv_cache_bytes", "multiply_adds", "sequence_multiply_adds"):
        assert getattr(costs[1], field) - getattr(costs[0], field) == difference @ getattr(each, field)
    assert costs[1].parameters - costs[0].parameters == difference @ each.parameters + first
    assert costs[1].adapter_bytes - costs[0].adapter_bytes == difference @ each.adapter_bytes + 4 * first
    assert costs[1].milliseconds - costs[0].milliseconds == pytest.approx(difference @ each.milliseconds)


def test_nothing_costs_nothing_but_the_head():
    cost = cost_of(run_info(), [0, 0, 0], make_inference((3, 0, 2)))
    assert cost[1:7] == (7, 28, 0, 0, 0, 0)


def test_milliseconds_are_those_of_tokens_and_of_layers_with_a_prefix():
    cost = cost_of(run_info(), [10, 0, 5], make_inference((3, 0, 2)))
    assert cost.milliseconds == pytest.approx(15 * 0.01 + 2 * 0.1)
    noisy = token_costs(run_info(), make_inference((3, 0, 2), token_milliseconds=None))
    assert (noisy.milliseconds, noisy.reasons["milliseconds"]) == (None, IN_THE_NOISE)


def test_older_run_is_counted_from_its_parameters_as_far_as_they_say():
    info = older()
    assert cost_of(info, [16] * 6).parameters == info.num_trained_parameters
    cost = cost_of(info, [8, 8, 8, 8, 8, 0])
    assert cost.parameters == 40 * (768 + 384) + 5 + 385
    assert cost.adapter_bytes == 4 * cost.parameters
    assert (cost.kv_cache_bytes, cost.multiply_adds) == (None, None)
    assert {field for field, why in cost.reasons.items() if why == OLDER_RUN} == {
        "kv_cache_bytes",
        "multiply_adds",
        "sequence_multiply_adds",
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"prefix_lengths": [0] * 6, "num_parameters": {"head": 385}},
        {"num_parameters": {"prefix": 96 * 768 + 1, "token_gate": 96 * 384}},  # layers differ
        {"apt_config": PROJECTED},
    ],
)
def test_older_run_whose_layers_cannot_be_told_says_so(fields):
    cost = cost_of(older(**fields), [8] * 6)
    assert cost.parameters is None
    assert cost.reasons["parameters"] == OLDER_RUN


def test_backbone_of_an_unknown_type_has_an_unknown_cache():
    costs = token_costs(run_info(backbone_dtype="float8_e4m3fn"))
    assert costs.kv_cache_bytes is None
    assert "float8_e4m3fn; known are float64" in costs.reasons["kv_cache_bytes"]


@pytest.mark.parametrize("lengths", [[1, 2], [1, 2, -1], [1, 2, 1025]])
def test_lengths_that_do_not_fit_are_refused(lengths):
    with pytest.raises(AptValueError, match=r"prefix_lengths: got .*; accepted: 3 integers from 0 to 1024"):
        cost_of(run_info(), lengths)


def test_settings_that_are_none_are_refused():
    with pytest.raises(AptValueError, match="token_gate"):
        token_costs(run_info(apt_config={"token_gate": ["hidden"]}))


def test_largest_shapes_that_are_read_do_not_overflow():
    count, width = 10_000, MAX_WIDTH
    shape = [1, width, width, width, 1]
    info = run_info([shape] * count, ["encoder"] * count, prefix_lengths=[0] * count, apt_config=PROJECTED)
    cost = cost_of(info, [1024] * count)
    assert cost.kv_cache_bytes == count * 1024 * 2 * width * 2
    assert cost.parameters == count * (1024 * 2 * width + (width + 1) * 3 * width + 1) + 7


def test_table_has_units_and_leaves_out_what_is_not_known():
    table = costs_table({"a": cost_of(run_info(), [3, 0, 2]), "b": cost_of(run_info(), [0, 0, 0])})
    assert list(table["lengths"]) == ["a", "b"]
    assert list(table["virtual tokens"]) == [5, 0]
    assert list(table["KV cache per sequence (kB)"]) == [5 * 128 / 1000, 0]
    assert "added to a pass (ms)" not in table
    assert "multiply-adds per query position" not in costs_table({"a": cost_of(older(), [8] * 6)})


def test_inference_table_says_what_can_be_told_from_the_full_run():
    table = inference_table(make_inference((4, 4))).set_index("variant")
    assert table["time differs from full run"].to_dict() == {
        "frozen backbone": True,
        "full run": False,
        "pruned to 4": True,
        "gates under 0.5 off": False,
        "64 in every layer": True,
    }
    assert np.isnan(table.loc["64 in every layer", "loss"])
    assert table.loc["frozen backbone", "loss - full's"] == pytest.approx(0.4)


def test_conditions_name_device_shape_and_cost():
    words = conditions(make_inference((4, 4)))
    assert "cpu with 1 thread, sdpa attention, 4 examples a pass (4 x 17 sub-words), 20 repetitions" in words
    assert "A virtual token adds 10.00 (8.00 to 13.00) microseconds" in words
    assert "microseconds" not in conditions(make_inference((4, 4), token_milliseconds=None))
