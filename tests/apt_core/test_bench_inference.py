"""Quality and latency of trained runs with fewer virtual tokens: numbers against recomputation, times against fakes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from apt_core.__main__ import app
from apt_core.bench_inference import bench_inference, middle_batches
from apt_core.command_line import run_typer
from apt_core.config import AptConfig, TrainSettings
from apt_core.evaluate import evaluate
from apt_core.evaluate_run import LoadedRun, load_run_with_data
from apt_core.gate_tally import GateTally
from apt_core.inference_format import INFERENCE_FILE, Inference, read_inference
from apt_core.latency import FEWEST_REPETITIONS
from apt_core.passes import Batch, Passes
from apt_core.removal import tokens_kept
from apt_core.run_format import RUN_FILE, read_run_info
from apt_core.switching import tokens_switched
from apt_core.tasks.source import DataSource
from apt_core.train import TrainJob, train
from tests.apt_core.test_train_language_models import backbones, files  # noqa: F401

METHODS = {
    "copa": {"prefix_lengths": (3, 0, 2)},
    "wnut17": {"num_virtual_tokens": 2, "token_gate": "static"},
    "causal-lm": {"num_virtual_tokens": 2},
    "ungated": {"num_virtual_tokens": 2, "token_gate": "none", "layer_scale": False},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, backbone_folder, data_folder, backbones, files) -> dict[str, Path]:  # noqa: F811
    """A trained run of each method; gates per sequence, static, per position and none."""
    root = tmp_path_factory.mktemp("runs")
    columns = {"prompt_column": "Frage (en)", "target_column": "l'écho"}
    for name, method in METHODS.items():
        task = "copa" if name == "ungated" else name
        causal = task == "causal-lm"
        job = TrainJob(
            task=task,
            out=root / name,
            model=str(backbones["causal"] if causal else backbone_folder),
            apt=AptConfig(**method, gate_init_std=0.5),
            training=TrainSettings(epochs=1, batch_size=4, learning_rate=0.05, device="cpu", max_length=32),
            data=DataSource(**files, **columns) if causal else DataSource(data_dir=str(data_folder)),
        )
        train(job, say=lambda _: None)
    return {name: root / name for name in METHODS}


@pytest.fixture(scope="module")
def measured(runs) -> dict[str, Inference]:
    given = {"copa": [0.0, 0.5, 1.5], "causal-lm": [0.5], "wnut17": [0.5], "ungated": None}
    return {
        name: bench_inference(folder, thresholds=given[name], seconds=0, progress=False)
        for name, folder in runs.items()
    }


def variant(inference: Inference, kind: str, **fields):
    (found,) = [
        row
        for row in inference.variants
        if row.kind == kind and all(getattr(row, name) == value for name, value in fields.items())
    ]
    return found


def evaluated(run: LoadedRun) -> tuple[float, float]:
    """Metric and mean loss by the evaluation that training uses."""
    result = evaluate(
        run.model, run.task, "validation", run.tokenizer, batch_size=3, max_length=run.max_length, progress=False
    )
    losses = [row["loss"] for row in result.predictions if row["loss"] is not None]
    return result.metrics[run.info.metric_name], float(np.mean(losses))


@pytest.mark.parametrize("name", METHODS)
def test_full_run_and_backbone_have_the_quality_that_evaluation_finds(runs, measured, name):
    run = load_run_with_data(runs[name], "validation")
    none = [np.zeros(length, bool) for length in run.info.prefix_lengths]
    full, backbone = variant(measured[name], "full").quality, variant(measured[name], "backbone").quality
    assert (full.metric, full.loss) == pytest.approx(evaluated(run), rel=1e-5)
    with tokens_kept(run.model, none):
        assert (backbone.metric, backbone.loss) == pytest.approx(evaluated(run), rel=1e-5)
    assert full.loss_difference is None
    assert backbone.loss_difference == pytest.approx(backbone.loss - full.loss, abs=1e-9)


@pytest.mark.parametrize(("name", "threshold"), [("copa", 0.5), ("causal-lm", 0.5), ("wnut17", 0.5)])
def test_switched_has_the_quality_that_evaluation_finds(runs, measured, name, threshold):
    run = load_run_with_data(runs[name], "validation")
    row = variant(measured[name], "switched", threshold=threshold)
    with tokens_switched(run.model, threshold):
        assert (row.quality.metric, row.quality.loss) == pytest.approx(evaluated(run), rel=1e-5)


def test_threshold_0_is_the_run_and_over_1_the_backbone(measured):
    nothing, everything = (variant(measured["copa"], "switched", threshold=threshold) for threshold in (0.0, 1.5))
    assert (nothing.tokens, nothing.layers, nothing.quality.loss_difference) == (5, 2, 0)
    assert (everything.tokens, everything.layers) == (0, 0)
    assert everything.quality.loss == variant(measured["copa"], "backbone").quality.loss
    between = variant(measured["copa"], "switched", threshold=0.5)
    assert 0 < between.tokens < 5


def test_tokens_of_switched_are_the_mean_over_inputs(runs, measured):
    """Of the causal model over all real positions of all texts."""
    run = load_run_with_data(runs["causal-lm"], "validation")
    counts: list[float] = []
    every = np.arange(len(run.task.splits["validation"]))
    passes = Passes(run.model, run.task, "validation", every, run.tokenizer, max_length=run.max_length)
    with torch.no_grad(), tokens_switched(run.model, 0.5), GateTally(run.model, training=False) as tally:
        for batch in passes.batches(1):
            passes.run(batch)
            layers = torch.stack(tally.take())  # [L, positions, P]
            counts += (layers >= 0.5).sum(dim=(0, 2)).tolist()
    assert variant(measured["causal-lm"], "switched").tokens == pytest.approx(np.mean(counts), rel=1e-6)


def test_pruned_keeps_the_tokens_with_the_largest_mean_weight(runs):
    run = load_run_with_data(runs["wnut17"], "validation")
    weights = [
        prefix.layer_scale.weight.abs().item() * torch.sigmoid(prefix.token_gate.weight).detach().numpy()
        for prefix in run.model.prefixes
    ]
    heaviest = np.sort(np.concatenate(weights))[-2:].min()
    keep = [layer >= heaviest for layer in weights]
    inference = bench_inference(runs["wnut17"], totals=[2], seconds=0, progress=False)
    row = variant(inference, "pruned")
    assert row.prefix_lengths == [int(layer.sum()) for layer in keep]
    with tokens_kept(run.model, keep):
        assert row.quality.loss == pytest.approx(evaluated(run)[1], rel=1e-5)


def test_folded_has_the_quality_of_the_run(measured):
    full, folded = (variant(measured["wnut17"], kind) for kind in ("full", "folded"))
    assert folded.quality.loss == pytest.approx(full.quality.loss, rel=1e-5)
    assert all(row.kind != "folded" for name in ("copa", "causal-lm", "ungated") for row in measured[name].variants)


def test_uniform_of_the_same_total_is_timed_but_not_judged(measured):
    row = variant(measured["copa"], "uniform")
    assert (row.prefix_lengths, row.quality) == ([2, 2, 1], None)
    assert all(row.kind != "uniform" for row in measured["wnut17"].variants)  # it is uniform


def test_file_is_written_and_read_back(runs, measured):
    info = read_run_info(runs["copa"])
    inference = read_inference(runs["copa"], info.prefix_lengths)
    assert inference == measured["copa"]
    assert inference.repetitions >= FEWEST_REPETITIONS
    assert tuple(inference.full.against_full) == (1, 1, 1)
    assert inference.batch_shape[0] == 2 * inference.batch_size  # two choices each
    assert inference.data_hash == info.data_hash


def test_older_run_is_told_the_shapes_of_its_layers(runs, tmp_path):
    folder = shutil.copytree(runs["copa"], tmp_path / "old")
    content = json.loads((folder / RUN_FILE).read_text())
    told = {name: content.pop(name) for name in ("layer_shapes", "layer_kinds", "backbone_dtype")}
    (folder / RUN_FILE).write_text(json.dumps(content))
    assert read_run_info(folder).layer_shapes == []
    bench_inference(folder, seconds=0, examples=4, progress=False)
    assert read_run_info(folder).model_dump(include=set(told)) == told
    assert told["layer_shapes"] == [[4, 8, 8, 32, 4]] * 3


def test_default_thresholds_and_totals_come_from_the_run(runs):
    inference = bench_inference(runs["copa"], seconds=0, progress=False)
    switched = [row for row in inference.variants if row.kind == "switched"]
    assert [row.tokens for row in switched] == pytest.approx([3.75, 2.5, 1.25], abs=0.6)  # of 5
    assert [sum(row.prefix_lengths) for row in inference.variants if row.kind == "pruned"] == [4, 2, 1]


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--totals 5", "totals: got 5; accepted: 1 to 4, under the 5 virtual tokens of the run"),
        ("--totals 1,x", "totals: got '1,x'; accepted: virtual tokens over all layers, separated by commas"),
        ("--thresholds -1", "thresholds: got -1.0; accepted: token gates, from 0"),
        ("--thresholds a", "thresholds: got 'a'; accepted: token gates separated by commas"),
        ("--thresholds nan", "thresholds: got nan"),
        ("--batch-size 0", "batch-size: got 0; accepted: 1 or more"),
        ("--length 3", "length: got 3; accepted: 4 or more"),
        ("--examples 0", "examples: got 0; accepted: 1 or more"),
        ("--seconds -1", "seconds: got -1.0"),
        ("--seconds nan", "seconds: got nan"),
        ("--split tomorrow", "split: got 'tomorrow'; accepted: train, validation, test"),
        ("--device tpu", "device: got 'tpu'"),
        ("--data-dir nowhere", "data-dir: got 'nowhere'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(call, runs, words, message):
    before = (runs["copa"] / INFERENCE_FILE).read_bytes() if (runs["copa"] / INFERENCE_FILE).exists() else None
    code, out, err = call("bench-inference", str(runs["copa"]), *words.split())
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    after = (runs["copa"] / INFERENCE_FILE).read_bytes() if (runs["copa"] / INFERENCE_FILE).exists() else None
    assert after == before


def test_thresholds_for_a_run_without_gates_are_refused(call, runs):
    code, _, err = call("bench-inference", str(runs["ungated"]), "--thresholds", "0.5")
    assert code == 2
    assert "accepted: a run with token gates" in err


def test_table_and_json_say_the_same(call, runs):
    words = ("bench-inference", str(runs["copa"]), "--seconds", "0", "--examples", "5", "--batch-size", "1")
    code, out, _ = call(*words, "--json")
    assert code == 0
    told = json.loads(out)
    assert told["batch_shape"][0] == 2
    assert "5 of 12 examples were drawn" in " ".join(told["notes"])
    code, out, _ = call(*words)
    assert code == 0
    for row in told["variants"]:
        assert row["name"] in out


def test_batches_to_be_timed_are_as_large_as_asked_for_whatever_they_pad(runs):
    run = load_run_with_data(runs["copa"], "validation")
    indices = np.arange(len(run.task.splits["validation"]))
    passes = Passes(run.model, run.task, "validation", indices, run.tokenizer, max_length=run.max_length)
    sizes = [len(batch.indices) for batch in passes.batches(5, whole=True)]
    assert sizes == [5] * (len(indices) // 5) + ([len(indices) % 5] if len(indices) % 5 else [])


def test_timed_batches_are_whole_and_of_middle_length():
    batches = [Batch([0, 1], {}, torch.zeros(2)) for _ in range(9)] + [Batch([0], {}, torch.zeros(1))]
    assert [id(batch) for batch in middle_batches(batches)] == [id(batch) for batch in batches[2:6]]
    assert len(middle_batches(batches[-1:])) == 1
