"""Which trainings the experiment needs, with results that are made up."""

from __future__ import annotations

import numpy as np
import pytest

from apt_core.config import AptConfig
from apt_core.errors import AptError
from apt_core.model import get_apt_model
from benchmarks.paper_methods import METHODS, plus_lengths, rates_of, star_lengths
from benchmarks.paper_plan import Request, Training, check_request, chosen_rates, counts, open_trainings
from benchmarks.paper_results import Grid, Results
from benchmarks.small_backbones import build
from tests.benchmarks.conftest import make_info, make_measured, make_setting

RATES = (1e-3, 1e-2, 1e-1)


def request_of(**fields: object) -> Request:
    plain = {"settings": (make_setting(),), "methods": tuple(METHODS), "seeds": 3, "grid_seeds": 1, "rates": RATES}
    return Request(**{**plain, **fields})


def score(training: Training) -> float:
    """The middle learning rate is best."""
    best = rates_of(training.method, RATES)[1]
    return 0.6 if training.learning_rate == best else 0.5


def finish(request: Request, results: Results, at_most: int = 1000) -> list[Training]:
    """Does trainings as a driver would, one at a time; which were done."""
    done: list[Training] = []
    while len(done) < at_most and (ready := open_trainings(request, results)):
        training = ready[0]
        before = results.table(training.setting)
        if before is None or before.find(training.method, training.learning_rate, training.seed) is None:
            done.append(training)
        results.add(training.setting, make_measured(training, score(training), 0.5), make_info())
        for setting, method, rate in list(chosen_rates(request, results)):
            results.choose(setting, method, rate, Grid(request.rates, request.grid_seeds))
    return done


def test_all_trainings_of_an_experiment_are_as_many_as_were_counted_and_each_is_done_once(tmp_path):
    request, results = request_of(), Results(tmp_path / "paper.json")
    counted = counts(request, results)
    done = finish(request, results)
    assert len(done) == len(METHODS) * (3 + 2) == sum(count.trainings for count in counted)
    assert sum(count.tests for count in counted) == len(METHODS) * 3
    assert len({(each.method, each.learning_rate, each.seed) for each in done}) == len(done)
    assert [(count.trainings, count.tests) for count in counts(request, results)] == [(0, 0)] * len(METHODS)


def test_test_is_measured_with_the_chosen_learning_rate_only(tmp_path):
    request, results = request_of(), Results(tmp_path / "paper.json")
    finish(request, results)
    table = results.tables[0]
    assert table.chosen == {method: rates_of(method, RATES)[1] for method in METHODS}
    assert table.chosen["fine-tuning"] == pytest.approx(1e-4)
    for each in table.trainings:
        assert each.tested == (each.learning_rate == table.chosen[each.method])
    assert all(list(table.final(method)) == [1, 2, 3] for method in METHODS)


@pytest.mark.parametrize("interrupted_after", [0, 1, 7, 20])
def test_interrupted_experiment_goes_on_from_its_file_with_what_is_left(tmp_path, interrupted_after):
    request, path = request_of(), tmp_path / "paper.json"
    first = finish(request, Results(path), at_most=interrupted_after)
    rest = finish(request, Results(path))
    assert len(first) + len(rest) == len(METHODS) * 5
    assert not {(each.method, each.learning_rate, each.seed) for each in first} & {
        (each.method, each.learning_rate, each.seed) for each in rest
    }


def test_more_seeds_train_only_the_new_ones(tmp_path):
    results = Results(tmp_path / "paper.json")
    finish(request_of(), results)
    assert {(each.seed, each.test) for each in finish(request_of(seeds=4), results)} == {(4, True)}


def test_single_learning_rate_needs_no_grid(tmp_path):
    done = finish(request_of(rates=(1e-2,), methods=("pt2",)), Results(tmp_path / "paper.json"))
    assert [(each.seed, each.test) for each in done] == [(1, True), (2, True), (3, True)]


def test_equal_scores_choose_the_smaller_rate_and_diverged_trainings_none(tmp_path):
    setting, results = make_setting(), Results(tmp_path / "paper.json")
    request = request_of(methods=("pt2",))
    for rate, validation in zip(RATES, (None, 0.5, 0.5), strict=True):
        results.add(setting, make_measured(Training(setting, "pt2", rate, 1, None, False), validation), make_info())
    assert [rate for _, _, rate in chosen_rates(request, results)] == [1e-2]


def test_metric_that_is_better_when_small_chooses_the_smallest(tmp_path):
    setting, results = make_setting(), Results(tmp_path / "paper.json")
    for rate, validation in zip(RATES, (30.0, 20.0, 25.0), strict=True):
        measured = make_measured(Training(setting, "pt2", rate, 1, None, False), validation)
        results.add(setting, measured, make_info("perplexity"))
    assert [rate for _, _, rate in chosen_rates(request_of(methods=("pt2",)), results)] == [1e-2]


def test_star_has_the_lengths_of_the_gates_of_its_own_seed_and_plus_as_many_parameters_as_apt(tmp_path):
    results = Results(tmp_path / "paper.json")
    finish(request_of(), results)
    table = results.tables[0]
    apt = table.final("apt")
    for seed, run in table.final("pt2-star").items():
        assert tuple(run.prefix_lengths) == star_lengths(apt[seed].gate_mass, 12)
    assert len({tuple(run.prefix_lengths) for run in table.final("pt2-star").values()}) > 1
    for run in table.final("pt2-plus").values():
        assert run.prefix_lengths == [6, 6, 6]  # 64 + 32 for a token of APT, 64 for one of PT-2


def test_star_waits_until_the_learning_rate_of_apt_is_chosen(tmp_path):
    setting, results = make_setting(), Results(tmp_path / "paper.json")
    request = request_of(methods=("apt", "pt2-star", "pt2-plus"))
    assert {each.method for each in open_trainings(request, results)} == {"apt"}
    for rate in RATES:
        training = Training(setting, "apt", rate, 1, None, False)
        results.add(setting, make_measured(training, score(training)), make_info())
    ready = open_trainings(request, results)
    assert {each.method for each in ready} == {"apt", "pt2-star", "pt2-plus"}
    assert {(each.learning_rate, each.seed) for each in ready if each.method == "apt"} == {(1e-2, s) for s in (1, 2, 3)}


def test_gates_that_diverged_give_equal_lengths(tmp_path):
    setting, results = make_setting(), Results(tmp_path / "paper.json")
    request = request_of(methods=("apt", "pt2-star"), rates=(1e-2,), seeds=1)
    training = Training(setting, "apt", 1e-2, 1, None, True)
    results.add(setting, make_measured(training, None, gate_mass=None), make_info())
    [star] = open_trainings(request, results)
    assert star.lengths == (4, 4, 4)


def test_star_lengths_are_as_many_tokens_as_the_gates_add_up_to_at_most_all():
    assert star_lengths([2.0, 4.0, 6.2], 96) == (2, 4, 6)
    assert star_lengths([20.0, 40.0, 60.0], 48) == (8, 16, 24)
    assert sum(star_lengths([0.0, 0.1, 0.0], 48)) == 1


@pytest.mark.parametrize("tokens", [1, 5, 16])
def test_plus_lengths_have_the_parameters_of_apt_closest_of_all(tokens):
    apt = get_apt_model(build("BERT"), AptConfig(num_virtual_tokens=tokens))
    wanted = sum(count for part, count in apt.count_parameters().items() if part not in ("head", "frozen"))
    sizes = [shape.num_heads * (shape.key_size + shape.value_size) for shape in apt._apt_shapes]
    lengths = plus_lengths(apt.count_parameters(), sizes)
    pt2 = get_apt_model(build("BERT"), AptConfig(prefix_lengths=lengths, token_gate="none", layer_scale=False))
    difference = abs(pt2.count_parameters()["prefix"] - wanted)
    assert difference <= min(sizes) / 2
    assert max(lengths) - min(lengths) <= 1


def test_run_folders_of_all_trainings_and_settings_have_different_names(tmp_path):
    done = finish(request_of(), Results(tmp_path / "paper.json"))
    assert len({each.name for each in done}) == len(done)
    settings = [
        make_setting(**fields)
        for fields in ({}, {"shots": 16}, {"epochs": 3}, {"max_steps": 5}, {"task": "rte:a/b"}, {"model": "a/b"})
    ]
    assert len({setting.slug for setting in settings}) == len(settings)
    assert all("/" not in setting.slug and ":" not in setting.slug for setting in settings)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"methods": ("lora",)}, "methods: got 'lora'; accepted: fine-tuning, pt2"),
        ({"methods": ("pt2-star",)}, "methods: got 'pt2-star'; accepted: apt with it"),
        ({"grid_seeds": 4}, "grid-seeds: got 4; accepted: 1 to 3"),
        ({"rates": (0.1, 0.1)}, "learning-rates: .* different numbers"),
        ({"rates": (0.1, 2.0)}, "learning-rates: .* up to 1"),
        ({"rates": (np.nan,)}, "learning-rates"),
    ],
)
def test_request_that_cannot_be_done_is_refused(fields, message):
    with pytest.raises(AptError, match=message):
        check_request(request_of(**fields))
