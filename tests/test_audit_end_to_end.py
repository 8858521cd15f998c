"""Measure and audit of a real model in which only known layers can matter, with gates that know it and that do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from analysis.audit import audit
from analysis.budgets.suggest import Ask, Evidence, suggest
from analysis.verdict import CARE, DO_NOT, FOLLOW
from apt_core import AptConfig, get_apt_model
from apt_core.gate_log import GateLog
from apt_core.gate_writer import GateLogWriter
from apt_core.measure import measure
from apt_core.measure_format import Measures
from apt_core.measure_plan import make_plan
from apt_core.model import AptModel
from apt_core.tasks.base import TaskData
from tests.apt_core.conftest import WORDS

NUM_LAYERS, NUM_TOKENS = 6, 4
pytestmark = pytest.mark.slow
MATTER = (1, 4)
"""layers whose attention output is not cut"""
COMPARING = ("share", "topk", "greedy", "pareto")
"""methods that compare layers; threshold and coverage look at each layer by itself"""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> BertTokenizerFast:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    return BertTokenizerFast.from_pretrained(str(folder), model_max_length=64)


@pytest.fixture(scope="module")
def task() -> TaskData:
    """60 texts, all of one class: what a backbone with a seeded head does not say of all of them."""
    draw = np.random.default_rng(0)
    rows = [{"id": str(index), "text": " ".join(draw.choice(WORDS, 6)), "label": 1} for index in range(60)]
    return TaskData("mine", "sequence-classification", ("a", "b", "c"), {"train": rows, "validation": rows})


def trained_model(task: TaskData, tokenizer: BertTokenizerFast, matter: tuple[int, ...] = MATTER) -> AptModel:
    """A seeded model whose keys and values have learned the task; only the layers in ``matter`` reach the output."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20,
        hidden_size=32,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=3,
    )
    backbone = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for number, layer in enumerate(backbone.bert.encoder.layer):
            layer.attention.output.dense.weight.mul_(10 if number in matter else 0)
        backbone.classifier.weight.mul_(20)
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=NUM_TOKENS, gate_init_std=0.3)).eval()
    set_scales(model, [1.0] * NUM_LAYERS)
    batch = tokenizer([row["text"] for row in task.splits["train"]], return_tensors="pt", padding=True)
    labels = torch.tensor([row["label"] for row in task.splits["train"]])
    optimizer = torch.optim.Adam([part for prefix in model.prefixes for part in (prefix.key, prefix.value)], lr=0.03)
    for _ in range(40):
        optimizer.zero_grad()
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
    return model


def set_scales(model: AptModel, scales: list[float]) -> None:
    with torch.no_grad():
        for prefix, scale in zip(model.prefixes, scales, strict=True):
            prefix.layer_scale.weight.fill_(scale)


def measured(model: AptModel, task: TaskData, tokenizer: BertTokenizerFast) -> Measures:
    """Everything there is to measure."""
    plan = make_plan([NUM_TOKENS] * NUM_LAYERS, 60, 60, 0)
    return measure(model, task, "validation", tokenizer, plan, seed=0, batch_size=20, max_length=32, progress=False)


def log_of(measures: Measures, folder) -> GateLog:
    """A log in which the gates grow to what was measured."""
    weights = np.array(measures.importance["gate"])
    gates, scales = weights / (2 * weights.max()), np.full(NUM_LAYERS, 2 * weights.max())
    writer = GateLogWriter(folder, [NUM_TOKENS] * NUM_LAYERS)
    for step in range(1, 41):
        writer.append(step, gates * step / 40, np.zeros_like(gates), scales)
    writer.close()
    return GateLog(folder)


def test_audit_follows_gates_that_name_the_layers_that_can_matter_and_no_others(task, tokenizer, tmp_path):
    model = trained_model(task, tokenizer)
    set_scales(model, [0.1, 1.0, 0.15, 0.2, 1.0, 0.12])
    right = measured(model, task, tokenizer)
    found = audit(right, log_of(right, tmp_path / "right"))
    assert found.verdict in (FOLLOW, CARE), found.reasons
    assert found.use == "gate"
    weights = np.array(right.importance["gate"])
    for method in COMPARING:
        lengths = suggest(Ask("total", 8, method), Evidence(weights, right, None)).budget.prefix_lengths
        assert sum(lengths[layer] for layer in MATTER) >= 6, (method, lengths)

    set_scales(model, [3.0, 1.0, 4.0, 5.0, 1.0, 6.0])  # in layers that are cut: other gates of the same function
    wrong = measured(model, task, tokenizer)
    assert wrong.full.losses == pytest.approx(right.full.losses, abs=1e-5)
    refused = audit(wrong, log_of(wrong, tmp_path / "wrong"))
    assert (refused.verdict, refused.use) == (DO_NOT, "effect")
    for method in ("greedy", "pareto"):  # they rest on what was measured, and are not misled by gates
        lengths = suggest(Ask("total", 8, method), Evidence(weights[::-1], wrong, None)).budget.prefix_lengths
        assert sum(lengths[layer] for layer in MATTER) >= 6, (method, lengths)

    values = np.random.default_rng(0).permutation(np.concatenate(right.importance["gate"]))
    right.importance["gate"] = values.reshape(NUM_LAYERS, NUM_TOKENS).tolist()
    assert audit(right, GateLog(tmp_path / "right")).verdict != FOLLOW


def test_audit_of_a_prefix_that_reaches_nothing_says_so(task, tokenizer):
    found = audit(measured(trained_model(task, tokenizer, matter=()), task, tokenizer), None)
    assert "the prefix does nothing measurable here" in found.headline
