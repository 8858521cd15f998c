"""The decision: intervals as scipy has them, and an outcome that follows from where they lie."""

from __future__ import annotations

from math import sqrt
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from analysis.pilot import ChosenBudget
from analysis.pilot_decision import KEEP, MOST_SEEDS, PRUNE, UNDECIDED, decide, seeds_to_settle
from apt_core.estimates import Difference
from tests.analysis.pilot_world import PILOT

PARAMETERS = {"full": 1000, "pruned": 520, "uniform": 520}
accuracies = st.floats(0.2, 0.9, allow_nan=False)


def runs_of(metric: str = "accuracy", split: str = "validation", **values: list[float | None]) -> dict:
    """Finished runs with these values of the metric."""
    return {
        arm: [
            None
            if value is None
            else SimpleNamespace(
                name=f"{arm}-{number}",
                metric=lambda of="validation", value=value: value if of in ("validation", split) else None,
                info=SimpleNamespace(
                    metric_name=metric,
                    total_tokens=96 if arm == "full" else 48,
                    num_trained_parameters=PARAMETERS[arm],
                    seconds=10.0,
                ),
            )
            for number, value in enumerate(each, start=1)
        ]
        for arm, each in values.items()
    }


def decided(tolerance: float = 2.0, metric: str = "accuracy", split: str = "validation", **values):
    pilot = PILOT.model_copy(update={"tolerance": tolerance})
    return decide(pilot, runs_of(metric, split, **values))


@given(st.lists(st.tuples(accuracies, accuracies), min_size=3, max_size=3), st.floats(0, 20))
def test_interval_is_that_of_scipys_paired_test_and_the_outcome_follows(pairs, tolerance):
    full, pruned = ([round(value, 4) for value in side] for side in zip(*pairs, strict=True))
    cost = 100 * (np.array(full) - np.array(pruned))
    assume(np.ptp(cost) > 0.01)
    found = decided(tolerance, full=full, pruned=pruned)
    low, high = stats.ttest_rel(full, pruned).confidence_interval(0.95)
    better = found.compared[0].better
    assert better.low == pytest.approx(-100 * high)
    assert better.high == pytest.approx(-100 * low)
    assume(min(abs(100 * low - tolerance), abs(100 * high - tolerance)) > 1e-6)
    expected = PRUNE if 100 * high <= tolerance else KEEP if 100 * low > tolerance else UNDECIDED
    assert found.outcome == expected


def test_prune_says_the_most_it_costs_and_what_it_saves():
    found = decided(full=[0.62, 0.60, 0.63], pruned=[0.615, 0.602, 0.624], uniform=[0.60, 0.59, 0.60])
    assert found.outcome == PRUNE
    assert found.headline == (
        "Prune: 48 instead of 96 virtual tokens cost at most 1.4 points of accuracy (interval -0.8 to 1.4 points, "
        "3 seeds) and save 480 trained parameters (48%)."
    )
    assert "better than uniform ones of the same size: +1.7 (+0.1 to +3.3) points" in found.sentences[0]


def test_clear_gain_costs_nothing():
    found = decided(full=[0.50, 0.51, 0.52], pruned=[0.60, 0.611, 0.619])
    assert "cost nothing of accuracy" in found.headline


def test_clear_loss_keeps_the_full_length_and_says_when_uniform_would_do():
    found = decided(full=[0.60, 0.61, 0.62], pruned=[0.50, 0.511, 0.519], uniform=[0.602, 0.611, 0.621])
    assert found.outcome == KEEP
    assert "cost at least" in found.headline
    assert "more than the 2.0 points accepted" in found.headline
    assert "the budget's lengths cost at least" in found.headline
    assert "Pruned lengths are worse than uniform ones of the same size: " in found.sentences[0]
    assert "Uniform lengths of the same total meet the rule, so use those: " in found.sentences[1]


def test_nothing_is_recommended_where_no_lengths_meet_the_rule():
    found = decided(full=[0.60, 0.61, 0.62], pruned=[0.40, 0.412, 0.418], uniform=[0.50, 0.511, 0.519])
    assert found.outcome == KEEP
    assert "worse than uniform ones" in found.sentences[0]
    assert len(found.sentences) == 1


def test_lengths_that_are_not_uniform_are_not_called_so_before_a_uniform_run_is_there():
    found = decided(full=[0.60, 0.61, 0.62], pruned=[0.60, 0.611, 0.619])
    assert found.sentences == [
        "Whether the split over the layers matters is not known yet: no seed has both kinds of lengths."
    ]


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_training_that_diverged_speaks_against_pruning_and_is_named(value):
    full, pruned = [10.0, 10.1, 10.2, 10.1], [10.0, 10.09, 10.21, 10.1]
    assert decided(0.5, "perplexity", full=full, pruned=pruned).outcome == PRUNE
    found = decided(0.5, "perplexity", full=full, pruned=[*pruned[:3], value])
    assert found.outcome == UNDECIDED
    assert found.headline.startswith(
        "Undecided: pruned-4 ended without a finite perplexity, which speaks against fewer"
    )
    assert found.sentences[-1] == "Without a finite perplexity, and so in no mean and no interval: pruned-4."
    found = decided(0.5, "perplexity", full=[*full[:3], value], pruned=pruned)
    assert found.outcome == PRUNE
    assert found.sentences[-1].endswith("no interval: full-4.")


def test_uniform_lengths_one_of_which_diverged_are_not_recommended():
    full, pruned, uniform = [0.70, 0.71, 0.69, 0.70], [0.60, 0.60, 0.61, 0.60], [0.70, 0.71, 0.70, 0.69]
    assert "so use those" in " ".join(decided(full=full, pruned=pruned, uniform=uniform).sentences)
    found = decided(full=full, pruned=pruned, uniform=[*uniform[:3], float("nan")])
    assert "so use those" not in " ".join(found.sentences)
    assert "uniform-4" in " ".join(found.sentences)


def test_wide_interval_is_undecided_and_says_how_many_seeds_more():
    found = decided(full=[0.60, 0.64, 0.62], pruned=[0.62, 0.61, 0.61], uniform=[0.61, 0.62, 0.60])
    assert found.outcome == UNDECIDED
    assert "Undecided at 3 seeds" in found.headline
    assert "more seeds would settle it (prune)" in found.headline
    assert "not shown to be better than uniform ones of the same size" in found.sentences[0]


def test_one_pair_and_equal_differences_give_no_interval():
    one = decided(full=[0.6, None, None], pruned=[0.6, 0.5, None])
    assert (one.outcome, one.seeds) == (UNDECIDED, 1)
    assert "one seed says nothing about other seeds" in one.headline
    equal = decided(full=[0.6, 0.7, 0.8], pruned=[0.5, 0.6, 0.7])
    assert equal.outcome == UNDECIDED
    assert "the same, which gives no interval" in equal.headline


def test_smaller_is_better_for_a_perplexity_and_its_unit_is_its_own():
    found = decided(0.5, "perplexity", full=[10.0, 10.1, 10.2], pruned=[10.2, 10.29, 10.41])
    assert found.unit == "perplexity"
    assert found.compared[0].better.mean == pytest.approx(-0.2)
    assert found.outcome == PRUNE
    assert decided(0.1, "perplexity", full=[10.0, 10.1, 10.2], pruned=[10.2, 10.29, 10.41]).outcome == KEEP
    assert decided(0.1, "perplexity", full=[10.2, 10.29, 10.41], pruned=[10.0, 10.1, 10.2]).outcome == PRUNE


def test_test_split_decides_once_all_runs_have_it():
    values = {"full": [0.6, 0.61, 0.62], "pruned": [0.6, 0.611, 0.619]}
    assert decided(**values).split == "validation"
    assert decided(split="test", **values).split == "test"
    some = runs_of(split="test", **values)
    some["pruned"][1] = runs_of(pruned=[0.6])["pruned"][0]
    assert decide(PILOT, some).split == "validation"


def test_uniform_lengths_are_the_candidate_where_there_are_no_pruned_ones():
    pilot = PILOT.model_copy(update={"budget": ChosenBudget(weighed_by="uniform", prefix_lengths=(8,) * 6)})
    found = decide(pilot, runs_of(full=[0.6, 0.61, 0.62], uniform=[0.6, 0.611, 0.619]))
    assert [(each.arm, each.against) for each in found.compared] == [("uniform", "full")]
    assert found.outcome == PRUNE
    assert "whether their split over the layers matters was not asked" in found.sentences[0]


@pytest.mark.parametrize("values", [{}, {"full": [0.6]}, {"full": [0.6, None], "pruned": [None, 0.6]}])
def test_nothing_to_compare_is_no_decision(values):
    assert decided(**values) is None


@given(st.integers(2, 10), st.floats(-5, 5), st.floats(0.1, 5), st.floats(0, 5))
def test_seeds_to_settle_are_the_fewest_with_which_scipys_interval_leaves_the_tolerance(
    count, mean, scatter, tolerance
):
    half = stats.t.ppf(0.975, count - 1) * scatter / sqrt(count)
    found = seeds_to_settle(Difference(mean, half, count), tolerance)

    def settles(seeds: int) -> bool:
        low, high = stats.t.interval(0.95, seeds - 1, mean, scatter / sqrt(seeds))
        return high < tolerance or low > tolerance

    enough = [seeds for seeds in range(count + 1, MOST_SEEDS + 1) if settles(seeds)]
    assert found == (enough[0] if enough else None)
