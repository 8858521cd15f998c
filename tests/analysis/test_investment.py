"""What parameters buy: front, steps and knee."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.figures.investment import investment_figure, investment_panel
from analysis.investment import (
    AXES,
    Option,
    invest,
    knee,
    options_of,
    overlap,
    pareto_front,
    pool_names,
    pools,
    reading,
)
from analysis.runs import Run
from analysis.side_by_side import folded
from apt_core.estimates import Estimate, estimate
from apt_core.run_format import update_finished_run

points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=14)


def dominates(one: tuple[float, float], other: tuple[float, float], lower: bool) -> bool:
    """Whether ``one`` is as cheap and as good, and better in one of both."""
    worth = [-value if lower else value for _, value in (one, other)]
    return one[0] <= other[0] and worth[0] >= worth[1] and (one[0] < other[0] or worth[0] > worth[1])


@given(points, st.booleans())
def test_front_is_exactly_what_nothing_dominates(found, lower):
    front = pareto_front([cost for cost, _ in found], [value for _, value in found], lower)
    for place, point in enumerate(found):
        assert (place in front) == (not any(dominates(other, point, lower) for other in found))
    assert [found[place][0] for place in front] == sorted(found[place][0] for place in front)


@given(points, st.booleans(), st.randoms(use_true_random=False))
def test_front_does_not_depend_on_the_order_of_the_points(found, lower, draw):
    shuffled = draw.sample(found, len(found))
    fronts = [
        sorted(each[place] for place in pareto_front(*zip(*each, strict=True), lower)) for each in (found, shuffled)
    ]
    assert fronts[0] == fronts[1]


def test_equal_points_are_on_the_front_together():
    assert pareto_front([1, 1, 2], [5, 5, 5]) == [0, 1]
    assert pareto_front([1, 1, 2], [5, 5, 4], lower_is_better=True) == [0, 1, 2]
    assert pareto_front([], []) == []


@pytest.mark.parametrize("slope", [2, 5, 10])
def test_knee_of_a_saturating_curve_is_where_its_slope_is_that_of_the_chord(slope):
    x = np.linspace(0, 1, 1001)
    y = 1 - np.exp(-slope * x)
    expected = np.log(slope / (1 - np.exp(-slope))) / slope  # slope exp(-slope x) = 1 - exp(-slope)
    assert x[knee(x, y)] == pytest.approx(expected, abs=2e-3)
    assert x[knee(x, 100 - 7 * y, lower_is_better=True)] == pytest.approx(expected, abs=2e-3)
    assert x[knee(1e6 * x + 3, 0.01 * y)] == pytest.approx(expected, abs=2e-3)  # scales do not matter


def test_knee_of_a_corner_is_the_corner_and_of_a_line_or_a_valley_there_is_none():
    assert knee([0, 1, 2, 3, 4], [0, 3, 6, 6.5, 7]) == 2
    assert knee([0, 1, 2, 3], [0, 1, 2, 3]) is None
    assert knee([0, 1, 2], [0, 0.1, 2]) is None
    assert knee([0, 1], [0, 1]) is None
    assert knee([0, 1, 2, 3], [0, 2, 3, 3.0001]) == 1  # 2/3 - 1/3 is that of the next one: the cheaper of equals


def option(cost: float, values: list[float], name: str = "") -> Option:
    return Option(name or f"at {cost}", cost, estimate(values), values)


def test_steps_have_welchs_interval_and_are_read_in_words():
    low, high = [0.60, 0.62, 0.61], [0.63, 0.65, 0.61]
    found = invest([option(12_000, low), option(24_000, high), option(30_000, [0.5, 0.6])], "accuracy")
    assert found.front == [0, 1]
    (step,) = found.steps
    interval = stats.ttest_ind(high, low, equal_var=False).confidence_interval(0.95)
    assert (step.gain.low, step.gain.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert step.added == 12_000
    first, last = reading(found, AXES["parameters"], "accuracy")
    assert first == (
        f"The last 12,000 parameters bought 2.00 points, 95% interval {100 * interval.low:.2f} to "
        f"{100 * interval.high:.2f}: not distinguishable from nothing."
    )
    assert last == "No knee: the front has fewer than 3 points."


def test_gain_of_a_metric_whose_smaller_values_are_better_is_how_much_it_fell():
    found = invest([option(10, [30.0, 31.0]), option(20, [20.0, 21.0])], "perplexity")
    (step,) = found.steps
    assert step.gain.mean == pytest.approx(10)
    assert step.gain.sign == "above"
    assert reading(found, AXES["virtual tokens"], "perplexity")[0].startswith(
        "The last 10 virtual tokens bought 10.00 perplexity, 95% interval "
    )


def test_one_seed_gives_no_interval_and_says_why():
    found = invest([option(1, [0.5]), option(2, [0.6, 0.7])], "accuracy")
    assert found.steps[0].gain.half is None
    assert (
        "no interval, because a point rests on one seed: it may be nothing"
        in reading(found, AXES["parameters"], "accuracy")[0]
    )
    same = invest([option(1, [0.5, 0.5]), option(2, [0.6, 0.6])], "accuracy")
    assert "the seeds do not differ at all" in reading(same, AXES["parameters"], "accuracy")[0]


def test_knee_is_only_apart_if_no_interval_of_a_neighbour_reaches_it():
    clear = [option(1, [0.30, 0.31]), option(2, [0.60, 0.61]), option(10, [0.90, 0.91])]
    found = invest(clear, "accuracy")
    assert (found.knee.option.cost, found.knee.apart) == (2, True)
    blurred = [clear[0], clear[1], option(10, [0.55, 0.85])]
    found = invest(blurred, "accuracy")
    assert (found.knee.option.cost, found.knee.apart) == (2, False)
    assert "not distinguishable" in reading(found, AXES["parameters"], "accuracy")[-1]
    single = [clear[0], clear[1], option(10, [0.9])]
    assert invest(single, "accuracy").knee.apart is None


def test_overlap_of_intervals():
    assert overlap(Estimate(1, 0.5, 3), Estimate(2, 0.5, 3)) is True
    assert overlap(Estimate(1, 0.4, 3), Estimate(2, 0.5, 3)) is False
    assert overlap(Estimate(1, None, 1), Estimate(2, 0.5, 3)) is None
    assert overlap(Estimate(1, 0.0, 2), Estimate(2, 0.5, 3)) is None  # two seeds with the same number


@pytest.fixture
def run(tmp_path, record_run):
    def make(name: str, *, seed: int = 1, metrics: dict | None = None, **fields) -> Run:
        folder = record_run(tmp_path / "runs" / name, steps=1, **fields)
        update_finished_run(folder, seed=seed, **({"metrics": metrics} if metrics is not None else {}))
        return Run(folder)

    return make


def test_runs_of_other_tasks_backbones_data_or_metrics_are_other_pools(run):
    runs = [
        run("a", data_hash="1"),
        run("b", data_hash="1"),
        run("c", data_hash="2"),
        run("d", data_hash="1", model="other"),
        run("e", data_hash="1", task="copa"),
        run("f", data_hash="1", metric_name="macro_f1"),
    ]
    found = pools(runs)
    assert [len(pool.runs) for pool in found] == [2, 1, 1, 1, 1]
    assert [member.name for member in found[0].runs] == ["a", "b"]
    names = pool_names(found)
    assert len(names) == 5
    assert "copa, all-MiniLM-L6-v2, data 1" in names


def test_few_shot_runs_of_all_seeds_are_one_pool(run):
    few = {"epochs": 2, "shots": 8}
    assert len(pools([run("a", data_hash="1", training=few), run("b", data_hash="2", seed=2, training=few)])) == 1


def test_few_shot_runs_of_other_folders_are_not_mixed(run):
    few = {"epochs": 2, "shots": 8}
    places = ["tickets-2023", "tickets-2024", "x" * 300 + "/a", "x" * 300 + "/b"]
    runs = [run(f"r{n}", data_hash=str(n), seed=n, training=few, data_dir=place) for n, place in enumerate(places)]
    assert [len(pool.runs) for pool in pools(runs)] == [1] * 4
    assert len(folded(runs)) == 4


def test_run_that_does_not_count_its_parameters_is_left_out_and_not_free(run):
    runs = [run("counted"), run("not", num_parameters={})]
    options, left_out = options_of(runs, AXES["parameters"])
    assert [each.name for each in options] == ["counted"]
    assert [(each.name, reason) for each, reason in left_out] == [("not", "it does not count its parameters")]


def test_options_fold_seeds_and_say_what_is_left_out(run):
    half = (8,) * 6
    runs = [
        run("full"),
        run("one", lengths=half, metrics={"validation": {"accuracy": 0.4}}),
        run("two", lengths=half, seed=2, metrics={"validation": {"accuracy": 0.6}, "test": {"accuracy": 0.5}}),
        run("unmeasured", metrics={}),
        run("diverged", metrics={"validation": {"accuracy": float("nan")}}),
    ]
    update_finished_run(runs[0].folder, seconds=30.0)
    options, left_out = options_of(runs, AXES["parameters"])
    assert [each.name for each in options] == ["one (2 seeds)", "full"]
    assert [each.cost for each in options] == [48 * (768 + 384) + 100, 96 * (768 + 384) + 100]
    assert options[0].metric.mean == pytest.approx(0.5)
    assert [(each.name, reason) for each, reason in left_out] == [
        ("unmeasured", "its validation metric was not measured"),
        ("diverged", "its validation metric is not finite: it diverged, and is in no mean of its seeds"),
    ]
    assert [each.cost for each in options_of(runs, AXES["parameters"], with_head=False)[0]] == [48 * 1152, 96 * 1152]
    assert [each.cost for each in options_of(runs, AXES["virtual tokens"])[0]] == [48, 96]
    options, left_out = options_of(runs, AXES["parameters"], split="test")
    assert [each.name for each in options] == ["two"]
    assert len(left_out) == 4


def test_cache_bytes_are_those_of_the_shapes_and_older_runs_are_left_out(run):
    old = run("old")
    assert options_of([old], AXES["KV cache"]) == ([], [(old, AXES["KV cache"].unknown)])
    told = run("told", lengths=(4,) * 6, backbone_dtype="float16")
    ((option,), left_out) = options_of([told], AXES["KV cache"])
    assert option.cost == 24 * 768 * 2  # virtual tokens x numbers in key and value x bytes of each
    assert not left_out


def test_figure_shows_front_others_and_knee():
    options = [option(1, [0.3, 0.32]), option(2, [0.6]), option(3, [0.5]), option(9, [0.7, 0.72])]
    panel = investment_panel(invest(options, "accuracy"), "trained parameters", "accuracy", "validation")
    assert [each.cost for each in panel.front] == [1, 2, 9]
    assert [each.cost for each in panel.others] == [3]
    figure = investment_figure(panel)
    assert [trace.name for trace in figure.data] == ["not on the front", "Pareto front", "knee"]
    assert list(figure.data[1].x) == [1, 2, 9]
    assert figure.data[1].error_y.array[1] == 0
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == (
        "trained parameters",
        "validation accuracy",
    )
    assert "no run" in investment_figure(panel._replace(front=[])).layout.annotations[0].text
