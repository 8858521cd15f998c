"""The written reading: sentences against numbers computed by hand, and that no shape or value breaks it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.gate_sample import GateSample, sample_gates
from analysis.gate_stats import present_tokens
from analysis.reading import read_gates, when_settled
from apt_core.gate_log import GateLog

NAN = np.nan


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def sample(gate, scale, lengths, std=0.002, recorded: int | None = None) -> GateSample:
    """Gates [S, L, P] of steps 1 to S."""
    gate, scale = np.asarray(gate, dtype=np.float32), np.asarray(scale, dtype=np.float32)
    last = max(1, round(0.1 * len(gate)))
    present = present_tokens(lengths, gate.shape[2])
    spread = np.where(present, np.float32(std), NAN) * np.ones((last, 1, 1))
    return GateSample(np.arange(1, len(gate) + 1), gate, scale, spread, present, recorded or len(gate))


def texts(of: GateSample) -> list[str]:
    return [sentence.text for sentence in read_gates(of, when_settled(of))]


def constant(steps: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Three layers of four, two and four tokens; weights 0.1 x4, 0.4 x2, 0.8 0.8 1.6 2.4 / 2 = ..."""
    gate = np.array([[0.1, 0.1, 0.1, 0.1], [0.2, 0.2, NAN, NAN], [0.2, 0.2, 0.4, 0.6]])
    scale = np.array([1.0, 2.0, 0.5])
    return np.broadcast_to(gate, (steps, 3, 4)), np.broadcast_to(scale, (steps, 3))


def test_sentences_state_the_numbers_of_a_small_run():
    # weights: 0.1 x 4 = 0.4 | 0.4 x 2 = 0.8 | 0.1 + 0.1 + 0.2 + 0.3 = 0.7; whole 1.9
    assert texts(sample(*constant(), (4, 2, 4))) == [
        "Upper layers 2 to 3 carry 79% of the gate mass, with 60% of the virtual tokens.",  # 1.5 / 1.9, 6 / 10
        "The 3 heaviest of 10 virtual tokens carry half of the gate mass; with equal weights it would take 5.",
        "8 of 10 token gates are under 0.3; all of them reach from 0.10 to 0.60.",
        "Layer scales, without their sign, reach from 0.50 (layer 3) to 2.00 (layer 2).",
        "Every layer settled, the last one (layer 1) at step 1; 10 of 10 weights settled.",
        "The gates differ little from input to input (median standard deviation over the batch 0.002): they act like "
        "static gates here.",
    ]


def test_lower_half_is_named_where_it_is_the_heavier_one():
    gate, scale = constant()
    assert texts(sample(gate[:, ::-1], scale[:, ::-1], (4, 2, 4)))[0].startswith("Upper layers 2 to 3 carry 63%")
    assert texts(sample(gate, [[9.0, 1.0, 0.1]] * 40, (4, 2, 4)))[0].startswith("Lower layer 1 carries 87%")


def test_saturated_gates_are_counted_with_the_step_by_which_half_of_them_were():
    gate, scale = constant()
    gate = gate.copy()
    gate[9:, 0, 0] = 0.01  # from step 10 on
    gate[29:, 1, 1] = 0.99
    gate[19:, 2, 3] = 0.0
    gate[5:30, 2, 0] = 0.005  # not at the end
    found = [text for text in texts(sample(gate, scale, (4, 2, 4))) if "saturated" in text]
    assert found == [
        "3 of 10 token gates are saturated, under 0.02 or over 0.98, half of them since step 20: hardly anything moves "
        "them any more. With a smaller --gate-lr fewer would be."
    ]
    gate[:, 0, 0] = gate[:, 2, 3] = 0.5
    assert any("1 of 10 token gates is saturated, under 0.02 or over 0.98 since step 30:" in text
               for text in texts(sample(gate, scale, (4, 2, 4))))  # fmt: skip


def test_gates_of_a_run_without_them_are_not_called_saturated():
    assert not any("saturated" in text for text in texts(sample(np.ones((40, 2, 2)), np.ones((40, 2)), (2, 2))))


def test_layers_that_have_not_settled_are_listed():
    gate, scale = constant()
    scale = scale.copy()
    scale[-1, 1:] = [3.0, 1.0]
    assert "Not settled: layers 2 to 3; 4 of 10 weights settled." in texts(sample(gate, scale, (4, 2, 4)))


def test_few_steps_are_said_to_be_too_few():
    assert any("7 recorded steps are too few" in text for text in texts(sample(*constant(7), (4, 2, 4))))


def test_nan_and_infinite_gates_are_said_first_and_left_out():
    gate, scale = constant()
    gate = gate.copy()
    gate[-1, 0, 0], gate[-1, 2, 3] = NAN, np.inf
    found = texts(sample(gate, scale, (4, 2, 4)))
    assert found[0].startswith("2 of 10 weights are NaN or infinite (layers 1, 3): the training diverged")
    assert "6 of 8 token gates are under 0.3" in found[3] or "7 of 8" in found[3]


@pytest.mark.parametrize(
    ("std", "words"),
    [(0.0, "do not differ"), (0.0099, "act like static gates"), (0.011, "depend on the input"), (NAN, "")],
)
def test_dependence_on_the_input(std, words):
    last = texts(sample(*constant(), (4, 2, 4), std=std))[-1]
    assert words in last


def test_runs_without_gates_or_tokens_say_so():
    gate, scale = np.ones((40, 2, 2)), np.ones((40, 2))
    found = " ".join(texts(sample(gate, scale, (2, 2))))
    assert "Every token gate is exactly 1" in found
    assert "Every layer scale is exactly 1" in found
    assert texts(sample(np.zeros((40, 2, 0)), np.full((40, 2), NAN), (0, 0))) == [
        "This run has no virtual tokens, so it has no gates."
    ]
    assert texts(sample(np.zeros((0, 2, 2)), np.zeros((0, 2)), (2, 2))) == ["No step has been recorded yet."]


def test_every_sentence_has_a_definition():
    of = sample(*constant(), (4, 2, 4))
    assert all(len(sentence.definition) > 20 for sentence in read_gates(of, when_settled(of)))


def test_large_log_is_thinned_and_says_so(record_run, tmp_path):
    log = GateLog(record_run(tmp_path / "run", steps=60) / "gates")
    row = 4 * (6 * 16 + 6)
    of = sample_gates(log, log.prefix_lengths, at_most_bytes=10 * row)
    assert of.thinned
    assert of.basis == "from 10 of 60 recorded steps, evenly spaced"
    assert (of.steps[0], of.steps[-1], of.token_gate.shape) == (1, 60, (10, 6, 16))
    np.testing.assert_array_equal(of.token_gate[-1], log.at(60).token_gate)
    np.testing.assert_array_equal(of.last_std[0], log.at(60).token_gate_std)
    whole = sample_gates(log, log.prefix_lengths)
    assert (whole.thinned, whole.basis) == (False, "from all 60 recorded steps")


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_shape_or_value_breaks_the_reading(data):
    lengths = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=40))
    steps = data.draw(st.integers(0, 25))
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    tokens = max(lengths)
    gate = draw.uniform(0, 1, (steps, len(lengths), tokens))
    scale = draw.normal(1, 1, (steps, len(lengths)))
    odd = data.draw(st.sampled_from([None, NAN, np.inf, -np.inf, 0.0, 1.0, 3e38]))
    if odd is not None:
        gate[draw.uniform(size=gate.shape) < data.draw(st.sampled_from([0.01, 0.5, 1.0]))] = odd
    gate[:, ~present_tokens(lengths, tokens)] = NAN
    found = texts(sample(gate, scale, lengths))
    assert found
    assert "nan" not in " ".join(found).lower().replace("nan or infinite", "")
