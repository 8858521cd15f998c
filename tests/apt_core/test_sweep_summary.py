"""The table of a sweep: means with intervals over seeds, and differences to uniform lengths, paired by seed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from apt_core.run_format import RunInfo
from apt_core.sweep_plan import expand
from apt_core.sweep_spec import parse_spec
from apt_core.sweep_summary import difference_text, summarise, table_text

SPEC = b"""
tasks = ["copa", "pydoc-topic"]
seeds = 3
budgets = [1.0, 0.5]
methods = ["uniform", "share"]
learning_rates = [0.01]
"""
ACCURACY = {"full": (0.62, 0.70, 0.58), "share": (0.61, 0.66, 0.57), "uniform": (0.60, 0.64, 0.52)}


def plan():
    spec = parse_spec(SPEC, "spec")
    return expand(spec, dict.fromkeys(spec.tasks, 3))


def runs(accuracy=ACCURACY, metric_name="accuracy", lengths=(2, 6, 16), **splits):
    """The finished runs of copa: method -> a value per seed; None where there is no run."""
    found = {}
    for training in plan():
        value = accuracy.get(training.method, (None,) * 3)[training.seed - 1]
        if training.task == "copa" and value is not None:
            found[training.name] = RunInfo(
                status="finished",
                metric_name=metric_name,
                metrics={"validation": {metric_name: value}, **splits},
                prefix_lengths=list(lengths) if training.method == "share" else [8, 8, 8],
                num_parameters={"prefix": 100 * training.total, "frozen": 10**6},
            )
    return found


def cells(found) -> dict:
    return {(cell.task, cell.method): cell for cell in summarise(plan(), found)}


def test_cells_are_means_over_seeds_with_students_interval():
    found = cells(runs())
    assert [key for key in found if key[0] == "copa"] == [("copa", "full"), ("copa", "uniform"), ("copa", "share")]
    full = found["copa", "full"]
    low, high = stats.t.interval(0.95, 2, np.mean(ACCURACY["full"]), stats.sem(ACCURACY["full"]))
    assert full.metric["validation"].mean == pytest.approx(np.mean(ACCURACY["full"]))
    assert full.metric["validation"].half == pytest.approx((high - low) / 2)
    assert (sorted(full.runs), full.seeds, full.parameters, full.total) == ([1, 2, 3], 3, 4800, 48)
    assert full.names[2] == "copa-lr0.01-s2-full"
    assert full.metric["test"] == (None, None, 0)
    empty = found["pydoc-topic", "share"]
    assert (empty.runs, empty.seeds, empty.parameters, empty.metric_name) == ({}, 3, None, "")


def test_gain_over_uniform_is_paired_by_seed():
    share = cells(runs())["copa", "share"]
    expected = stats.ttest_rel(ACCURACY["share"], ACCURACY["uniform"]).confidence_interval(0.95)
    difference = share.against_uniform["validation"]
    assert (difference.low, difference.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert difference_text(share, "validation") == "+2.67 (-2.50 to +7.84) points"
    assert difference_text(share, "test") == ""
    assert cells(runs())["copa", "full"].against_uniform["validation"] is None
    assert cells(runs())["copa", "uniform"].against_uniform["validation"] is None


def test_seeds_that_are_not_done_are_left_out():
    found = cells(runs({"share": (0.61, None, 0.57), "uniform": (0.60, 0.64, None)}))
    share = found["copa", "share"]
    assert (sorted(share.runs), share.metric["validation"].count) == ([1, 3], 2)
    assert share.against_uniform["validation"].count == 1
    assert difference_text(share, "validation") == "+1.00 points, no interval"


def test_smaller_is_better_where_it_is():
    share = cells(runs({"share": (9.0, 8.0, 7.5), "uniform": (10.0, 9.5, 9.0)}, "perplexity"))["copa", "share"]
    assert difference_text(share, "validation").startswith("+1.33 (")
    assert difference_text(share, "validation").endswith("perplexity")


def test_lengths_that_are_uniform_anyway_are_said_to_be():
    share = cells(runs(lengths=(8, 8, 8)))["copa", "share"]
    assert difference_text(share, "validation") == "the same lengths"


def test_table_has_a_part_for_every_task_and_says_what_is_not_measured():
    text = table_text(summarise(plan(), runs()), ("validation", "test"))
    copa, topic = text.split("\n\n")
    lines = copa.splitlines()
    assert lines[0] == "copa, learning rate 0.01: accuracy, mean and 95% interval over seeds"
    assert lines[1].split("  ")[0] == "tokens"
    assert lines[2].split() == ["48", "full", "3/3", "4,800", "0.633", "±", "0.152", "-"]
    assert lines[4].startswith("24      share    3/3    2,400       0.613 ± 0.112")
    assert topic.splitlines()[2].split() == ["48", "full", "0/3", "-", "-", "-"]
    assert "+2.67" in table_text(summarise(plan(), runs()), ("validation",))


def test_seeds_that_diverged_are_counted_beside_the_mean_of_the_others():
    found = cells(runs(ACCURACY | {"share": (0.61, float("nan"), 0.57)}))["copa", "share"]
    assert (found.diverged, found.metric["validation"].count) == (1, 2)
    assert "3/3, 1 diverged" in table_text([found], ["validation"])
