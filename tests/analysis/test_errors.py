"""Differences of gates between right and wrong examples and between classes, checked against scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from analysis.errors import (
    MIN_GROUP,
    LayerTests,
    adjusted,
    against_mean,
    correlation,
    differing,
    group_differences,
    lacking,
    outcome_differences,
    over_classes,
    varying,
)


def gates_of(seed: int, examples: int = 120, layers: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.6, 0.01, (examples, layers))


def wrongs(seed: int, examples: int = 120, share: float = 0.4) -> np.ndarray:
    return (np.random.default_rng(seed).random(examples) < share).astype(float)


def error_difference(gates: np.ndarray, error: np.ndarray) -> LayerTests:
    """Wrong examples minus right ones."""
    return outcome_differences(gates, {"wrong": error}).tests.of(0)


def test_error_difference_equals_scipys_welch_test():
    gates, error = gates_of(0), wrongs(1)
    gates[error == 1, 2] += 0.01
    found = error_difference(gates, error)
    expected = stats.ttest_ind(gates[error == 1], gates[error == 0], equal_var=False)
    interval = expected.confidence_interval(0.95)
    np.testing.assert_allclose(found.p, expected.pvalue)
    np.testing.assert_allclose(found.low, interval.low)
    np.testing.assert_allclose(found.high, interval.high)
    np.testing.assert_allclose(found.value, gates[error == 1].mean(0) - gates[error == 0].mean(0))
    np.testing.assert_allclose(found.adjusted, stats.false_discovery_control(expected.pvalue))
    assert 3 in differing(found)


def test_effect_is_cohens_d():
    gates = np.array([[0.1], [0.2], [0.3]] * 5 + [[0.3], [0.4], [0.5]] * 5)
    error = np.repeat([1.0, 0.0], 15)
    variance = gates[:15].var(ddof=1)  # the same in both groups
    assert error_difference(gates, error).effect[0] == pytest.approx(-0.2 / np.sqrt(variance))


def test_gates_that_are_missing_in_some_examples_are_left_out():
    gates, error = gates_of(2), wrongs(3)
    gates[::7, 1] = np.nan
    found = error_difference(gates, error)
    expected = stats.ttest_ind(gates[error == 1, 1], gates[error == 0, 1], equal_var=False, nan_policy="omit")
    assert found.p[1] == pytest.approx(expected.pvalue)


def test_layer_that_is_the_same_for_every_example_is_not_tested_nor_counted():
    gates, error = gates_of(4), wrongs(5)
    gates[:, 0] = 0.5
    gates[:, 1] = np.nan
    gates[:, 2] = np.where(error, 0.700001, 0.7)  # the last digit that is written
    assert varying(gates).tolist() == [False, False, False, True, True]
    found = error_difference(gates, error)
    assert np.isnan(np.stack(found)[:, :3]).all()
    np.testing.assert_allclose(found.adjusted[3:], stats.false_discovery_control(found.p[3:]))


def test_effect_that_was_planted_is_found_and_null_data_stays_below_the_rate():
    found, false = 0, 0
    for seed in range(100):
        gates, error = gates_of(seed, layers=6), wrongs(1000 + seed)
        false += differing(error_difference(gates, error)).size > 0
        gates[:, 4] += 0.008 * error  # 0.8 standard deviations
        found += 5 in differing(error_difference(gates, error))
    assert found >= 90
    assert false <= 12  # 5 expected; 12 or more have a chance of 0.4 % at that rate


@pytest.mark.parametrize(("wrong", "right"), [(0, 50), (50, 0), (9, 50), (50, 9), (0, 0)])
def test_too_few_on_a_side_is_said_and_gives_no_number(wrong, right):
    error = np.repeat([1.0, 0.0], [wrong, right])
    gates = gates_of(0, wrong + right)
    few = [f"{count} {name}" for name, count in (("wrong", wrong), ("right", right)) if count < MIN_GROUP]
    assert " and ".join(few) in lacking(error)
    assert np.isnan(np.stack(error_difference(gates, error))).all()


def test_enough_on_both_sides_lacks_nothing():
    assert lacking(np.repeat([1.0, 0.0, np.nan], 10)) is None


def test_each_class_against_the_rest_is_welch_and_adjusted_over_all_cells():
    gates = gates_of(6, 150, 3)
    names = np.array(["a", "b", "c", "rare"])[np.r_[np.arange(145) % 3, [3] * 5]].tolist()
    found = group_differences(gates, names)
    assert found.names == ["a", "b", "c", "rare"]
    assert found.counts.tolist() == [[49, 101], [48, 102], [48, 102], [5, 145]]
    chosen = np.array(names) == "b"
    expected = stats.ttest_ind(gates[chosen], gates[~chosen], equal_var=False)
    np.testing.assert_allclose(found.tests.p[1], expected.pvalue)
    assert np.isnan(found.tests.p[3]).all()
    np.testing.assert_allclose(found.tests.adjusted[:3], adjusted(found.tests.p[:3]))


def test_difference_to_the_mean_of_all_is_what_its_name_says():
    gates = gates_of(7, 90, 2)
    names = ["x"] * 30 + ["y"] * 60
    found = against_mean(group_differences(gates, names))
    np.testing.assert_allclose(found.tests.value[found.names.index("x")], gates[:30].mean(0) - gates.mean(0))


def test_outcomes_that_are_not_known_are_left_out():
    gates = gates_of(8)
    outcome = wrongs(9)
    outcome[:30] = np.nan
    found = outcome_differences(gates, {"type": outcome})
    expected = stats.ttest_ind(gates[outcome == 1], gates[outcome == 0], equal_var=False)
    np.testing.assert_allclose(found.tests.p[0], expected.pvalue)


def test_kruskal_over_classes_equals_scipy_without_small_classes():
    gates = gates_of(10, 100, 3).round(2)  # ties
    names = [str(number % 3) for number in range(97)] + ["rare"] * 3
    found = over_classes(gates, names)
    labels = np.array(names)
    for layer in range(3):
        h, p = stats.kruskal(*(gates[labels == name, layer] for name in "012"))
        assert (found.value[layer], found.p[layer]) == (pytest.approx(h), pytest.approx(p))
        assert found.effect[layer] == pytest.approx(h / 96)


def test_correlation_equals_scipys_and_its_interval_covers():
    gates = gates_of(11)
    loss = gates[:, 1] + np.random.default_rng(0).normal(0, 0.01, 120)
    loss[:5] = np.nan
    found = correlation(gates, loss)
    expected = stats.spearmanr(gates[5:, 1], loss[5:])
    assert (found.value[1], found.p[1]) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))
    covered = 0
    for seed in range(200):
        draw = np.random.default_rng(seed).multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 100)
        low, high = (part[0] for part in correlation(draw[:, :1], draw[:, 1])[1:3])
        covered += low <= 6 / np.pi * np.arcsin(0.25) <= high  # Spearman's of a normal pair with Pearson's 0.5
    assert covered >= 182  # 190 expected


def test_correlation_of_too_few_or_the_same_values_is_not_there():
    gates = gates_of(12)
    assert np.isnan(np.stack(correlation(gates, np.full(120, 2.0)))).all()
    assert np.isnan(np.stack(correlation(gates[:15], np.arange(15.0)))).all()


any_number = st.floats(allow_nan=True, allow_infinity=True, width=32)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    examples=st.integers(1, 60),
    layers=st.integers(1, 4),
)
def test_nothing_that_a_run_may_hold_makes_it_fail(data, examples, layers):
    gate = st.one_of(st.just(np.nan), st.just(0.5), st.floats(0, 1))
    gates = data.draw(hnp.arrays(float, (examples, layers), elements=gate))
    error = data.draw(hnp.arrays(float, examples, elements=st.sampled_from([0.0, 1.0, np.nan])))
    loss = data.draw(hnp.arrays(float, examples, elements=any_number))
    names = data.draw(st.lists(st.sampled_from("abc"), min_size=examples, max_size=examples))
    for tests in (
        error_difference(gates, error),
        correlation(gates, loss),
        over_classes(gates, names),
        group_differences(gates, names).tests,
        against_mean(group_differences(gates, names)).tests,
    ):
        known = np.isfinite(tests.p)
        assert ((tests.p[known] >= 0) & (tests.p[known] <= 1)).all()
        assert (np.isnan(tests.adjusted) == np.isnan(tests.p)).all()
        interval = np.isfinite(tests.low)
        assert (tests.low <= tests.high)[interval].all()
