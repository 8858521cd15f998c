"""Importances against what eager attention tells, finite differences, and the gates that an evaluation records."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from apt_core import AptConfig, get_apt_model
from apt_core.evaluate import evaluate
from apt_core.importance import PrefixWatch, measure_importances
from apt_core.passes import Passes
from apt_core.removal import tokens_kept
from apt_core.tasks.base import TaskData
from benchmarks.architectures import logits
from benchmarks.small_backbones import batch_of, build, is_decoder_only, with_prefixes

BACKBONES = ["BERT", "DeBERTa-v2", "Llama", "Gemma 3", "GPT-2", "T5", "BART"]
IMPLEMENTATIONS = ["eager", "sdpa"]


def watched(model, batch):
    """Calls of all prefixes, and the model's output, with gradient."""
    with PrefixWatch(model) as watch:
        output = model(**batch)
    return watch.take(), output


def scores_of(model, batch, output: torch.Tensor) -> torch.Tensor:
    """One number per example [B] that hangs on all its real outputs in a nonlinear way."""
    wanted = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
    rows = (output - wanted).pow(2)
    if is_decoder_only(model):
        rows = rows * batch["attention_mask"][..., None]
    return rows.flatten(1).mean(dim=1)


def eager_weights(name: str, token_gate: str, batch) -> list[torch.Tensor]:
    """Of every layer with a prefix, in the order of the layers: [B, heads, Q, P + K]."""
    model = with_prefixes(name, "eager", token_gate)
    with torch.no_grad():
        output = model(**batch, output_attentions=True)
    kinds = {"encoder": iter(output.get("encoder_attentions") or output.get("attentions") or ())}
    kinds["decoder"] = iter(output.get("decoder_attentions") or output.get("attentions") or ())
    kinds["cross"] = iter(output.get("cross_attentions") or ())
    weights = [next(kinds[kind]) for kind in model._apt_kinds]
    return [row for row, prefix in zip(weights, model.prefixes, strict=True) if prefix is not None]


@pytest.mark.parametrize("token_gate", ["hidden", "static"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", BACKBONES)
def test_shares_of_the_softmax_are_those_of_eager_attention(name, implementation, token_gate):
    model = with_prefixes(name, implementation, token_gate)
    batch = batch_of(model)
    calls, _ = watched(model, batch)
    expected = eager_weights(name, token_gate, batch)
    assert len(calls) == len(expected) > 1
    real = batch["attention_mask"].bool() if is_decoder_only(model) else None
    for call, weights in zip(calls.values(), expected, strict=True):
        shares = weights[..., : call.share.shape[-1]]
        rows = torch.ones(call.output.shape[:2], dtype=torch.bool) if real is None else real
        torch.testing.assert_close(call.share.transpose(1, 2)[rows], shares.transpose(1, 2)[rows], atol=1e-6, rtol=1e-4)
        mean = torch.stack([shares[row].mean(dim=0)[rows[row]].mean(dim=0) for row in range(len(rows))])
        torch.testing.assert_close(call.attention(rows), mean, atol=1e-6, rtol=1e-4)
        assert 0.01 < call.attention(rows).sum(dim=1).min() < 1


def weighing(monkeypatch, log_weights: dict[int, torch.Tensor]) -> None:
    """Makes every softmax multiply the exp(score) of its first columns by a weight of their own.

    Args:
        log_weights: number of columns of a softmax -> [B, P].
    """
    for place in (torch, functional):
        original = place.softmax

        def softmax(scores, *args, _original=original, **kwargs):
            log_weight = log_weights.get(scores.shape[-1])
            if log_weight is not None:
                added = functional.pad(log_weight, (0, scores.shape[-1] - log_weight.shape[-1]))
                scores = scores + added[:, None, None]
            return _original(scores, *args, **kwargs)

        monkeypatch.setattr(place, "softmax", softmax)


def prefixed(name: str, token_gate: str):
    """A model, its inputs, and of every layer how many columns its softmax has, a different number each."""
    model = build(name, "eager")
    torch.manual_seed(1)
    two = model.config.is_encoder_decoder
    lengths = (2, 3, 1, 4, 3, 5) if two else (2, 1, 3)
    config = AptConfig(prefix_lengths=lengths, token_gate=token_gate, gate_init_std=0.5)
    model = get_apt_model(model, config).eval()
    batch = batch_of(model)
    read = ["decoder_input_ids" if two and kind == "decoder" else "input_ids" for kind in model._apt_kinds]
    columns = [length + batch[source].shape[1] for length, source in zip(lengths, read, strict=True)]
    assert len(set(columns)) == len(columns)
    return model, batch, columns


def effects_of(model, batch) -> list[torch.Tensor]:
    """Of every layer [B, P]."""
    calls, output = watched(model, batch)
    outputs = [call.output for call in calls.values()]
    gradients = torch.autograd.grad(scores_of(model, batch, output.logits).sum(), outputs)
    return [call.effect(gradient) for call, gradient in zip(calls.values(), gradients, strict=True)]


@pytest.mark.parametrize("token_gate", ["hidden", "static"])
@pytest.mark.parametrize("name", BACKBONES)
def test_effect_is_the_derivative_by_a_tokens_weight_in_the_softmax(name, token_gate, monkeypatch):
    """Against the same computation with the weights put into it."""
    model, batch, columns = prefixed(name, token_gate)
    effects = effects_of(model, batch)
    weights = [torch.zeros_like(effect, requires_grad=True) for effect in effects]
    with monkeypatch.context() as patch:
        weighing(patch, dict(zip(columns, weights, strict=True)))
        score = scores_of(model, batch, model(**batch).logits).sum()
        expected = torch.autograd.grad(score, weights)
    for effect, derivative in zip(effects, expected, strict=True):
        torch.testing.assert_close(effect, derivative, atol=1e-6, rtol=1e-3)
    assert max(effect.abs().max() for effect in effects) > 1e-4


@pytest.mark.parametrize("name", ["BERT", "Llama"])
def test_effect_is_a_finite_difference(name, monkeypatch):
    model, batch, columns = prefixed(name, "hidden")
    effect, step = effects_of(model.double(), batch)[2], 0.02
    for token in range(effect.shape[1]):
        ends = []
        for moved in (step, -step):
            log_weight = torch.zeros(2, effect.shape[1])
            log_weight[:, token] = moved
            with monkeypatch.context() as patch, torch.no_grad():
                weighing(patch, {columns[2]: log_weight})
                ends.append(scores_of(model, batch, model(**batch).logits))
        torch.testing.assert_close(effect[:, token].double(), (ends[0] - ends[1]) / (2 * step), atol=2e-6, rtol=0.01)


@pytest.mark.parametrize("token_gate", ["hidden", "static"])
@pytest.mark.parametrize("name", BACKBONES)
def test_effect_under_sdpa_is_that_under_eager(name, token_gate):
    models = [with_prefixes(name, implementation, token_gate) for implementation in IMPLEMENTATIONS]
    effects = [effects_of(model, batch_of(model)) for model in models]
    for eager, sdpa in zip(*effects, strict=True):
        torch.testing.assert_close(sdpa, eager, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("name", ["BERT", "DeBERTa-v2", "Llama"])
def test_watching_changes_no_output_and_goes_together_with_removing(name):
    model = with_prefixes(name, "sdpa")
    batch = batch_of(model)
    expected = logits(model, batch)
    keep = [np.ones(0 if prefix is None else prefix.num_virtual_tokens, bool) for prefix in model.prefixes]
    keep[0][1:] = False
    for _ in range(2):
        with torch.no_grad(), tokens_kept(model, keep):
            calls, _ = watched(model, batch)
        assert calls[0].share.shape[-1] == 1
    with torch.no_grad():
        _, output = watched(model, batch)
    assert torch.equal(output.logits, expected)
    assert torch.equal(logits(model, batch), expected)


@pytest.fixture
def tokenizer(backbone_folder):
    from apt_core.backbones import load_tokenizer

    return load_tokenizer(str(backbone_folder))


@pytest.fixture
def task() -> TaskData:
    texts = ["rain tree", "river stone cloud light house", "door", "window garden road field rain tree river", "field"]
    rows = [{"id": str(number), "text": text, "label": number % 3} for number, text in enumerate(texts * 3)]
    return TaskData("mine", "sequence-classification", ("a", "b", "c"), {"train": rows, "validation": rows})


def importances(model, task, tokenizer, batch_size: int, indices=None):
    indices = np.arange(len(task.splits["validation"])) if indices is None else indices
    passes = Passes(model, task, "validation", indices, tokenizer, max_length=32)
    return measure_importances(model, passes, passes.batches(batch_size))


@pytest.mark.parametrize("token_gate", ["hidden", "static", "none"])
def test_gate_is_the_scaled_mean_of_the_gates_that_an_evaluation_finds(backbone, task, tokenizer, token_gate):
    config = AptConfig(prefix_lengths=(3, 0, 2), token_gate=token_gate, gate_init_std=1.0)
    model = get_apt_model(backbone, config).eval()
    with torch.no_grad():
        model.prefixes[0].layer_scale.weight.fill_(-2.0)
    found = importances(model, task, tokenizer, batch_size=4).importance
    rows = evaluate(model, task, "validation", tokenizer, batch_size=4, max_length=32, progress=False).predictions
    for layer, scale in ((0, 2.0), (2, 1.0)):
        recorded = np.mean([row["layer_gates"][layer] for row in rows])
        assert found["gate"][layer].mean() == pytest.approx(scale * recorded, abs=1e-5)
        value = model.prefixes[layer].value.detach().numpy()  # [H, P, D]
        norms = [np.linalg.norm(value[:, token].ravel()) for token in range(value.shape[1])]
        np.testing.assert_allclose(found["norm"][layer], found["gate"][layer] * norms, rtol=1e-5)
    assert all(len(found[name][1]) == 0 for name in found)


def test_effect_is_the_mean_of_what_single_examples_have(backbone, task, tokenizer):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=3)).eval()
    together = importances(model, task, tokenizer, batch_size=16).importance
    single = [importances(model, task, tokenizer, 1, [row]).importance for row in range(len(task.splits["validation"]))]
    for name, layers in together.items():
        for layer in range(3):
            mean = np.mean([found[name][layer] for found in single], axis=0)
            np.testing.assert_allclose(layers[layer], mean, rtol=2e-4, atol=1e-7, err_msg=name)
            assert (layers[layer] >= 0).all()


def test_an_example_without_labels_has_no_effect_and_breaks_nothing(make_backbone, tokenizer):
    from transformers import BertForTokenClassification

    model = get_apt_model(make_backbone(model_class=BertForTokenClassification), AptConfig(num_virtual_tokens=2)).eval()
    texts = ((["rain"], ["O"]), (["tree", "river"], ["B-x", "O"]))
    rows = [{"id": str(number), "tokens": tokens, "tags": tags} for number, (tokens, tags) in enumerate(texts)]
    task = TaskData("mine", "token-classification", ("O", "B-x", "I-x"), {"validation": rows})
    passes = Passes(model, task, "validation", np.arange(2), tokenizer, max_length=32)
    batches = passes.batches(1)
    whole = measure_importances(model, passes, batches)
    short = next(batch for batch in batches if batch.indices == [0])
    blank = short._replace(labels=torch.full_like(short.labels, -100))
    found = measure_importances(model, passes, [blank if batch is short else batch for batch in batches])
    assert found.full.losses[0] is None
    assert math.isfinite(found.full.losses[1])
    for layer in range(3):
        assert (found.importance["effect"][layer] < whole.importance["effect"][layer]).all()
        assert np.isfinite(found.importance["effect"][layer]).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_layers_whose_attention_is_cut_off_have_no_effect_but_attention(make_backbone, task, tokenizer, implementation):
    """Only layer 1 reaches the output: the derivative sees it, where attention goes does not."""
    model = make_backbone()
    model.set_attn_implementation(implementation)
    with torch.no_grad():
        for layer in (0, 2):
            model.bert.encoder.layer[layer].attention.output.dense.weight.zero_()
    model = get_apt_model(model, AptConfig(num_virtual_tokens=4)).eval()
    found = importances(model, task, tokenizer, batch_size=8).importance
    assert [bool(layer.max() > 1e-6) for layer in found["effect"]] == [False, True, False]
    assert found["effect"][0].max() == found["effect"][2].max() == 0
    assert all(layer.min() > 1e-3 for layer in found["attention"])
