"""From a spec to its trainings: each once, under a name that follows from its settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.main import get_command

from apt_core.__main__ import app
from apt_core.errors import AptError
from apt_core.run_format import read_run_info
from apt_core.shares import random_lengths
from apt_core.sweep_plan import (
    MAX_TRAININGS,
    arguments_of,
    check_extends,
    difference_from,
    expand,
    most_trainings,
)
from apt_core.sweep_spec import parse_spec
from tests.apt_core.sweep_world import SPEC, begun, record

GRID = 'tasks = ["copa", "pydoc-topic"]\nseeds = 3\nbudgets = [1.0, 0.5, 0.25]\nlearning_rates = [0.01]\n'
LAYERS = {"copa": 6, "pydoc-topic": 6}


def parse(text: str):
    return parse_spec(text.encode(), "spec")


def plan_of(text: str, layers: int = 6):
    spec = parse(text)
    return expand(spec, dict.fromkeys(spec.tasks, layers))


def test_grid_has_every_training_once_and_parents_first():
    plan = plan_of(GRID)
    assert len(plan) == most_trainings(parse(GRID)) == 2 * 3 * 3
    assert [each.name for each in plan[:3]] == [
        "copa-lr0.01-s1-full", "copa-lr0.01-s1-b48-share", "copa-lr0.01-s1-b24-share",
    ]  # fmt: skip
    names = [each.name for each in plan]
    assert len(set(names)) == len(names)
    for training in plan:
        if training.method == "full":
            assert (training.total, training.prefix_lengths, training.parent) == (96, (16,) * 6, None)
        else:
            assert training.parent in names[: names.index(training.name)]
            assert training.parent == f"{training.task}-lr0.01-s{training.seed}-full"
            assert training.prefix_lengths is None
    assert [each.seed for each in plan] == sorted(each.seed for each in plan)  # all cells fill at once


def test_same_settings_have_the_same_names_whatever_else_is_in_the_grid():
    few = {each.name: each for each in plan_of(GRID.replace("[1.0, 0.5, 0.25]", "[48]"))}
    many = {each.name: each for each in plan_of(GRID + 'methods = ["uniform", "share"]')}
    assert few.keys() < many.keys()
    assert all(many[name] == training for name, training in few.items())


def test_totals_that_coincide_are_one():
    plan = plan_of('tasks = ["copa"]\nseeds = 1\nbudgets = [0.5, 48, 96, 1.0]\nmethods = ["uniform"]')
    assert [each.name for each in plan] == ["copa-lr0.01-s1-full", "copa-lr0.01-s1-b48-uniform"]
    tiny = plan_of('tasks = ["copa"]\nseeds = 1\nbudgets = [0.001]\nmethods = ["uniform"]')
    assert [each.total for each in tiny] == [1]


def test_lengths_that_look_at_no_run_need_none():
    plan = plan_of('tasks = ["copa"]\nseeds = 2\nbudgets = [46]\nmethods = ["uniform", "random"]')
    assert {each.method for each in plan} == {"uniform", "random"}
    assert {each.parent for each in plan} == {None}
    assert all(sum(each.prefix_lengths) == 46 for each in plan)
    assert plan[0].prefix_lengths == (8, 8, 8, 8, 7, 7)
    assert plan[1].prefix_lengths == random_lengths(46, 6, [1, 46]) != plan[3].prefix_lengths


def test_methods_that_read_gates_bring_the_full_runs_with_them():
    plan = plan_of('tasks = ["copa"]\nseeds = 1\nbudgets = [0.5]\nlearning_rates = [0.1, 1e-5]')
    assert [each.name for each in plan] == [
        "copa-lr0.1-s1-full", "copa-lr0.1-s1-b48-share", "copa-lr1e-05-s1-full", "copa-lr1e-05-s1-b48-share",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GRID.replace("0.25", "97"), "budgets: got 97; accepted: 1 to 96 virtual tokens for copa, .* 16 in each of 6"),
        (GRID + '[train]\ntoken-gate = "none"\nlayer-scale = false', "methods: .*copa is trained without gates"),
        (GRID + "[train]\nshift-positions = true", "train.shift-positions: got True"),
        (GRID + 'methods = ["uniform"]\n[train]\nshift-positions = true\nnum-virtual-tokens = 7', "shift-positions"),
        (
            'tasks = ["copa", "rte", "wic", "wsc"]\nseeds = 100\nbudgets = [1, 2, 3, 4, 5]\nmethods = '
            '["share", "topk", "coverage", "uniform", "random", "threshold"]',
            f"it has 12,400 trainings; accepted: up to {MAX_TRAININGS:,}",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(text, message):
    with pytest.raises(AptError, match=message):
        plan_of(text)


def test_equal_lengths_may_count_as_positions():
    plan = plan_of(GRID + 'methods = ["uniform"]\n[train]\nshift-positions = true')
    assert {each.prefix_lengths for each in plan} == {(16,) * 6, (8,) * 6, (4,) * 6}


def test_commands_are_accepted_as_they_would_be_typed():
    text = GRID + (
        'methods = ["share", "uniform", "random"]\n[train]\nnum-virtual-tokens = 8\nbf16 = true\nmemory-check = false\n'
        'snapshot-steps = [5, 20]\n[train.copa]\ndata-dir = "my data"'
    )
    spec, commands = parse(text), get_command(app).commands
    for training in expand(spec, LAYERS):
        words = arguments_of(training, spec, Path("out"), Path("out/.budgets/x.json"))
        given = commands[words[0]].make_context(words[0], words[1:], parent=None, resilient_parsing=False).params
        assert given["out"] == Path("out") / training.name
        assert (given["measure"], given["memory_check"]) == (False, False)
        if training.method == "share":
            assert (given["run"], given["budget"]) == (Path("out") / training.parent, Path("out/.budgets/x.json"))
            continue
        assert (given["task"], given["seed"], given["learning_rate"]) == (training.task, training.seed, 0.01)
        assert (given["bf16"], given["snapshot_steps"]) == (True, "5,20")
        assert given["data_dir"] == ("my data" if training.task == "copa" else None)
        full = training.method == "full"
        assert given["num_virtual_tokens"] == (8 if full else None)
        assert given["prefix_lengths"] == (None if full else ",".join(map(str, training.prefix_lengths)))


def test_only_what_a_method_rests_on_is_measured():
    spec = parse(GRID + 'methods = ["greedy"]')
    full, pruned, *_ = expand(spec, LAYERS)
    assert "--no-measure" not in arguments_of(full, spec, Path("out"))
    assert "--no-measure" in arguments_of(pruned, spec, Path("out"), Path("b"))
    spec = parse(GRID + "[train]\nmeasure = true")
    assert not any("--no-measure" in arguments_of(each, spec, Path("out"), Path("b")) for each in expand(spec, LAYERS))


def test_spec_may_add_cells():
    old = parse(GRID)
    check_extends(old, old)
    check_extends(old, parse(GRID.replace("seeds = 3", "seeds = [4, 3, 2, 1]") + 'methods = ["uniform", "share"]'))
    check_extends(old, parse(GRID.replace("0.5", "0.5, 12") + "test = true"))
    check_extends(old, parse(GRID.replace('"copa"', '"copa", "rte"') + "[train.rte]\nepochs = 3"))
    check_extends(old, parse(GRID + '[train]\ndevice = "cpu"\nmemory-check = false'))
    check_extends(old, parse(GRID + "[train]\nbatch-size = 8\ngradient-accumulation-steps = 2"))


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (GRID.replace("seeds = 3", "seeds = 2"), r"seeds: got \[1, 2\]; accepted: those .* already, \[1, 2, 3\], and"),
        (GRID.replace('"copa", ', ""), "tasks: got"),
        (GRID.replace("0.25", "24"), "budgets: got"),
        (GRID + 'methods = ["uniform"]', "methods: got"),
        (GRID.replace("0.01", "0.02"), r"learning_rates: got \[0.02\]; accepted: .* already for copa, \[0.01\]"),
        (GRID + "[train]\nepochs = 3", "train.epochs of copa: got 3; accepted: nothing, as before"),
        (GRID + "[train]\nbatch-size = 8", "train.batch-size of copa: got 8; accepted: nothing, as before"),
        (GRID + "[train.pydoc-topic]\nepochs = 3", "train.epochs of pydoc-topic: got 3"),
    ],
)
def test_spec_that_is_another_is_refused_and_the_key_named(new, message):
    with pytest.raises(AptError, match=message):
        check_extends(parse(GRID), parse(new))


def test_spec_that_takes_something_back_is_refused():
    with pytest.raises(AptError, match="test: got False"):
        check_extends(parse(GRID + "test = true"), parse(GRID))
    with pytest.raises(AptError, match=r"train.epochs of copa: got None; accepted: 3, as this sweep has it already"):
        check_extends(parse(GRID + "[train]\nepochs = 3"), parse(GRID))


def test_run_of_other_settings_is_told_from_the_training(tmp_path, record_run):
    recorded = begun(tmp_path / "sweep")
    full, pruned = recorded.plan[:2]
    info = read_run_info(record(record_run, recorded, full))
    options = recorded.spec.options(full.task)
    assert difference_from(full, options, info) == ""
    assert difference_from(pruned, options, info) == "virtual tokens 12 instead of 6"
    assert "seed 1 instead of 2" in difference_from(full._replace(seed=2), options, info)
    halved = {"batch_size": 8, "gradient_accumulation_steps": 2, "device": "cuda"}  # as a retry may have it
    assert difference_from(full, options, info.model_copy(update={"training": info.training | halved})) == ""
    other = info.model_copy(update={"training": info.training | {"batch_size": 8}})
    assert difference_from(full, options, other) == "examples per step 8 instead of 16"
    other = parse(SPEC.replace("epochs = 2", "epochs = 3")).options(full.task)
    assert difference_from(full, other, info) == "epochs 2 instead of 3"
    other = parse(SPEC + 'token-gate = "static"\nmodel = "gpt2"').options(full.task)
    found = difference_from(full, other, info)
    assert "token_gate 'hidden' instead of 'static'" in found
    assert "instead of 'gpt2'" in found
