"""Areas, intervals, correlations and stability, against scipy and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from sklearn.metrics import auc

from analysis import resampling
from analysis.agreement import (
    layer_correlation,
    layer_effects,
    layer_sums,
    rank_correlation,
    token_correlation,
    token_effects,
)
from analysis.curves import area, complete_examples, curves_by_order, loss_table, random_bound, score_curves
from analysis.gate_sample import GateSample
from analysis.resampling import DRAWS, SEED, bootstrap_means, chance_of_order, chance_within_groups, interval
from analysis.stability import seed_agreement, stability
from tests.analysis.simulated_measures import layered_effects, shuffled, simulate


@pytest.fixture(scope="module")
def measures():
    effects = layered_effects(3)
    return simulate(effects, {"gate": shuffled(effects, 4)}, num_examples=60, tokens=True)


def scipy_interval(values: np.ndarray, statistic=np.mean):
    found = stats.bootstrap(
        (values,),
        statistic,
        n_resamples=DRAWS,
        method="percentile",
        confidence_level=0.95,
        rng=np.random.default_rng(SEED),
        vectorized=statistic is np.mean,
    )
    return found.confidence_interval


@pytest.mark.parametrize("at_a_time", [4_000_000, 7 * 60])
def test_bootstrap_draws_the_resamples_of_scipy_however_much_is_held_at_once(monkeypatch, at_a_time):
    monkeypatch.setattr(resampling, "_AT_A_TIME", at_a_time)
    values = np.random.default_rng(1).gamma(1.0, size=(60, 2))
    means = bootstrap_means(values)
    for column in (0, 1):
        found = interval(float(values[:, column].mean()), means[:, column])
        np.testing.assert_allclose(found[1:], scipy_interval(values[:, column]))


def test_interval_leaves_out_what_is_not_finite():
    assert interval(1.0, np.array([np.nan, 2.0, 2.0])) == (1.0, 2.0, 2.0)
    assert np.isnan(interval(1.0, np.array([np.nan]))[1:]).all()


def test_area_is_that_of_scipy_and_scikit_learn(measures):
    for curve in measures.curves:
        losses = loss_table(curve.points)
        kept = np.array(curve.kept) / curve.kept[0]
        found = area(curve.kept, losses)
        np.testing.assert_allclose(found, integrate.trapezoid(losses[::-1], kept[::-1], axis=0))
        assert found[0] == pytest.approx(auc(kept, losses[:, 0]))


def test_scores_are_mean_differences_of_areas_with_intervals_of_scipy(measures):
    scores = score_curves(measures)
    named, random = curves_by_order(measures)
    areas = {name: area(curve.kept, loss_table(curve.points)) for name, curve in named.items()}
    by_chance = np.array([area(curve.kept, loss_table(curve.points)) for curve in random])
    difference = by_chance.mean(axis=0) - areas["gate"]
    found = scores.orders["gate"]
    assert found.over_random.value == pytest.approx(difference.mean())
    np.testing.assert_allclose(found.over_random[1:], scipy_interval(difference))
    np.testing.assert_allclose(found.over_reverse[1:], scipy_interval(areas["gate reversed"] - areas["gate"]))
    effect = scores.orders["effect"]
    np.testing.assert_allclose(effect.over_gates[1:], scipy_interval(areas["gate"] - areas["effect"]))
    gain = (loss_table([measures.empty]) - loss_table([measures.full]))[0]
    np.testing.assert_allclose(scores.gain, (gain.mean(), *scipy_interval(gain)))
    assert effect.share == pytest.approx(effect.over_random.value / gain.mean())
    assert found.random_beaten == (areas["gate"].mean() < by_chance.mean(axis=1)).sum()
    metrics = [auc(np.array(each.kept) / each.kept[0], [p.metric for p in each.points]) for each in random]
    mine = auc(np.array(named["gate"].kept) / 48, [p.metric for p in named["gate"].points])
    assert found.metric_over_random == pytest.approx(mine - np.mean(metrics))


def test_metric_of_which_less_is_better_is_turned_round(measures):
    score = score_curves(measures).orders["gate"].metric_over_random
    turned = measures.model_copy(update={"greater_is_better": False})
    assert score_curves(turned).orders["gate"].metric_over_random == pytest.approx(-score)


def test_random_bound_is_exceeded_as_rarely_as_it_says():
    orders = np.random.default_rng(0).normal(size=(4_000, 4))
    exceeded = np.mean([row[:3].mean() - row[3] > random_bound(row[:3], 0.95) for row in orders])
    assert exceeded == pytest.approx(0.05, abs=0.012)  # more than three standard errors
    assert random_bound(orders[0, :1], 0.95) is None


def test_examples_without_a_loss_are_left_out_everywhere(measures):
    holes = measures.model_copy(deep=True)
    holes.full.losses[0] = None
    holes.curves[-1].points[3].losses[1] = float("nan")
    holes.curves[0].points[0].losses[2] = float("inf")
    assert np.flatnonzero(~complete_examples(holes)).tolist() == [0, 1, 2]
    scores = score_curves(holes)
    assert (scores.examples, scores.left_out) == (57, 3)
    few = measures.model_copy(deep=True)
    for curve in few.curves:
        for point in curve.points:
            del point.losses[:3]
    del few.full.losses[:3], few.empty.losses[:3]
    assert scores.orders["effect"] == score_curves(few).orders["effect"]


def test_layer_correlation_is_that_of_scipy(measures):
    effects = layer_effects(measures)
    rises = (loss_table(measures.layers) - loss_table([measures.full])).T
    np.testing.assert_allclose(effects.mean, rises.mean(axis=0))
    low, high = scipy_interval(rises[:, 2])
    assert (effects.low[2], effects.high[2]) == (pytest.approx(low), pytest.approx(high))
    gates = layer_sums(measures.importance["gate"])
    found = layer_correlation(measures.importance["gate"], effects)
    assert found.spearman.value == pytest.approx(stats.spearmanr(gates, effects.mean).statistic)
    assert found.kendall == pytest.approx(stats.kendalltau(gates, effects.mean).statistic)

    def statistic(index):
        return stats.spearmanr(gates, rises[index].mean(axis=0)).statistic

    np.testing.assert_allclose(found.spearman[1:], scipy_interval(np.arange(len(rises)), statistic))


def test_token_correlation_is_that_of_scipy_and_its_chance_ignores_layers(measures):
    effects = token_effects(measures)
    flat = np.concatenate(measures.importance["gate"])
    found = token_correlation(measures.importance["gate"], effects)
    assert found.spearman.value == pytest.approx(stats.spearmanr(flat, effects.mean).statistic)
    assert found.count == 48
    means = np.repeat([np.mean(layer) for layer in np.split(effects.mean, 6)], 8)
    by_layer_only = means + np.tile(np.random.default_rng(0).normal(0, 1e-6, 8), 6)
    again = token_correlation(np.split(by_layer_only, 6), effects)
    assert again.spearman.value > 0.6
    assert again.chance > 0.05


@given(st.lists(st.integers(0, 4), min_size=2, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_chance_is_the_part_of_all_orders_that_are_as_good(numbers, random):
    numbers, others = np.array(numbers), np.array([random.random() for _ in numbers])
    ranks, other = stats.rankdata(numbers), stats.rankdata(others)
    sums = [np.array(order) @ other for order in itertools.permutations(ranks)]
    expected = np.mean(np.array(sums) >= ranks @ other - 1e-9)
    assert chance_of_order(numbers, others) == pytest.approx(expected)
    assert chance_within_groups([numbers], [others]) == pytest.approx(expected, abs=0.025)


def test_ranks_of_too_little_are_none():
    assert rank_correlation(np.array([1.0]), np.array([1.0])) is None
    assert rank_correlation(np.array([1.0, 1.0]), np.array([1.0, 2.0])) is None
    assert rank_correlation(np.array([1.0, np.nan, 3.0]), np.array([1.0, 2.0, np.inf])) is None
    assert rank_correlation(np.array([1.0, np.nan, 3.0]), np.array([1.0, 2.0, 0.0])) == -1


def gate_sample(token_gate: np.ndarray, layer_scale: np.ndarray) -> GateSample:
    present = np.isfinite(token_gate[0])
    steps = np.arange(1, len(token_gate) + 1)
    return GateSample(steps, token_gate, layer_scale, np.zeros_like(token_gate[-1:]), present, len(steps))


def test_stability_is_the_rank_correlation_of_quarter_means():
    random = np.random.default_rng(0)
    gates, scale = random.uniform(0.1, 0.9, (40, 5, 3)), random.uniform(0.5, 1.5, (40, 5))
    gates[:, 1, 2] = np.nan
    found = stability(gate_sample(gates, scale))
    weights = gates * scale[..., None]
    third, fourth = weights[20:30].mean(axis=0), weights[30:].mean(axis=0)
    layers = stats.spearmanr(np.nanmean(third, axis=1), np.nanmean(fourth, axis=1)).statistic
    assert found.layers == pytest.approx(layers)
    assert found.tokens == pytest.approx(stats.spearmanr(third.ravel(), fourth.ravel(), nan_policy="omit").statistic)
    halves = weights[30:35].mean(axis=0), weights[35:].mean(axis=0)
    within = stats.spearmanr(*(np.nanmean(half, axis=1) for half in halves)).statistic
    assert found.layers_within == pytest.approx(within)
    change = np.abs(fourth - weights[0]) / weights[0]
    assert found.moved == pytest.approx(np.nanmean(change))


def test_stability_of_few_steps_of_equal_weights_and_of_a_diverged_run():
    few = stability(gate_sample(np.full((3, 2, 2), 0.5), np.ones((3, 2))))
    assert few.layers is None
    assert "too few" in few.basis
    equal = stability(gate_sample(np.ones((40, 2, 2)), np.ones((40, 2))))
    assert (equal.layers, equal.tokens, equal.moved) == (None, None, 0)
    diverged = np.random.default_rng(0).uniform(0.1, 0.9, (40, 4, 2))
    diverged[35:, :2] = np.nan
    diverged[35:, 2] = np.inf
    lost = stability(gate_sample(diverged, np.ones((40, 4))))
    assert (lost.layers, lost.tokens) == (None, None)  # what stayed finite says nothing of the rest
    assert "diverged" in lost.basis


def test_agreement_over_seeds_is_that_of_this_run_with_the_others_and_only_of_layers():
    run, *others = (np.random.default_rng(seed).uniform(size=(6, 4)) for seed in range(3))
    found = seed_agreement(run, others)
    pairs = [stats.spearmanr(run.sum(axis=1), other.sum(axis=1)).statistic for other in others]
    assert found == (pytest.approx(np.mean(pairs)), pytest.approx(min(pairs)), 3, 0)
    mixed = [np.random.default_rng(seed).permuted(each, axis=1) for seed, each in enumerate((run, *others))]
    assert seed_agreement(mixed[0], mixed[1:]).mean == pytest.approx(found.mean)


def test_others_that_agree_among_themselves_say_nothing_for_a_run_that_does_not():
    order = np.arange(1.0, 7)[:, None] * np.ones(3)
    assert seed_agreement(order[::-1], [order] * 9).mean == -1
    assert seed_agreement(order, [order, np.full((6, 3), np.inf)]) == (1, 1, 2, 1)
    assert seed_agreement(order, [np.ones((6, 3))]) == (None, None, 1, 1)


def test_importance_that_is_the_same_inside_every_layer_is_no_witness_of_tokens():
    measures = simulate(layered_effects(0), tokens=True)
    effects = token_effects(measures)
    flat = [[float(layer)] * 8 for layer in range(6)]
    assert token_correlation(flat, effects) is None
    assert token_correlation([[*layer[:-1], 9.0] for layer in flat], effects) is not None
