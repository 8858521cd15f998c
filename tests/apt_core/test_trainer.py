"""The Trainer of this project: learning rates by part, the order of batches, what a step's gates are made of."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from transformers import (
    BertForSequenceClassification,
    BertForTokenClassification,
    DataCollatorWithPadding,
    TrainingArguments,
)

from apt_core import AptConfig, AptTrainer, GateRecorder, arguments, get_apt_model
from apt_core.backbones import set_dropout
from apt_core.config import TrainSettings
from apt_core.gate_log import GateLog
from apt_core.trainer import STATE_FILE, EpochSeededSampler, moved_here

VOCABULARY = 99
FAMILY = SimpleNamespace(metric_name="accuracy", greater_is_better=True)


def examples(count: int, *, per_token: bool = False, seed: int = 0) -> datasets.Dataset:
    """Texts of 3 to 9 sub-words with a label each, or one per sub-word; some sub-words have none."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, 10, count)
    rows = {
        "input_ids": [draw.integers(5, VOCABULARY, length).tolist() for length in lengths],
        "labels": [int(label) for label in draw.integers(0, 3, count)],
        "length": [int(length) for length in lengths],
    }
    if per_token:
        rows["labels"] = [draw.choice([0, 1, 2, -100], length).tolist() for length in lengths]
    return datasets.Dataset.from_dict({**rows, "attention_mask": [[1] * length for length in lengths]})


def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    """Pads to the longest, labels of sub-words with -100."""
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(name: str, filler: int) -> torch.Tensor:
        return torch.tensor([row[name] + [filler] * (longest - len(row[name])) for row in rows])

    per_token = isinstance(rows[0]["labels"], list)
    labels = padded("labels", -100) if per_token else torch.tensor([row["labels"] for row in rows])
    return {"input_ids": padded("input_ids", 0), "attention_mask": padded("attention_mask", 0), "labels": labels}


def trained(model, data: datasets.Dataset, out: Path, *, rates: dict[str, float] | None = None, **changed):
    """Trains with recorded gates; returns the trainer."""
    settings = {"per_device_train_batch_size": 8, "num_train_epochs": 2, "learning_rate": 0.05, **changed}
    settings |= {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False}
    torch.manual_seed(0)
    trainer = AptTrainer(
        model,
        TrainingArguments(str(out / "checkpoints"), use_cpu=True, report_to="none", disable_tqdm=True, **settings),
        train_dataset=data,
        data_collator=collate,
        callbacks=[GateRecorder(out / "run")],
        learning_rates=rates,
    )
    trainer.train()
    return trainer


@pytest.fixture
def still_backbone(make_backbone):
    """A tiny BERT without dropout, so that two ways of computing the same step can be compared."""

    def build(**options):
        backbone = make_backbone(**options)
        set_dropout(backbone, 0.0)
        return backbone

    return build


def test_learning_rates_reach_the_parts_they_are_named_for(backbone, tmp_path):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2))
    before = {name: value.clone() for name, value in model.trained_state_dict().items()}
    rates = {"token_gate": 0.0, "layer_scale": 0.0, "head": 1e-9}
    trainer = trained(model, examples(16), tmp_path, rates=rates, num_train_epochs=1)
    moved = {name: (value - before[name]).abs().max() for name, value in model.trained_state_dict().items()}
    assert all(change == 0 for name, change in moved.items() if "token_gate" in name or "layer_scale" in name)
    assert all(change < 1e-7 for name, change in moved.items() if "apt_prefix" not in name)
    assert all(change > 1e-3 for name, change in moved.items() if name.endswith((".key", ".value")))
    grouped = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in grouped} == {id(value) for value in model.trained_state_dict().values()}


def test_without_learning_rates_of_their_own_all_parts_have_the_common_one(backbone, tmp_path):
    trainer = trained(get_apt_model(backbone, AptConfig(num_virtual_tokens=2)), examples(8), tmp_path)
    assert {group["initial_lr"] for group in trainer.optimizer.param_groups} == {0.05}


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor", "sgd"])
def test_other_optimizers_train_and_take_learning_rates_by_part(backbone, tmp_path, optim):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2))
    trainer = trained(model, examples(8), tmp_path, rates={"head": 0.01}, optim=optim)
    assert {group["initial_lr"] for group in trainer.optimizer.param_groups} == {0.05, 0.01}
    assert len(GateLog(tmp_path / "run" / "gates")) == 2


@pytest.mark.parametrize("model_class", [None, BertForTokenClassification])
def test_accumulated_gradients_give_the_gates_of_the_whole_batch(still_backbone, tmp_path, model_class):
    options = {} if model_class is None else {"model_class": model_class}
    data = examples(32, per_token=model_class is not None)
    logs = []
    for size, accumulated in ((8, 1), (4, 2)):
        out = tmp_path / str(size)
        model = get_apt_model(still_backbone(**options), AptConfig(num_virtual_tokens=2))
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated}
        trained(model, data, out, **settings)
        logs.append(GateLog(out / "run" / "gates").read())
    for name, column in logs[0].items():
        assert column.shape[0] == 8
        np.testing.assert_allclose(logs[1][name], column, atol=1e-4)


def test_gradient_checkpointing_gives_the_same_gates(still_backbone, tmp_path):
    logs = []
    for checkpointing in (False, True):
        model = get_apt_model(still_backbone(), AptConfig(num_virtual_tokens=2))
        out = tmp_path / str(checkpointing)
        trained(model, examples(16), out, **(arguments.checkpointing() if checkpointing else {}))
        logs.append(GateLog(out / "run" / "gates").read())
    for name, column in logs[0].items():
        np.testing.assert_allclose(logs[1][name], column, atol=1e-5)


def test_bf16_records_gates_that_are_not_rounded_to_bfloat16(backbone, tmp_path):
    trained(get_apt_model(backbone, AptConfig(num_virtual_tokens=2)), examples(16), tmp_path, bf16=True)
    gates = torch.tensor(GateLog(tmp_path / "run" / "gates").read()["token_gate"])
    assert not torch.equal(gates.to(torch.bfloat16).float(), gates)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_training_gives_the_same_gates(still_backbone, tmp_path, backend):
    logs = []
    for options in ({}, {"torch_compile_backend": backend}):
        model = get_apt_model(still_backbone(), AptConfig(num_virtual_tokens=2))
        out = tmp_path / str(len(logs))
        trained(model, examples(16), out, **options)
        logs.append(GateLog(out / "run" / "gates").read())
    for name, column in logs[0].items():
        np.testing.assert_allclose(logs[1][name], column, atol=1e-4)


def test_one_process_keeps_to_one_gpu(tmp_path, monkeypatch):
    """The Trainer would share batches out over copies of the model in threads, whose gates nobody could tell apart."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: vars(self).get("_n_gpu", 2)))
    monkeypatch.setattr(TrainingArguments, "__post_init__", lambda self: None)
    assert arguments.training_arguments(TrainSettings(device="cpu"), tmp_path, 100, FAMILY).n_gpu == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_trainer_with_a_loss_of_ones_own_trains(backbone, tmp_path, smoothing):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2))
    seen = []

    def loss_of(outputs, labels, num_items_in_batch=None):
        seen.append(num_items_in_batch)
        return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    data = examples(16)
    trainer = AptTrainer(
        model,
        TrainingArguments(
            str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True, num_train_epochs=1,
            label_smoothing_factor=smoothing, remove_unused_columns=False, per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
        ),
        train_dataset=data,
        data_collator=collate,
        compute_loss_func=None if smoothing else loss_of,
    )  # fmt: skip
    assert np.isfinite(trainer.train().training_loss)
    assert len(seen) == (0 if smoothing else 2)
    assert all(int(count) == 16 for count in seen)


def test_checkpoint_that_was_moved_names_the_best_one_where_it_is_now(tmp_path):
    for step in (10, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
    state = {"global_step": 20, "best_model_checkpoint": "/gone/checkpoints/checkpoint-10", "best_metric": 0.5}
    file = tmp_path / "checkpoint-20" / STATE_FILE
    file.write_text(json.dumps(state))
    moved_here(tmp_path / "checkpoint-20")
    assert json.loads(file.read_text()) == {**state, "best_model_checkpoint": str(tmp_path / "checkpoint-10")}
    before = file.read_bytes()
    moved_here(tmp_path / "checkpoint-20")
    assert file.read_bytes() == before


def test_batches_depend_on_seed_and_epoch_only():
    sampler = EpochSeededSampler(4, lengths=[3, 9, 4, 4, 5, 8, 7, 1], seed=1)
    first = list(sampler)
    torch.rand(100)  # dropout draws as many numbers as a batch is long
    assert list(sampler) == first
    assert sorted(first) == list(range(8))
    sampler.set_epoch(1)
    assert list(sampler) != first


@pytest.mark.parametrize("strategy", ["group_by_length", "random"])
@pytest.mark.parametrize("model_class", [BertForSequenceClassification, BertForTokenClassification])
def test_evaluation_pads_little_and_keeps_the_order_of_the_examples(make_backbone, tmp_path, model_class, strategy):
    per_token = model_class is BertForTokenClassification
    data, widths, seen = examples(21, per_token=per_token), [], []
    model = get_apt_model(make_backbone(model_class=model_class), AptConfig(num_virtual_tokens=2)).eval()
    model.register_forward_pre_hook(
        lambda _, __, inputs: widths.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    trainer = AptTrainer(
        model,
        TrainingArguments(
            str(tmp_path),
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            per_device_eval_batch_size=4,
            train_sampling_strategy=strategy,
            remove_unused_columns=False,
        ),
        data_collator=collate,
        compute_metrics=lambda result: seen.append(result) or {"accuracy": 0.0},
    )
    output = trainer.predict(data)

    expected = [model(**{k: v for k, v in collate([row]).items() if k != "labels"}).logits[0] for row in data]
    padded = sum(rows * width for rows, width in widths[:6])
    assert (padded < 1.1 * sum(data["length"])) == (strategy == "group_by_length")
    for logits, labels, row, alone in zip(output.predictions, output.label_ids, data, expected, strict=True):
        real = slice(row["length"]) if per_token else ...
        np.testing.assert_allclose(logits[real], alone.detach().numpy(), atol=1e-5)
        assert labels[real].tolist() == row["labels"]
    assert np.array_equal(seen[0].predictions, output.predictions)
    assert np.array_equal(seen[0].label_ids, output.label_ids)


def test_collator_of_this_file_pads_like_transformers(backbone_folder):
    from transformers import AutoTokenizer

    rows = [{name: row[name] for name in ("input_ids", "attention_mask", "labels")} for row in examples(3)]
    expected = DataCollatorWithPadding(AutoTokenizer.from_pretrained(backbone_folder))(rows)
    assert all(torch.equal(collate(rows)[name], expected[name]) for name in expected)
