"""Paired tests, their correction, gate profiles and the words made of them, on made-up results."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.paper_claims import claims, table_title
from benchmarks.paper_methods import METHODS, rates_of
from benchmarks.paper_page import page
from benchmarks.paper_plan import Training
from benchmarks.paper_results import Grid, Results, Table
from benchmarks.paper_statistics import (
    Comparison,
    compare,
    compare_over_tables,
    gate_facts,
    lower_centre,
    profile,
    with_holm,
)
from tests.benchmarks.conftest import make_info, make_measured, make_setting

SEEDS = range(1, 6)
NOISE = np.array([0.002, -0.003, 0.001, 0.004, -0.002])


def table_of(
    means: dict[str, float],
    *,
    metric: str = "accuracy",
    mass: list[float] | None = None,
    seeds: range = SEEDS,
    **setting: object,
) -> Table:
    """All seeds of some methods, each with its own scatter around its mean."""
    draw = np.random.default_rng(0)
    about = make_setting(**setting)
    table = Table(setting=about, metric_name=metric, split_sizes=make_info().split_sizes, data_hash="d")
    for method, mean in means.items():
        rate = rates_of(method, (0.01,))[0]
        table.chosen[method], table.grids[method] = rate, Grid((0.01,), 1)
        for seed, noise in zip(seeds, draw.permutation(NOISE), strict=False):
            source = table.final("apt").get(seed) if method == "pt2-star" else None
            training = Training(about, method, rate, seed, tuple(source.star()) if source else None, True)
            gates = {"gate_mass": [value + 0.1 * seed for value in mass]} if mass and method == "apt" else {}
            table.trainings.append(make_measured(training, 0.7, mean + noise, **gates))
    return table  # fmt: skip


ALL_EQUAL = dict.fromkeys(METHODS, 0.6)


def test_comparison_is_the_paired_t_test_over_seeds():
    table = table_of({"apt": 0.63, "pt2": 0.60})
    [found] = compare(table)
    one, two = ([run.test for run in table.final(method).values()] for method in ("apt", "pt2"))
    expected = stats.ttest_rel(one, two)
    low, high = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.p_holm == pytest.approx(found.p)
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high))
    assert found.verdict == "held"


def test_comparison_is_paired_by_seed_and_leaves_out_what_only_one_has():
    table = table_of({"apt": 0.63, "pt2": 0.60})
    table.trainings = [each for each in table.trainings if (each.method, each.seed) != ("pt2", 2)]
    [found] = compare(table)
    assert found.difference.count == 4


def test_metric_that_is_better_when_small_turns_the_difference():
    [found] = compare(table_of({"apt": 18.0, "pt2": 20.0}, metric="perplexity"))
    assert found.difference.mean > 0


def test_single_seed_and_differences_that_do_not_scatter_decide_nothing():
    [found] = compare(table_of({"apt": 0.63, "pt2": 0.60}, seeds=range(1, 2)))
    assert (found.p, found.verdict) == (None, "undecided")
    same = table_of({"apt": 0.63, "pt2": 0.60})
    for each in same.trainings:
        each.test = 0.6 + (0.05 if each.method == "apt" else 0)
    [found] = compare(same)
    assert (found.p, found.verdict) == (None, "undecided")


def test_holm_multiplies_the_smallest_by_their_number_and_never_falls():
    """The example of Holm's procedure: 0.01, 0.02, 0.03, 0.04 of four tests."""
    plain = Comparison("a", "b", None, None)
    found = with_holm([plain._replace(p=p) for p in (0.03, 0.01, 0.04, None, 0.02)])
    assert [each.p_holm for each in found] == pytest.approx([0.06, 0.04, 0.06, None, 0.06])
    assert with_holm([plain._replace(p=0.9)])[0].p_holm == pytest.approx(0.9)


def differences_of(table: Table, method: str = "apt", other: str = "pt2") -> np.ndarray:
    mine, theirs = table.final(method), table.final(other)
    return np.array([mine[seed].test - theirs[seed].test for seed in mine])


def test_mean_over_tables_lets_each_count_with_its_own_scatter_and_seeds():
    one = table_of({"apt": 0.63, "pt2": 0.60})
    few = table_of({"apt": 0.70, "pt2": 0.65}, task="rte", seeds=range(1, 4))
    single = table_of({"apt": 0.10, "pt2": 0.65}, task="wnut17", seeds=range(1, 2))
    [found] = compare_over_tables([one, few, single], [("apt", "pt2")])
    first, second = differences_of(one), differences_of(few)
    assert found.difference.mean == pytest.approx((first.mean() + second.mean()) / 2)
    oracle = stats.ttest_ind(first, -second, equal_var=False)  # the sum of two means is a difference
    low, high = oracle.confidence_interval(0.95)
    assert found.p == pytest.approx(oracle.pvalue)
    assert (found.difference.low, found.difference.high) == pytest.approx((low / 2, high / 2))


def test_mean_over_one_table_is_the_paired_t_test():
    table = table_of({"apt": 0.63, "pt2": 0.60})
    [alone], [found] = compare(table), compare_over_tables([table], [("apt", "pt2")])
    assert found.p == pytest.approx(alone.p)
    assert found.difference == pytest.approx(alone.difference)


def test_methods_with_learning_rates_of_different_grids_are_not_compared():
    table = table_of({"apt": 0.63, "pt2": 0.60})
    table.grids["apt"] = Grid((0.01, 0.03), 1)
    assert compare(table) == []


def test_star_with_lengths_of_other_gates_than_the_final_ones_is_left_out():
    table = table_of({"apt": 0.63, "pt2": 0.60, "pt2-star": 0.6}, mass=[1.0, 2.0, 5.0])
    assert set(table.final("pt2-star")) == set(SEEDS)
    stale = next(each for each in table.trainings if (each.method, each.seed) == ("pt2-star", 2))
    stale.prefix_lengths = stale.prefix_lengths[::-1]
    assert set(table.final("pt2-star")) == set(SEEDS) - {2}


def test_profile_is_mass_per_token_and_share_with_intervals_over_seeds():
    table = table_of({"apt": 0.6}, mass=[1.0, 2.0, 5.0])
    found = profile(table)
    mass = np.array([[value + 0.1 * seed for value in (1.0, 2.0, 5.0)] for seed in SEEDS])
    assert [layer.mean for layer in found.weight] == pytest.approx((mass / 4).mean(axis=0))
    shares = mass / mass.sum(axis=1, keepdims=True)
    assert [layer.mean for layer in found.share] == pytest.approx(shares.mean(axis=0))
    half = stats.t.ppf(0.975, 4) * shares[:, 0].std(ddof=1) / np.sqrt(5)
    assert found.share[0].half == pytest.approx(half)
    assert found.centres == pytest.approx(shares @ [1, 2, 3])


def test_how_gates_ended_is_a_mean_over_layers_and_its_scatter_over_seeds():
    table = table_of({"apt": 0.6, "pt2": 0.6}, mass=[1.0, 2.0, 5.0])
    for each in table.trainings:
        if each.gate_mass:
            each.gate_saturation = [0.0, 0.1 * each.seed, 0.2 * each.seed]
    found = gate_facts(table, "apt")
    assert found.saturated.mean == pytest.approx(0.1 * 3)  # seeds 1 to 5
    assert found.spread.mean == pytest.approx(0.02)
    assert found.agreement == pytest.approx(1)
    assert gate_facts(table, "pt2") is None
    assert "| APT | 0.300 ± 0.196 | 0.0200 | +1.00 |" in page([table], "paper.json")
    turned = table.final("apt")[3]
    turned.gate_mass = turned.gate_mass[::-1]
    assert gate_facts(table, "apt").agreement == pytest.approx((6 - 4) / 10)  # of 10 pairs 4 are reversed


def test_centres_of_two_tasks_are_compared_as_independent():
    low = profile(table_of({"apt": 0.6}, mass=[5.0, 2.0, 1.0]))
    high = profile(table_of({"apt": 0.6}, mass=[1.0, 2.0, 5.0]))
    found, p = lower_centre([low], [high])
    expected = stats.ttest_ind(low.centres, high.centres, equal_var=False)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert p == pytest.approx(expected.pvalue)
    assert found.sign == "below"
    twice, _ = lower_centre([low, low], [high])
    assert twice.mean == pytest.approx(found.mean)
    assert twice.half < found.half


def test_claims_say_held_only_where_the_corrected_test_finds_the_difference():
    better = {**ALL_EQUAL, "apt": 0.65, "pt2-star": 0.63}
    tables = [
        table_of(better, mass=[1.0, 2.0, 5.0]),
        table_of(better, task="wnut17", metric="entity_f1", mass=[5.0, 2.0, 1.0]),
    ]
    found = claims(tables)
    assert [claim.verdict for claim in found] == ["held"] * 5
    assert "mean over 2 tasks" in found[0].lines[0]
    assert "+5.00 points" in " ".join(found[0].lines)
    undecided = claims([table_of(ALL_EQUAL), table_of(ALL_EQUAL, task="wnut17", metric="entity_f1")])
    assert {claim.verdict for claim in undecided[:4]} == {"undecided at this size"}
    assert "these seeds could have shown" in undecided[0].lines[0]
    assert "5 seeds could have shown" in undecided[0].lines[1]


def test_task_with_one_seed_is_left_out_of_the_mean_and_keeps_its_own_line():
    better = {**ALL_EQUAL, "apt": 0.65}
    few = table_of({"apt": 0.5, "pt2": 0.6}, task="wnut17", metric="entity_f1", seeds=SEEDS[:1])
    found = claims([table_of(better), few])[0]
    assert found.verdict == "held"
    assert "mean over 1 task, all examples (without wnut17)" in found.lines[0]
    [alone] = [each for each in compare(few) if each.other == "pt2"]
    own = f"{100 * alone.difference.mean:+.2f} points"
    assert any("wnut17" in line and own in line for line in found.lines[1:])


def test_second_setting_of_a_task_is_no_second_task():
    tables = [table_of(ALL_EQUAL), table_of({**ALL_EQUAL, "apt": 0.65}, epochs=9)]
    found = claims(tables)[0]
    assert found.verdict == "held"
    assert not any("mean over" in line for line in found.lines)
    assert [table_title(table, tables) for table in tables] == [
        "copa, all examples, epochs: 2, up to 128 sub-words, 4 tokens",
        "copa, all examples, epochs: 9, up to 128 sub-words, 4 tokens",
    ]


def test_claims_say_so_where_the_opposite_was_found_or_nothing_was_measured():
    worse = claims([table_of({**ALL_EQUAL, "apt": 0.55}, mass=[5.0, 2.0, 1.0])])
    assert [claim.verdict for claim in worse] == [
        "did not hold", "did not hold", "undecided at this size", "did not hold", "not measured",
    ]  # fmt: skip
    opposite = claims(
        [
            table_of(ALL_EQUAL, mass=[5.0, 2.0, 1.0]),
            table_of(ALL_EQUAL, task="wnut17", metric="entity_f1", mass=[1.0, 2.0, 5.0]),
        ]
    )
    assert opposite[4].verdict == "did not hold"
    assert {claim.verdict for claim in claims([table_of({"pt2": 0.5})])} == {"not measured"}


def test_few_shot_tables_are_told_and_do_not_decide():
    tables = [table_of(ALL_EQUAL), table_of({**ALL_EQUAL, "apt": 0.9}, shots=16, per_class=16)]
    found = claims(tables)[0]
    assert found.verdict == "undecided at this size"
    assert any("16 examples per class" in line and "held" in line for line in found.lines)


def test_page_has_every_number_of_the_tables_and_none_of_its_own():
    table = table_of({**ALL_EQUAL, "apt": 0.65}, mass=[1.0, 2.0, 5.0])
    text = page([table], "paper.json")
    by_seed = text.partition("How gates ended")[0]
    rows = {line.split("|")[1].strip(): line for line in by_seed.splitlines() if line.startswith("| ")}
    assert set(rows) >= {method.title.replace("*", "\\*") for method in METHODS.values()}
    [against] = [each for each in compare(table) if (each.method, each.other) == ("apt", "pt2")]
    assert f"{100 * against.difference.mean:+.2f} ± {100 * against.difference.half:.2f}" in rows["PT-2"]
    assert f"| {against.p:.3f} | {against.p_holm:.3f} |" in rows["PT-2"]
    assert " 1.0 |" in rows["APT"]  # minutes
    assert "0.770" in text
    assert "another backbone, so not comparable" in text
    assert "rehearsal" not in text.lower()


def test_page_of_a_rehearsal_says_so():
    assert "**A rehearsal" in page([table_of(ALL_EQUAL, max_steps=5)], "rehearsal.json")


def test_page_shows_names_of_others_as_they_are_and_no_local_path():
    text = page([table_of(ALL_EQUAL, task="rte:<b>x</b>", model="/home/someone/models/mine")], "paper.json")
    assert "<b>" not in text.replace("\\<b\\>", "")
    assert "someone" not in text
    assert "## mine" in text


def test_results_refuse_other_data_in_the_same_table(tmp_path):
    results, setting = Results(tmp_path / "paper.json"), make_setting()
    training = Training(setting, "pt2", 0.01, 1, None, True)
    results.add(setting, make_measured(training, 0.5, 0.5), make_info())
    with pytest.raises(ValueError, match="on other data; accepted: the same data"):
        results.add(setting, make_measured(training._replace(seed=2), 0.5, 0.5), make_info(data_hash="other"))


def test_few_shot_draws_differ_from_seed_to_seed(tmp_path):
    results, setting = Results(tmp_path / "paper.json"), make_setting(shots=16, per_class=16)
    for seed in (1, 2):
        training = Training(setting, "pt2", 0.01, seed, None, True)
        results.add(setting, make_measured(training, 0.5, 0.5), make_info(data_hash=str(seed)))
    assert len(Results(tmp_path / "paper.json").tables[0].trainings) == 2
