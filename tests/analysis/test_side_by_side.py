"""Runs beside each other: folding seeds, intervals and the settings that differ."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.runs import Run
from analysis.side_by_side import estimate, folded, lower_is_better, profile, settings_table, short_names, single
from apt_core.run_format import update_finished_run


@pytest.fixture
def run(tmp_path, record_run):
    def make(name: str, *, seed: int = 1, **fields) -> Run:
        folder = record_run(tmp_path / "runs" / name, steps=2, **fields)
        update_finished_run(folder, seed=seed)
        return Run(folder)

    return make


def training(**changes) -> dict:
    return {"epochs": 2, "learning_rate": 0.01, "batch_size": 16, "seed": 1, **changes}


def test_runs_that_differ_only_by_seed_are_one_group(run):
    first = run("a", seed=1)
    second = run("b", seed=2, training=training(seed=2))
    other = run("c", seed=3, training=training(seed=3, learning_rate=0.02))
    groups = folded([first, other, second])
    assert [group.name for group in groups] == ["a (2 seeds)", "c"]
    assert groups[0].runs == [first, second]
    assert [group.name for group in single([first, second])] == ["a", "b"]


def test_run_that_repeats_a_seed_stays_on_its_own(run):
    groups = folded([run("a", seed=1), run("b", seed=1)])
    assert [len(group.runs) for group in groups] == [1, 1]


def test_other_data_is_no_other_seed_unless_the_seed_drew_it(run):
    assert len(folded([run("a", seed=1, data_hash="x"), run("b", seed=2, data_hash="y")])) == 2
    few = [run(name, seed=seed, data_hash=name, training=training(shots=8)) for seed, name in enumerate("cd")]
    assert len(folded(few)) == 1


def test_estimate_is_students_interval():
    found = estimate([0.5, None, 0.6, 0.7])
    assert (found.mean, found.count) == (pytest.approx(0.6), 3)
    assert found.half == pytest.approx(4.302653 * 0.1 / np.sqrt(3))  # t(2) at 97.5 %, s = 0.1
    assert estimate([0.5]) == (0.5, None, 1)
    assert estimate([None, float("nan")]) == (None, None, 0)


def test_profile_over_seeds_has_an_interval_per_layer_and_one_run_has_none():
    weights = np.array([[0.2, 0.4], [0.6, np.nan], [np.nan, np.nan]])
    alone = profile([weights], "mean weight")
    np.testing.assert_allclose(alone.mean, [0.3, 0.6, np.nan])
    assert alone.half is None
    both = profile([weights, weights * 2], "share of gate mass")
    np.testing.assert_allclose(both.mean, [0.5, 0.5, 0])
    assert np.isnan(both.half).all()  # the same numbers twice are no certainty
    scattered = profile([weights, weights * 2], "mean weight")
    np.testing.assert_allclose(scattered.half[:2], 12.706205 * np.array([0.15, 0.3]), rtol=1e-6)  # t(1) at 97.5 %


def test_only_settings_that_differ_are_listed(run):
    runs = [run("a"), run("b", lengths=(8,) * 6, training=training(learning_rate=0.02)), run("c", training={})]
    table = settings_table(single(runs))
    assert table["prefix lengths"] == ["16 x 6", "8 x 6", "16 x 6"]
    assert table["training: learning_rate"] == ["0.01", "0.02", "not set"]
    assert "model" not in table
    assert settings_table(single(runs[:1])) == {}


def test_seeds_of_a_group_are_listed_together(run):
    groups = folded([run("a", seed=1), run("b", seed=2), run("c", seed=1, lengths=(8,) * 6)])
    assert settings_table(groups)["seed"] == ["1, 2", "1"]


def test_names_are_short_unless_two_are_the_same(tmp_path, record_run):
    one, two = (Run(record_run(tmp_path / folder / "a", steps=1)) for folder in ("x", "y"))
    assert short_names([one]) == ["a"]
    assert short_names([one, two]) == ["x/a", "y/a"]


def test_direction_of_metrics():
    assert [lower_is_better(name) for name in ("perplexity", "loss", "accuracy", "macro_f1")] == [
        True,
        True,
        False,
        False,
    ]
