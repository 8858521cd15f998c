"""What a sweep's spec may say, and that what is wrong is one line that names it."""

from __future__ import annotations

import tomllib

import pytest
from typer.main import get_command

from analysis.budgets.methods import METHODS as BUDGET_METHODS
from apt_core.__main__ import app
from apt_core.errors import AptError
from apt_core.sweep_options import OPTIONS
from apt_core.sweep_spec import BLIND, MEASURED, METHODS, parse_spec, read_spec, spec_text

GRID = 'tasks = ["copa", "pydoc-topic"]\nseeds = 2\nbudgets = [1.0, 0.5]\n'


def parse(text: str):
    return parse_spec(text.encode(), "spec.toml")


def test_spec_says_a_grid_and_what_holds_for_all():
    spec = parse(
        GRID
        + """
        methods = ["share", "uniform"]
        test = true
        [train]
        num-virtual-tokens = 8
        layer-scale = false
        attention = "encoder, cross"
        max_length = 64
        [train.copa]
        data-dir = "data"
        epochs = 3
        lr = 0.02
        """
    )
    assert (spec.tasks, spec.seeds, spec.budgets, spec.test) == (("copa", "pydoc-topic"), (1, 2), (1.0, 0.5), True)
    assert spec.options("copa").words() == [
        *("--num-virtual-tokens", "8", "--no-layer-scale", "--attention", "encoder,cross", "--max-length", "64"),
        *("--data-dir", "data", "--epochs", "3"),
    ]
    assert spec.options("pydoc-topic").words()[-2:] == ["--max-length", "64"]
    assert spec.rates("copa") == (0.02,)
    assert spec.rates("pydoc-topic") == (0.01,)  # the task's own
    assert spec.options("pydoc-topic").training.epochs == 3  # likewise


def test_whole_numbers_are_totals_and_others_fractions():
    spec = parse('tasks = ["copa"]\nseeds = [7]\nbudgets = [1, 1.0]\n[train.copa]\ndata-dir = "d"')
    assert [type(budget) for budget in spec.budgets] == [int, float]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GRID + "sedes = 3", "spec.toml: sedes: got 3; accepted: only the keys tasks, seeds, budgets"),
        (GRID + "num-virtual-tokens = 3", "Options of train go below"),
        (GRID + "[train]\nepoch = 3", "train.epoch: got 3; accepted: an option of train"),
        (GRID + "[train.copa]\nepoch = 3", "train.copa.epoch: got 3"),
        (GRID + "[train]\nseed = 3", "train.seed: got 3; .* The key seeds says it"),
        (GRID + '[train]\nprefix-lengths = "4,4"', "The keys budgets and methods say it"),
        (GRID + "[train]\nepochs = 0", "train: epochs: got 0"),
        (GRID + '[train]\nmodel = ""', "train.model: got ''"),
        (GRID + "[train]\nmodel = 3", "train.model: got 3"),
        (GRID + "[train]\nmeasure = 1", "train.measure: got 1; accepted: true or false"),
        (GRID + "[train]\nmemory-check = 'no'", "train.memory-check: got 'no'; accepted: true or false"),
        (GRID + "[train.rte]\nepochs = 1", "train.rte: got .*; accepted: a table for one of its tasks: copa"),
        (GRID + 'methods = ["greedy"]\n[train]\nmeasure = false', "train.measure: got False; accepted: true, because"),
        (GRID + "learning_rates = [0.1]\n[train]\nlr = 0.1", "train.lr: got 0.1; accepted: nothing beside"),
        (GRID.replace("copa", "chess"), "tasks: got .*'chess'.*; accepted: a list|tasks: .*accepted: a list"),
        (GRID.replace("seeds = 2", "seeds = 0"), "seeds: got 0: accepted: a number of seeds from 1 to 100"),
        (GRID.replace("seeds = 2", "seeds = [1, 1]"), "seeds: .*different whole numbers"),
        (GRID.replace("seeds = 2", "seeds = true"), "seeds: got True"),
        (GRID.replace("seeds = 2", "seeds = [-1]"), "seeds: got"),
        (GRID.replace("0.5", "1.5"), "budgets: got .*1.5.*fractions of the full run over 0 up to 1.0"),
        (GRID.replace("0.5", "0"), "budgets: got"),
        (GRID.replace("0.5", '"half"'), "budgets: got"),
        (GRID.replace("0.5", "nan"), "budgets: got"),
        (GRID + "methods = []", "methods: got"),
        (GRID + 'methods = ["magic"]', "methods: .*share, threshold, topk, coverage, greedy, pareto, uniform, random"),
        (GRID + "learning_rates = [0]", "learning_rates: got .0.: accepted: a list of different numbers over 0"),
        (GRID + "learning_rates = [2.0]", "learning_rates: got"),
        ('tasks = ["copa"]', "seeds: Field required; budgets: Field required"),
        ("tasks = [", "spec.toml: not readable as TOML"),
        ("x = " + "[" * 5000, "not readable as TOML"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_it(text, message):
    with pytest.raises(AptError, match=message) as found:
        parse(text)
    assert "\n" not in str(found.value)


def test_file_is_read_with_a_bound_and_not_through_a_link(tmp_path):
    with pytest.raises(AptError, match="no such file; accepted: a TOML file"):
        read_spec(tmp_path / "missing.toml")
    (tmp_path / "large.toml").write_text("#" * 70_000)
    with pytest.raises(AptError, match="larger than"):
        read_spec(tmp_path / "large.toml")
    (tmp_path / "good.toml").write_text(GRID)
    (tmp_path / "link.toml").symlink_to(tmp_path / "good.toml")
    assert read_spec(tmp_path / "good.toml").tasks == ("copa", "pydoc-topic")
    with pytest.raises(AptError, match="link"):
        read_spec(tmp_path / "link.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(AptError, match="not readable as TOML"):
        read_spec(tmp_path / "binary.toml")


def test_options_are_those_of_the_train_command():
    """An option that ``train`` gains is one that a sweep can set."""
    command = get_command(app).commands["train"]
    flags = {flag.removeprefix("--") for option in command.params for flag in option.opts if flag.startswith("--")}
    decided = {"task", "seed", "out", "prefix-lengths", "init-adapter", "resume", "json", "debug", "help"}
    assert flags - decided == set(OPTIONS)


def test_methods_are_those_of_budgets_and_two_that_look_at_no_run():
    assert (*BUDGET_METHODS, *BLIND) == METHODS
    assert {name for name, method in BUDGET_METHODS.items() if method.weighs != "importance"} == set(MEASURED)


def test_spec_as_text_says_the_same():
    fields = {
        "tasks": ["copa"],
        "seeds": [1, 2],
        "budgets": [1.0, 0.25, 48],
        "test": True,
        "train": {"model": 'a "b"\n\\c\x7f\t\U0001f600', "epochs": 2, "copa": {"data-dir": "d", "layer-scale": False}},
    }
    assert tomllib.loads(spec_text(fields)) == fields
    assert parse_spec(spec_text({**fields, "train": {}}).encode(), "spec").budgets == (1.0, 0.25, 48)
