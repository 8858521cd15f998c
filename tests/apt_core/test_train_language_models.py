"""Language models from prompts and targets in files: from the command's job to a finished, evaluated run."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from apt_core.config import AptConfig, TrainSettings
from apt_core.errors import AptError
from apt_core.evaluate_run import evaluate_run, load_run
from apt_core.gate_log import GateLog
from apt_core.run_format import read_json_lines, read_run_info
from apt_core.tasks.source import DataSource
from apt_core.train import TrainJob, train

ANIMALS = {"cat": "mews", "dog": "barks", "cow": "moos", "owl": "hoots"}
WORDS = [*ANIMALS, *ANIMALS.values(), "the", "says", "it", "what"]


def save_backbone(folder: Path, kind: str) -> Path:
    """A tiny seeded GPT-2 without padding token, or a T5, with a tokenizer of whole words."""
    special = ["<unk>", "</s>"] if kind == "causal" else ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate([*special, *WORDS])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    if kind != "causal":
        end = ("</s>", special.index("</s>"))
        tokenizer.post_processor = TemplateProcessing(single="$A </s>", pair="$A $B </s>", special_tokens=[end])
    padding = {} if kind == "causal" else {"pad_token": "<pad>"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", model_max_length=32, **padding
    ).save_pretrained(folder)
    torch.manual_seed(0)
    size = len(special) + len(WORDS)
    if kind == "causal":
        config = GPT2Config(vocab_size=size, n_positions=32, n_embd=32, n_layer=2, n_head=4, eos_token_id=1)
        GPT2LMHeadModel(config).save_pretrained(folder)
    else:
        config = T5Config(
            vocab_size=size, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0
        )
        T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def backbones(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("backbones")
    return {kind: save_backbone(root / kind, kind) for kind in ("causal", "seq2seq")}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """CSV files with odd column names: an animal to what it says."""
    folder = tmp_path_factory.mktemp("data")
    draw = random.Random(0)
    for split, size in (("train", 60), ("validation", 20), ("test", 20)):
        rows = ["Frage (en),l'écho"]
        for _ in range(size):
            animal = draw.choice(list(ANIMALS))
            rows.append(f"what says the {animal},{'it ' * draw.randint(0, 2)}{ANIMALS[animal]}")
        (folder / f"{split}.csv").write_text("\n".join(rows), encoding="utf-8")
    return {f"{split}_file": str(folder / f"{split}.csv") for split in ("train", "validation", "test")}


@pytest.fixture
def job(backbones, files, tmp_path):
    def make(kind: str, **changed) -> TrainJob:
        fields = {
            "task": "causal-lm" if kind == "causal" else "seq2seq-lm",
            "out": tmp_path / "run",
            "model": str(backbones[kind]),
            "apt": AptConfig(num_virtual_tokens=4),
            "training": TrainSettings(epochs=4, batch_size=8, learning_rate=0.1, device="cpu", max_length=32),
            "data": DataSource(**files, prompt_column="Frage (en)", target_column="l'écho"),
        }
        return TrainJob(**{**fields, **changed})

    return make


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_language_model_trains_on_prompts_and_targets_and_learns(job, kind):
    said = []
    info = train(job(kind), say=said.append)
    assert (info.status, info.metric_name) == ("finished", "perplexity")
    metrics = info.metrics["validation"]
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    epochs = [row for row in read_json_lines(job(kind).out / "metrics.jsonl") if "eval_perplexity" in row]
    assert epochs[-1]["eval_perplexity"] < epochs[0]["eval_perplexity"]
    assert metrics["perplexity"] == pytest.approx(min(row["eval_perplexity"] for row in epochs), rel=1e-4)
    assert 0 < metrics["token_accuracy"] <= 1
    layers = 2 if kind == "causal" else 6
    gates = GateLog(job(kind).out / "gates").read()["token_gate"]
    assert gates.shape == (info.total_steps, layers, 4)
    assert ((gates > 0) & (gates < 1)).all()


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_predictions_of_a_language_model_hold_no_text(job, kind):
    train(job(kind), say=lambda line: None)
    rows = read_json_lines(job(kind).out / "predictions.jsonl")
    assert len(rows) == 20
    assert set(rows[0]) == {"id", "loss", "tokens", "right", "layer_gates"}
    assert not any(animal in json.dumps(rows) for animal in ANIMALS)


def test_test_split_is_measured_by_evaluate_only(job):
    info = train(job("causal"), say=lambda line: None)
    assert set(info.metrics) == {"validation"}
    metrics = evaluate_run(job("causal").out, "test")
    assert set(read_run_info(job("causal").out).metrics) == {"validation", "test"}
    assert metrics["perplexity"] > 1


def test_trained_causal_model_generates_from_its_prefix(job, backbones):
    train(job("causal"), say=lambda line: None)
    model = load_run(job("causal").out).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(backbones["causal"])
    batch = tokenizer("what says the cat", return_tensors="pt", return_token_type_ids=False)
    generated = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert generated.shape[1] > batch["input_ids"].shape[1]


def test_whole_texts_train_a_causal_model(job, files):
    source = DataSource(train_file=files["train_file"], text_column="Frage (en)")
    info = train(job("causal", data=source), say=lambda line: None)
    assert info.split_sizes["train"] + info.split_sizes["validation"] == 60
    assert info.data == {"train_file": files["train_file"], "text_column": "Frage (en)"}


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_decoder_with_accumulation_checkpointing_and_a_bfloat16_backbone(job, gradient_checkpointing):
    settings = TrainSettings(
        epochs=1,
        batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=0.05,
        device="cpu",
        max_length=32,
        dtype="bfloat16",
        gradient_checkpointing=gradient_checkpointing,
    )
    made = job("causal", training=settings)
    info = train(made, say=lambda line: None)
    assert info.total_steps == math.ceil(60 / 8)
    model = load_run(made.out)
    assert {value.dtype for value in model.trained_state_dict().values()} == {torch.float32}
    assert np.isfinite(GateLog(made.out / "gates").read()["token_gate"]).all()


def test_encoder_is_refused_as_a_causal_language_model(job, backbone_folder):
    made = job("causal", model=str(backbone_folder))
    with pytest.raises(AptError, match="accepted: a causal language model"):
        train(made, say=lambda line: None)
    assert not made.out.exists()


def test_decoder_without_padding_token_classifies_padded_batches(job, backbones, tmp_path):
    """GPT-2 has no padding token; its classifier must still read each text's last real position."""
    rows = [f"{'the ' * (n % 4)}{word},{'a' if word in ANIMALS else 'b'}" for n, word in enumerate(WORDS * 4)]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows]))
    made = job("causal", task="text-classification", data=DataSource(train_file=str(tmp_path / "train.csv")))
    info = train(made, say=lambda line: None)
    alone = evaluate_run(made.out, "validation")
    assert alone["accuracy"] == pytest.approx(info.metrics["validation"]["accuracy"])
