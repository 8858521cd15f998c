"""From what is asked for to a suggestion: which weights a method rests on, and what is said beside the lengths."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.budgets import METHODS, Rules, allocate
from analysis.budgets.limits import LIMITS, RunCosts, run_costs
from analysis.budgets.pareto import Tolerance, best_prediction
from analysis.budgets.suggest import Ask, Evidence, suggest
from analysis.budgets.weighing import layer_effect
from apt_core.errors import AptValueError
from apt_core.inference_format import Inference
from apt_core.measure_format import IMPORTANCES
from apt_core.removal import removal_order, without_first
from apt_core.run_format import RunInfo
from tests.analysis.simulated_measures import shuffled, simulate

LAYERS, TOKENS = 6, 8
MATTERING = (1, 4)
"""the only layers that do anything"""


def known_effects() -> list[np.ndarray]:
    """Only the tokens of ``MATTERING`` lower the loss."""
    effects = np.full((LAYERS, TOKENS), 1e-6) * np.random.default_rng(0).uniform(0.5, 1, (LAYERS, TOKENS))
    effects[list(MATTERING)] = np.random.default_rng(1).uniform(0.5, 1, (len(MATTERING), TOKENS)) / 10
    return list(effects)


def costs(inference: Inference | None = None, heads: tuple[int, ...] = (50,) * LAYERS) -> RunCosts:
    """A virtual token has 100 parameters and 400 bytes of cache; 50 parameters of a head besides."""
    info = RunInfo(
        num_layers=len(heads),
        prefix_lengths=[TOKENS] * len(heads),
        apt_config={"token_gate": "none"},
        num_parameters={"head": 50},
        layer_shapes=[[count, 1, 1, 8, count] for count in heads],
        layer_kinds=["encoder"] * len(heads),
        backbone_dtype="float32",
    )
    return run_costs(info, inference)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    measures = simulate(known_effects(), tokens=True, noise=0)
    inference = Inference(prefix_lengths=[TOKENS] * LAYERS, token_milliseconds=[0.5] * LAYERS, layer_milliseconds=0.0)
    return Evidence(np.array(known_effects()), measures, costs(inference))


AMOUNTS = {
    "total": 12,
    "parameters": 1_300,
    "kv-bytes": 5_000,
    "milliseconds": 6.0,
    "coverage": 60,
    "tolerance": Tolerance(1, False),
}


@pytest.mark.parametrize("tokens", [True, False])
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"threshold", "coverage"}))
def test_methods_that_compare_layers_find_the_only_ones_that_matter(method, tokens):
    measures = simulate(known_effects(), tokens=tokens, noise=0)
    lengths = np.array(suggest(Ask("total", 12, method), Evidence(np.ones((6, 8)), measures, None)).budget[0])
    assert lengths[list(MATTERING)].sum() == lengths.sum() == 12


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("limit", sorted(LIMITS))
def test_every_method_goes_with_every_limit_or_says_which_it_goes_with(evidence, method, limit):
    ask = Ask(limit, AMOUNTS[limit], method)
    if METHODS[method].own_limit != limit and limit in ("coverage", "tolerance"):
        with pytest.raises(AptValueError, match=f"method: got '{method}'; accepted: .* that {limit} goes with"):
            suggest(ask, evidence)
        return
    found = suggest(ask, evidence)
    assert found.budget.method == method
    if limit in ("total", "parameters", "kv-bytes", "milliseconds"):
        assert found.budget.total == 12  # of 1,300: 50 fixed, at most 6 layers with a scale


def test_a_limit_without_a_method_takes_its_own(evidence):
    assert [suggest(Ask(limit, AMOUNTS[limit]), evidence).budget.method for limit in LIMITS] == [
        "share", "share", "share", "share", "coverage", "pareto",
    ]  # fmt: skip


def test_importance_decides_the_order():
    effects = known_effects()
    others = {name: shuffled(effects, seed) for seed, name in enumerate(IMPORTANCES)}
    known = Evidence(np.ones((LAYERS, TOKENS)), simulate(effects, others), None)
    for name in IMPORTANCES:
        found = suggest(Ask("total", 10, "topk", name), known)
        assert found.weighed.name == name
        assert found.budget == allocate(np.array(others[name]), 10, "topk")


@pytest.mark.parametrize(
    ("method", "weights", "note"),
    [
        ("topk", np.ones((2, 4)), "All virtual tokens weigh the same: this order is only their place."),
        ("threshold", np.zeros((2, 4)), "All virtual tokens weigh the same: this order is only their place."),
        ("share", np.zeros((2, 4)), "No layer has gate mass: the tokens are shared out evenly."),
    ],
)
def test_weights_that_decide_nothing_are_said(method, weights, note):
    assert suggest(Ask("total", 4, method), Evidence(weights, None, None)).notes == [note]
    known = weights + np.arange(8).reshape(2, 4)
    assert suggest(Ask("total", 4, method), Evidence(known, None, None)).notes == []
    locked = suggest(Ask("total", 4, method, rules=Rules(locks={1: 2})), Evidence(known, None, None))
    assert locked.notes == []


def test_layers_that_were_not_measured_have_no_effect_of_zero(evidence):
    for layers in ([None] * LAYERS, [None, *evidence.measures.layers[1:]]):
        partly = evidence.measures.model_copy(update={"tokens": None, "layers": layers})
        with pytest.raises(AptValueError, match=r"^greedy: the effect of layers was not measured; 'python -m apt_core"):
            suggest(Ask("total", 12, "greedy"), evidence._replace(measures=partly))


@pytest.mark.filterwarnings("error")
def test_absurd_times_stay_finite():
    inference = Inference(prefix_lengths=[8] * 6, token_milliseconds=[1e308] * 6, layer_milliseconds=-1e308)
    found = costs(inference)
    assert np.isfinite([found.cost("milliseconds", [1024] * 6), found.unevenness("milliseconds")]).all()


def test_greedy_weighs_effect_against_cost():
    effects = [np.full(8, 0.03), np.full(8, 0.02)]
    known = Evidence(np.ones((2, 8)), simulate(effects, tokens=True, noise=0), costs(heads=(2, 1)))
    assert suggest(Ask("total", 8, "greedy"), known).budget.prefix_lengths == (8, 0)
    assert suggest(Ask("kv-bytes", 8 * 8, "greedy"), known).budget.prefix_lengths == (0, 8)
    assert suggest(Ask("kv-bytes", 11 * 8, "greedy"), known).budget.prefix_lengths == (1, 8)


def test_greedy_says_how_many_tokens_were_not_measured_to_help():
    effects = [np.array([0.1, -0.1]), np.array([0.2, -0.2])]
    sizes = {name: [np.abs(layer) for layer in effects] for name in IMPORTANCES}
    known = Evidence(np.ones((2, 2)), simulate(effects, sizes, tokens=True, noise=0), None)
    assert suggest(Ask("total", 2, "greedy"), known).notes == []
    assert suggest(Ask("total", 3, "greedy"), known).notes == [
        "1 of the 3 virtual tokens were not measured to lower the loss at all."
    ]


def test_pareto_says_what_its_prediction_rests_on(evidence):
    found = suggest(Ask("tolerance", Tolerance(0.05, False)), evidence)
    prediction = best_prediction(evidence.measures)
    assert prediction.at(found.budget.total) <= prediction.full_loss + 0.05
    assert prediction.at(found.budget.total - 1) > prediction.full_loss + 0.05
    (note,) = found.notes
    assert "measured tokens" in note or "measured at" in note
    assert "without retraining" in note
    assert f"with all {LAYERS * TOKENS} virtual tokens" in note


def test_pareto_with_rules_goes_to_the_next_possible_total_and_says_what_it_means(evidence):
    free = suggest(Ask("tolerance", Tolerance(0.05, False)), evidence).budget.total
    found = suggest(Ask("tolerance", Tolerance(0.05, False), rules=Rules(multiple_of=8)), evidence)
    assert found.budget.total == -(-free // 8) * 8
    assert "bounds, multiples and locks give other lengths" in found.notes[-1]
    with pytest.raises(AptValueError, match=r"total: got \d+; accepted: 0 to 6"):
        suggest(Ask("tolerance", Tolerance(0.05, False), rules=Rules(max_per_layer=1)), evidence)


def test_coverage_says_what_every_layer_keeps(evidence):
    assert "Each layer keeps at least 6" in suggest(Ask("coverage", 60), evidence).notes[0]
    bounded = suggest(Ask("coverage", 60, rules=Rules(max_per_layer=2, locks={0: 0})), evidence)
    least = min(np.sort(layer)[-2:].sum() / layer.sum() for layer in known_effects()[1:])
    assert f"Each layer that is not locked keeps at least {least:.1%}" in bounded.notes[0]
    assert "less than asked for because of the rules" in bounded.notes[0]


def test_the_cost_of_the_largest_total_is_said(evidence):
    assert suggest(Ask("kv-bytes", 5_000), evidence).notes == ["The largest total within the limit; it costs 4,800."]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (Ask("total", 4, "greedy"), "greedy rests on measured effects. 'python -m apt_core measure RUN' does it"),
        (Ask("total", 4, "pareto"), "pareto rests on deletion curves. 'python -m apt_core measure RUN'"),
        (Ask("tolerance", Tolerance(1, True)), "pareto rests on deletion curves"),
        (Ask("total", 4, "share", "norm"), "importance: norm was not measured"),
        (Ask("total", 4, "greedy", "gate"), "importance: got 'gate'; accepted: none: greedy rests on measured effects"),
        (Ask("total", 4, "magic"), "method: got 'magic'; accepted: share, threshold, topk, coverage, greedy, pareto"),
        (Ask("weight", 4), "limit: got 'weight'; accepted: total, parameters"),
        (Ask("kv-bytes", 4), "kv-bytes: what a virtual token costs is not known for this run; give a total"),
        (Ask("coverage", 130), "coverage: got 130; accepted: 0 to 100 per cent"),
    ],
)
def test_what_cannot_be_is_said_in_words(ask, message):
    with pytest.raises(AptValueError, match=message):
        suggest(ask, Evidence(np.ones((2, 4)), None, None))


def test_limits_below_what_is_fixed_or_not_measured_are_said_in_words():
    known = Evidence(np.ones((LAYERS, TOKENS)), None, costs())
    with pytest.raises(AptValueError, match="parameters: got 10; accepted: at least 50, what the smallest possible"):
        suggest(Ask("parameters", 10), known)
    with pytest.raises(AptValueError, match="milliseconds: not known for this run: not measured"):
        suggest(Ask("milliseconds", 10.0), known)


def test_layers_that_matter_have_the_largest_measured_effect(evidence):
    assert set(np.argsort(layer_effect(evidence.measures))[-2:]) == set(MATTERING)


def test_gates_of_a_training_that_diverged_share_nothing_out():
    weights = np.ones((LAYERS, TOKENS))
    weights[2] = np.inf
    with pytest.raises(AptValueError, match="not finite at the end of training: it diverged; there is no order"):
        suggest(Ask("total", 12, "share"), Evidence(weights, None, costs()))
    measures = simulate(known_effects(), noise=0)  # of an earlier checkpoint, which was kept
    assert suggest(Ask("total", 12, "share"), Evidence(weights, measures, costs())).budget.total == 12


def test_pareto_keeps_what_the_curve_of_equal_weights_kept():
    """Its prediction is the loss of those lengths; anything else would be another model's."""
    measures = simulate(known_effects(), noise=0)
    measures.importance = {"gate": [[1.0] * TOKENS for _ in range(LAYERS)]}
    order = removal_order(measures.importance["gate"])
    curve = next(curve for curve in measures.curves if curve.order == "gate")
    measures.curves = [curve]
    found = suggest(Ask("total", 12, "pareto"), Evidence(np.ones((LAYERS, TOKENS)), measures, costs()))
    kept = [int(layer.sum()) for layer in without_first(order, 12, [TOKENS] * LAYERS)]
    assert list(found.budget.prefix_lengths) == kept
    assert any("weigh the same" in note for note in found.notes)
