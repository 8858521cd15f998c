"""What a retraining starts from: random values, the parent's end, an early step of it, or an adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PrefixTuningConfig, get_peft_model
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification

from apt_core.config import AptConfig, TrainSettings
from apt_core.errors import AptError
from apt_core.evaluate_run import load_run
from apt_core.gate_log import GateLog
from apt_core.retrain import retrain
from apt_core.run_format import read_run_info, snapshot_path, snapshot_steps, update_finished_run
from apt_core.start import AdapterStart, adapter_config
from apt_core.tasks.source import DataSource
from apt_core.train import TrainJob, train

LENGTHS = (3, 0, 1)


@pytest.fixture(scope="module")
def parent(backbone_folder, data_folder, tmp_path_factory) -> Path:
    """A run of 15 steps that kept steps 2 and 10."""
    job = TrainJob(
        task="copa",
        out=tmp_path_factory.mktemp("runs") / "parent",
        model=str(backbone_folder),
        apt=AptConfig(num_virtual_tokens=4, prefix_projection=True),
        training=TrainSettings(epochs=3, batch_size=8, learning_rate=0.05, device="cpu", snapshot_steps=(2, 10)),
        data=DataSource(data_dir=str(data_folder)),
    )
    train(job, say=lambda line: None)
    return job.out


def started(parent: Path, out: Path, init: str, lengths: tuple[int, ...] = LENGTHS) -> dict[str, np.ndarray]:
    """What a retraining began with, by tensor name."""
    retrain(parent, out, lengths, init=init, say=lambda line: None, epochs=1)
    return load_file(snapshot_path(out, 0))


def kept_tokens(parent: Path, lengths: tuple[int, ...]) -> list[list[int]]:
    """The tokens with the largest recorded gates at the parent's best step, by layer, without this project's code."""
    gates = GateLog(parent / "gates").at(read_run_info(parent).best_step).token_gate
    return [
        sorted(sorted(range(4), key=lambda token: -gates[layer, token])[:length])
        for layer, length in enumerate(lengths)
    ]


def test_run_keeps_the_steps_it_was_told_to(parent):
    assert snapshot_steps(parent) == [2, 10]


def test_run_keeps_a_tenth_of_its_steps_if_not_told(parent, tmp_path):
    job = replace(TrainJob.from_run(parent), out=tmp_path / "run")
    train(replace(job, training=job.training.model_copy(update={"snapshot_steps": None})), say=lambda line: None)
    assert snapshot_steps(job.out) == [2]  # of 15


def test_scratch_begins_with_random_values_and_keeps_no_step_0(parent, tmp_path):
    info = retrain(parent, tmp_path / "run", LENGTHS, say=lambda line: None, epochs=1)
    assert (info.init, info.apt_config["kept_tokens"]) == ("scratch", None)
    assert not snapshot_path(tmp_path / "run", 0).exists()


def test_warm_begins_with_the_parents_values_of_the_tokens_with_the_largest_gates(parent, tmp_path):
    begun = started(parent, tmp_path / "run", "warm")
    ended = load_file(parent / "adapter" / "adapter_model.safetensors")
    kept = kept_tokens(parent, LENGTHS)
    info = read_run_info(tmp_path / "run")
    assert (info.init, info.parent, info.prefix_lengths) == ("warm", "parent", list(LENGTHS))
    assert [list(tokens) for tokens in info.apt_config["kept_tokens"]] == kept
    for name, value in begun.items():
        if name.endswith((".key", ".value")):
            np.testing.assert_array_equal(value, ended[name][:, kept[int(name.split("layer.")[1][0])]])
        elif "token_gate" in name:
            np.testing.assert_array_equal(value, ended[name][kept[int(name.split("layer.")[1][0])]])
        else:
            np.testing.assert_array_equal(value, ended[name])
    assert not any("layer.1." in name for name in begun)


def test_rewind_begins_with_the_values_of_an_early_step(parent, tmp_path):
    begun = started(parent, tmp_path / "run", "rewind:10")
    early = load_file(snapshot_path(parent, 10))
    kept = kept_tokens(parent, LENGTHS)
    assert read_run_info(tmp_path / "run").init == "rewind:10"
    for name, value in begun.items():
        layer = int(name.split("layer.")[1][0]) if "layer." in name else None
        chosen = kept[layer] if name.endswith(("embedding", "token_gate.weight")) else ...
        np.testing.assert_array_equal(value, early[name][chosen])
    assert {name.rpartition(".")[2] for name in begun if "projection" in name} == {"embedding", "weight", "bias"}


def test_rewind_without_a_step_takes_the_earliest(parent, tmp_path):
    started(parent, tmp_path / "run", "rewind")
    assert read_run_info(tmp_path / "run").init == "rewind:2"


def test_interrupted_warm_run_is_resumed_without_its_parent(parent, tmp_path):
    begun = started(parent, tmp_path / "run", "warm")
    metrics = read_run_info(tmp_path / "run").metrics
    update_finished_run(tmp_path / "run", status="interrupted")
    info = train(TrainJob.from_run(tmp_path / "run"), resume=True, say=lambda line: None)
    assert (info.init, info.metrics) == ("warm", metrics)
    for name, value in load_file(snapshot_path(tmp_path / "run", 0)).items():
        np.testing.assert_array_equal(value, begun[name])


@pytest.mark.parametrize(
    ("init", "lengths", "message"),
    [
        ("cold", LENGTHS, "init: got 'cold'; accepted: scratch, warm or rewind:STEP"),
        ("warm:3", LENGTHS, "init: got 'warm:3'; accepted: scratch, warm or rewind:STEP"),
        ("rewind:7", LENGTHS, "init: got 'rewind:7'; accepted: rewind:2 or rewind:10, the steps"),
        ("rewind:x", LENGTHS, "init: got 'rewind:x'; accepted: rewind:2 or rewind:10"),
        ("rewind:", LENGTHS, "init: got 'rewind:'; accepted: rewind:2 or rewind:10"),
        ("warm", (4, 5, 4), "at most 4 virtual tokens in layer 2 with --init warm"),
    ],
)
def test_unusable_init_raises_and_writes_nothing(parent, tmp_path, init, lengths, message):
    with pytest.raises(AptError, match=message):
        retrain(parent, tmp_path / "run", lengths, init=init, say=lambda line: None)
    assert not (tmp_path / "run").exists()


def test_rewind_of_a_run_that_kept_nothing_raises(parent, tmp_path):
    started(parent, tmp_path / "run", "warm")
    for step in snapshot_steps(tmp_path / "run"):
        snapshot_path(tmp_path / "run", step).unlink()
    with pytest.raises(AptError, match="kept no early step; train with --snapshot-steps"):
        retrain(tmp_path / "run", tmp_path / "again", (1, 0, 1), init="rewind")


def test_training_can_start_from_an_adapter_of_ours(parent, tmp_path):
    folder = parent / "adapter"
    config = adapter_config(folder, AptConfig(), set())
    job = replace(TrainJob.from_run(parent), out=tmp_path / "run", apt=config, start=AdapterStart(folder))
    train(replace(job, training=job.training.model_copy(update={"epochs": 1})), say=lambda line: None)
    assert read_run_info(tmp_path / "run").init == "adapter"
    ended = load_file(folder / "adapter_model.safetensors")
    for name, value in load_file(snapshot_path(tmp_path / "run", 0)).items():
        np.testing.assert_array_equal(value, ended[name])


@pytest.mark.parametrize("token_gate", ["static", "none"])
def test_training_can_start_from_an_adapter_of_pefts(backbone_folder, tmp_path, token_gate):
    rows = [
        f"{'tree' if number % 2 else 'river'} {word},{number % 2}" for number, word in enumerate("abcdefghijkl" * 2)
    ]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows]))
    torch.manual_seed(0)
    backbone = AutoModelForSequenceClassification.from_pretrained(backbone_folder, num_labels=2)
    peft = get_peft_model(backbone, PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3))
    peft.save_pretrained(tmp_path / "peft")
    table = load_file(tmp_path / "peft" / "adapter_model.safetensors")["prompt_embeddings"]  # [P, 2 L H D]
    config = adapter_config(tmp_path / "peft", AptConfig(token_gate=token_gate, layer_scale=False), {"token_gate"})
    job = TrainJob(
        task="text-classification",
        out=tmp_path / "run",
        model=str(backbone_folder),
        apt=config,
        training=TrainSettings(epochs=1, batch_size=8, device="cpu"),
        data=DataSource(train_file=str(tmp_path / "train.csv")),
        start=AdapterStart(tmp_path / "peft"),
    )
    info = train(job, say=lambda line: None)
    assert (info.init, info.prefix_lengths, info.apt_config["shift_positions"]) == ("adapter", [3, 3, 3], True)
    begun = load_file(snapshot_path(job.out, 0))
    key = next(value for name, value in begun.items() if name.endswith("layer.0.attention.self.apt_prefix.key"))
    start = 0.5 if token_gate == "static" else 1.0  # what the gate multiplies it with at the start
    np.testing.assert_allclose(key * start, table.reshape(3, 6, 4, 8).transpose(1, 2, 0, 3)[0], atol=1e-6)


def test_adapter_of_another_task_gives_its_prefix_and_says_what_not(parent, backbone_folder, tmp_path):
    rows = [f"{word} tree,{number % 3}" for number, word in enumerate("abcdefghijklmnopqrstu")]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows]))
    said = []
    job = TrainJob(
        task="text-classification",
        out=tmp_path / "run",
        model=str(backbone_folder),
        apt=adapter_config(parent / "adapter", AptConfig(), set()),
        training=TrainSettings(epochs=1, batch_size=8, device="cpu"),
        data=DataSource(train_file=str(tmp_path / "train.csv")),
        start=AdapterStart(parent / "adapter"),
    )
    train(job, say=said.append)
    assert any("classifier.weight, which does not fit this task's head" in line for line in said)
    ended = load_file(parent / "adapter" / "adapter_model.safetensors")
    for name, value in load_file(snapshot_path(job.out, 0)).items():
        if "apt_prefix" in name:
            np.testing.assert_array_equal(value, ended[name])


def test_adapter_that_contradicts_what_was_typed_raises(parent):
    with pytest.raises(AptError, match="num_virtual_tokens: got 8; accepted: 4, as in the adapter"):
        adapter_config(parent / "adapter", AptConfig(num_virtual_tokens=8), {"num_virtual_tokens"})


def test_folder_without_adapter_raises(tmp_path):
    with pytest.raises(AptError, match=r"init-adapter: got .* which has no adapter_config\.json"):
        adapter_config(tmp_path, AptConfig(), set())


def test_run_with_projection_ends_in_a_plain_adapter(parent):
    names = load_file(parent / "adapter" / "adapter_model.safetensors")
    assert not any("projection" in name for name in names)
    assert read_run_info(parent).apt_config["prefix_projection"] is True
    model = load_run(parent)
    assert torch.isfinite(model.prefixes[0].key).all()
