"""From a run to its measures.json: points equal evaluations of pruned models, and what only known layers can do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from apt_core import AptConfig, AptError, get_apt_model
from apt_core import measure as measure_module
from apt_core.__main__ import app
from apt_core.backbones import load_tokenizer
from apt_core.command_line import run_typer
from apt_core.commands.measure import change
from apt_core.config import TrainSettings
from apt_core.evaluate import evaluate
from apt_core.evaluate_run import load_run, load_run_with_data
from apt_core.measure import measure, measure_run
from apt_core.measure_format import MEASURES_FILE, Point, read_measures
from apt_core.measure_plan import make_plan
from apt_core.run_format import read_run_info, update_finished_run
from apt_core.tasks.base import TaskData
from apt_core.tasks.source import DataSource
from apt_core.train import TrainJob, train
from tests.apt_core.test_train_language_models import backbones, files  # noqa: F401

TASKS = ["copa", "wnut17", "causal-lm", "seq2seq-lm"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, backbone_folder, data_folder, backbones, files) -> dict[str, Path]:  # noqa: F811
    """A trained run of each family of tasks; gates per sequence, static and per position."""
    root = tmp_path_factory.mktemp("runs")
    columns = {"prompt_column": "Frage (en)", "target_column": "l'écho"}
    training = TrainSettings(epochs=1, batch_size=8, learning_rate=0.05, device="cpu", max_length=32)
    for task in TASKS:
        own = task in ("copa", "wnut17")
        model = backbone_folder if own else backbones["causal" if task == "causal-lm" else "seq2seq"]
        apt = {"prefix_lengths": (3, 0, 2)} if task == "copa" else {"num_virtual_tokens": 2}
        job = TrainJob(
            task=task,
            out=root / task,
            model=str(model),
            apt=AptConfig(**apt, token_gate="static" if task == "wnut17" else "hidden", gate_init_std=0.5),
            training=training,
            data=DataSource(data_dir=str(data_folder)) if own else DataSource(**files, **columns),
        )
        train(job, say=lambda line: None)
    return {task: root / task for task in TASKS}


@pytest.fixture(scope="module")
def measured(runs) -> dict:
    """Everything, of every run."""
    return {task: measure_run(folder, cost=0, progress=False) for task, folder in runs.items()}


def pruned(folder: Path, keep: list[np.ndarray]):
    """The run's model without some tokens for good."""
    model = load_run(folder)
    gates = np.zeros((len(keep), max(map(len, keep))))
    for layer, row in enumerate(keep):
        gates[layer, : len(row)] = row
    model.prune([int(row.sum()) for row in keep], gates)
    return model


def evaluated(folder: Path, keep: list[np.ndarray], ids: list[str]) -> Point:
    """What an evaluation of the pruned model gives for some of the validation examples."""
    run = load_run_with_data(folder, "validation", device="cpu")
    rows = [example for example in run.task.splits["validation"] if str(example["id"]) in ids]
    task = replace(run.task, splits={"validation": rows})
    model = pruned(folder, keep)
    found = evaluate(model, task, "validation", run.tokenizer, batch_size=3, max_length=run.max_length, progress=False)
    return Point(metric=found.metrics[run.info.metric_name], losses=[row["loss"] for row in found.predictions])


def assert_same(point: Point, other: Point) -> None:
    assert point.metric == pytest.approx(other.metric, rel=1e-4)
    assert point.losses == pytest.approx(other.losses, abs=2e-5)


@pytest.mark.parametrize("task", TASKS)
def test_points_equal_evaluations_of_pruned_models(runs, measured, task):
    measures, folder = measured[task], runs[task]
    lengths, ids = measures.prefix_lengths, measures.example_ids
    assert len(ids) == measures.examples_available == read_run_info(folder).split_sizes["validation"]
    everything = [np.ones(length, bool) for length in lengths]
    assert measures.full.metric == pytest.approx(read_run_info(folder).metrics["validation"][measures.metric_name])
    assert_same(measures.full, evaluated(folder, everything, ids))
    assert_same(measures.empty, evaluated(folder, [~row for row in everything], ids))
    last = len(lengths) - 1
    assert_same(measures.layers[last], evaluated(folder, [*everything[:-1], ~everything[-1]], ids))
    keep = [row.copy() for row in everything]
    keep[last][1] = False
    assert_same(measures.tokens[last][1], evaluated(folder, keep, ids))
    curve = next(curve for curve in measures.curves if curve.order == "effect")
    order = np.argsort(np.concatenate(measures.importance["effect"]), kind="stable")
    flat = np.zeros(sum(lengths), bool)
    flat[order[-curve.kept[2] :]] = True
    assert_same(curve.points[2], evaluated(folder, np.split(flat, np.cumsum(lengths)[:-1]), ids))


@pytest.mark.parametrize("task", TASKS)
def test_the_file_holds_what_was_measured(runs, measured, task):
    measures = measured[task]
    info = read_run_info(runs[task])
    assert read_measures(runs[task], info.prefix_lengths) == measures
    assert (measures.data_hash, measures.metric_name) == (info.data_hash, info.metric_name)
    assert measures.greater_is_better == (task in ("copa", "wnut17"))
    assert [curve.points[0] for curve in measures.curves] == [measures.full] * len(measures.curves)
    assert [curve.points[-1] for curve in measures.curves] == [measures.empty] * len(measures.curves)
    assert [point is None for point in measures.layers] == [length == 0 for length in info.prefix_lengths]
    assert measures.notes == []
    assert not list(runs[task].glob("*.tmp"))


def test_a_part_of_the_examples_is_drawn_by_the_seed(runs):
    folder = runs["copa"]
    run = load_run_with_data(folder, "train", device="cpu")

    def drawn(cost: float, seed: int):
        plan = make_plan(run.info.prefix_lengths, 40, 40, cost)
        options = {"seed": seed, "batch_size": 8, "max_length": run.max_length, "progress": False}
        return measure(run.model, run.task, "train", run.tokenizer, plan, **options)

    few, same, other = drawn(7, 0), drawn(7, 0), drawn(7, 1)
    assert 32 <= len(few.example_ids) < 40
    assert few.example_ids == same.example_ids != other.example_ids
    assert few.curves == same.curves
    assert few.importance == same.importance
    assert set(few.example_ids) < set(drawn(30, 0).example_ids)
    assert any(f"{len(few.example_ids)} of 40 examples were drawn" in note for note in few.notes)
    assert 0 < few.cost <= 7
    examples = {str(example["id"]): example for example in run.task.splits["train"]}
    task = replace(run.task, splits={"validation": [examples[name] for name in few.example_ids]})
    expected = evaluate(run.model, task, "validation", run.tokenizer, batch_size=4, max_length=32, progress=False)
    assert few.full.metric == pytest.approx(expected.metrics["accuracy"])
    assert few.full.losses == pytest.approx([row["loss"] for row in expected.predictions], abs=2e-5)


@pytest.fixture
def one_layer(make_backbone, backbone_folder):
    """A model in which only the middle layer's prefix can matter, a task that it solves, and its tokenizer.

    The labels are what the model itself says, so that removing what matters is bound to raise the loss.
    """
    model = make_backbone()
    with torch.no_grad():
        for layer in (0, 2):
            model.bert.encoder.layer[layer].attention.output.dense.weight.zero_()
        model.bert.encoder.layer[1].attention.output.dense.weight.mul_(20)
        model.classifier.weight.mul_(50)
    model = get_apt_model(model, AptConfig(num_virtual_tokens=4, gate_init_std=0.3)).eval()
    with torch.no_grad():
        for prefix in model.prefixes:
            prefix.value.mul_(5)
    tokenizer = load_tokenizer(str(backbone_folder))
    draw = np.random.default_rng(0)
    words = ["rain", "tree", "river", "stone", "cloud", "light", "house", "door", "window", "garden", "road", "field"]
    rows = [{"id": str(i), "text": " ".join(draw.choice(words, 5)), "label": 0} for i in range(40)]
    task = TaskData("mine", "sequence-classification", ("a", "b", "c"), {"train": rows, "validation": rows})
    found = evaluate(model, task, "validation", tokenizer, batch_size=8, max_length=32, progress=False)
    for row, guess in zip(rows, found.predictions, strict=True):
        row["label"] = guess["predicted"]
    return model, task, tokenizer


def test_only_the_layer_that_can_matter_does(one_layer):
    model, task, tokenizer = one_layer
    plan = make_plan([4, 4, 4], 40, 40, 0)
    options = {"seed": 0, "batch_size": 8, "max_length": 32, "progress": False}
    measures = measure(model, task, "validation", tokenizer, plan, **options)
    full, losses = measures.full.losses, [np.mean(point.losses) for point in measures.layers]
    assert measures.full.metric == 1
    assert measures.layers[0].losses == pytest.approx(full, abs=1e-5)
    assert measures.layers[2].losses == pytest.approx(full, abs=1e-5)
    assert losses[1] > np.mean(full) + 0.05
    assert measures.layers[1].losses == pytest.approx(measures.empty.losses, abs=1e-5)
    singles = np.array([[np.mean(np.abs(np.subtract(p.losses, full))) for p in layer] for layer in measures.tokens])
    assert singles[[0, 2]].max() < 1e-5 < 1e-3 < singles[1].min()
    effect = np.array(measures.importance["effect"])
    assert effect[[0, 2]].max() < 1e-6 < effect[1].min()
    curves = {curve.order: curve for curve in measures.curves}
    kept = curves["effect"].kept.index(6)  # the first 6 of the 8 tokens that cannot matter are gone, in this order
    assert curves["effect"].points[kept].losses == pytest.approx(full, abs=1e-5)
    half = curves["effect reversed"].kept.index(8)  # and all 4 that can, in that order
    assert curves["effect reversed"].points[half].losses == pytest.approx(measures.empty.losses, abs=1e-5)
    assert set(curves) >= {"gate", "norm", "attention", "random 1", "random 2"}


def test_a_run_without_gates_is_measured_and_says_so(backbone, backbone_folder):
    rows = [{"id": str(i), "text": text, "label": i % 3} for i, text in enumerate(["rain", "tree river", "stone"] * 2)]
    task = TaskData("mine", "sequence-classification", ("a", "b", "c"), {"train": rows, "validation": rows})
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2, token_gate="none", layer_scale=False))
    plan, tokenizer = make_plan([2, 2, 2], 6, 6, 0), load_tokenizer(str(backbone_folder))
    model.train()
    measures = measure(model, task, "validation", tokenizer, plan, seed=0, batch_size=4, max_length=32, progress=False)
    assert model.training
    assert measures.importance["gate"] == [[1.0, 1.0]] * 3
    assert len({value for layer in measures.importance["norm"] for value in layer}) == 6
    assert measures.notes == [
        "This run has no gates: all virtual tokens are equal in 'gate', which orders them by their place."
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"status": "failed"}, "which is failed; accepted: a finished run"),
        ({"task": ""}, "does not say how it was trained"),
        ({"prefix_lengths": [0, 0, 0]}, "accepted: a run with virtual tokens; without, there is nothing to remove"),
    ],
)
def test_what_cannot_be_measured_is_refused(runs, tmp_path, fields, message):
    folder = tmp_path / "run"
    shutil.copytree(runs["copa"], folder)
    (folder / MEASURES_FILE).unlink(missing_ok=True)
    update_finished_run(folder, **fields)
    with pytest.raises(AptError, match=message):
        measure_run(folder, progress=False)
    assert not (folder / MEASURES_FILE).exists()


def test_an_unknown_split_and_a_negative_cost_are_refused(runs):
    with pytest.raises(AptError, match="split: got 'dev'; accepted: train, validation, test"):
        measure_run(runs["copa"], split="dev")
    with pytest.raises(AptError, match=r"cost: got -1"):
        measure_run(runs["copa"], cost=-1)


def test_change_is_the_paired_mean_with_students_interval():
    from scipy import stats

    draw = np.random.default_rng(0)
    before, after = draw.random(20), draw.random(20)
    found = change(Point(metric=1, losses=[None, *before]), Point(metric=1, losses=[None, *after]))
    expected = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert found.mean == pytest.approx(np.mean(after - before))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert change(Point(metric=None, losses=[None, 1.0]), Point(metric=None, losses=[None, 2.0])) is None


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the command line in-process: (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["program", *words])
        with pytest.raises(SystemExit) as ending:
            run_typer(app)
        captured = capsys.readouterr()
        return ending.value.code, captured.out, captured.err

    return run


def test_command_prints_a_table_and_what_to_do_next(call, runs):
    code, out, _ = call("measure", str(runs["copa"]), "--cost", "9")
    assert code == 0
    lines = out.splitlines()
    rows = {line.split()[0]: line for line in lines if line[:5].strip().isdigit()}
    assert [row.split()[1] for row in rows.values()] == ["3", "0", "2"]
    assert rows["2"].endswith("-")  # counted from 1, as everywhere
    assert rows["1"].count("%") == 4
    assert "[" in rows["1"]
    assert lines[-1].strip().startswith(f"python -m analysis audit {runs['copa']}")
    assert f"python -m apt_core measure {runs['copa']} --cost" in out


def test_command_prints_one_object_with_json(call, runs):
    code, out, _ = call("measure", str(runs["copa"]), "--cost", "9", "--json", "--split", "test", "--seed", "3")
    printed = json.loads(out)
    assert (code, printed["split"], printed["examples_available"]) == (0, "test", 12)
    assert all(sum(shares) == pytest.approx(1) for shares in printed["layer_shares"].values())
    assert printed["loss_without_layer"][1] is None
    assert set(printed["loss_without_layer"][0]) == {"mean", "low", "high"}
    assert read_measures(runs["copa"], [3, 0, 2]).seed == 3


@pytest.fixture
def words(backbone_folder, data_folder, tmp_path) -> list[str]:
    """A short training."""
    place = ["--task", "copa", "--data-dir", str(data_folder), "--model", str(backbone_folder)]
    return ["train", *place, "--num-virtual-tokens", "2", "--epochs", "1", "--out", str(tmp_path / "run")]


def test_train_and_retrain_measure_at_their_end(call, words, tmp_path):
    code, out, err = call(*words, "--json")
    assert (code, json.loads(out)["status"]) == (0, "finished")
    assert "measured what the virtual tokens are worth in" in err
    assert read_measures(tmp_path / "run", [2, 2, 2]).split == "validation"
    code, _, err = call("retrain", str(tmp_path / "run"), "--prefix-lengths", "2,0,1", "--out", str(tmp_path / "next"))
    assert code == 0
    assert read_measures(tmp_path / "next", [2, 0, 1]).layers[1] is None
    code, _, err = call("retrain", str(tmp_path / "run"), "--prefix-lengths", "0,0,0", "--out", str(tmp_path / "none"))
    assert code == 0
    assert "note: not measured: run: got" in err
    assert read_run_info(tmp_path / "none").status == "finished"


def test_no_measure_leaves_it_out(call, words, tmp_path):
    assert call(*words, "--no-measure")[0] == 0
    assert not (tmp_path / "run" / MEASURES_FILE).exists()


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (RuntimeError("no memory"), "note: measuring failed (RuntimeError: no memory); 'python -m apt_core measure "),
        (KeyboardInterrupt(), "measuring was interrupted; 'python -m apt_core measure "),
    ],
)
def test_a_training_is_finished_even_if_measuring_fails(call, words, tmp_path, monkeypatch, problem, said):
    def fail(*_: object, **__: object) -> None:
        raise problem

    monkeypatch.setattr(measure_module, "measure_run", fail)
    code, out, err = call(*words)
    assert code == 0
    assert said in err
    assert "next:" in out
    assert read_run_info(tmp_path / "run").status == "finished"


def test_help_loads_no_torch():
    script = (
        "import sys, runpy\n"
        "sys.argv = ['apt_core', 'measure', '--help']\n"
        "try: runpy.run_module('apt_core', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as ending: code = ending.code\n"
        "print('torch' in sys.modules, code)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--cost" in result.stdout
    assert result.stdout.endswith("False 0\n")
