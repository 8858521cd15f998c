"""Leaving out tokens by their gate is removing exactly them, example by example, layer by layer, query by query."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from apt_core import AptConfig, AptError, get_apt_model
from apt_core.removal import tokens_kept
from apt_core.switching import switched, tokens_switched
from benchmarks.small_backbones import batch_of, build, with_prefixes

NAMES = ["BERT", "DeBERTa-v2", "Llama", "T5", "BART"]
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def outputs(model, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**batch).logits


def all_kept(model) -> list[np.ndarray]:
    return [np.ones(0 if prefix is None else prefix.num_virtual_tokens, bool) for prefix in model.prefixes]


def gates_seen(model, run: Callable[[], object]) -> dict[int, Tensor]:
    """Layer -> the token gates of its last call; a layer that was not called has none."""
    seen: dict[int, Tensor] = {}
    handles = [
        prefix.token_gate.register_forward_hook(lambda _, __, gate, layer=layer: seen.__setitem__(layer, gate.detach()))
        for layer, prefix in enumerate(model.prefixes)
        if prefix is not None
    ]
    run()
    for handle in handles:
        handle.remove()
    return seen


def settled_keep(model, run: Callable[[], object], threshold: float) -> list[np.ndarray]:
    """What one sequence with one query per gate keeps: layer after layer, as a gate depends on the layers before."""
    keep = all_kept(model)
    for layer, prefix in enumerate(model.prefixes):
        if prefix is None:
            continue
        with tokens_kept(model, keep):
            seen = gates_seen(model, run)
        if layer in seen:
            keep[layer] = (seen[layer].view(-1, prefix.num_virtual_tokens)[-1] >= threshold).numpy()
    return keep


def removed_one_by_one(model, inputs: dict[str, Tensor], threshold: float) -> tuple[Tensor, list[list[np.ndarray]]]:
    """The reference for one example, and what was kept at each query; decoders go on query by query with a cache."""
    if model.is_decoder_only:
        past, logits, kept = None, [], []
        for position in range(inputs["input_ids"].shape[1]):
            token = inputs["input_ids"][:, position : position + 1]

            def step(token: Tensor = token, past=past):
                with torch.no_grad():
                    return model(input_ids=token, past_key_values=copy.deepcopy(past), use_cache=True)

            kept.append(settled_keep(model, step, threshold))
            with tokens_kept(model, kept[-1]):
                result = step()
            past = result.past_key_values
            logits.append(result.logits)
        return torch.cat(logits, dim=1), kept
    keep = settled_keep(model, lambda: outputs(model, inputs), threshold)
    with tokens_kept(model, keep):
        return outputs(model, inputs), [keep]


def alone(batch: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """One text of a batch, without its padding; of a decoder behind an encoder, one position."""
    real = batch["attention_mask"][row].bool()
    inputs = {"input_ids": batch["input_ids"][row : row + 1, real]}
    if "decoder_input_ids" in batch:
        inputs["decoder_input_ids"] = batch["decoder_input_ids"][row : row + 1]
    return inputs


def threshold_between(model, batch: dict[str, Tensor]) -> float:
    """Near the median of all gates of a batch, in the widest gap there: rounding must not decide."""
    seen = gates_seen(model, lambda: outputs(model, batch))
    gates = torch.cat([gate.flatten() for gate in seen.values()]).sort().values
    middle = gates[int(0.4 * len(gates)) : int(0.6 * len(gates)) + 1]
    widest = middle.diff().argmax()
    return middle[widest : widest + 2].mean().item()


def one_query(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch | ({"decoder_input_ids": batch["decoder_input_ids"][:, :1]} if "decoder_input_ids" in batch else {})


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", NAMES)
def test_in_between_equals_removing_exactly_those_tokens_of_each_example(name, implementation):
    model = with_prefixes(name, implementation)
    batch = one_query(batch_of(model))
    threshold = threshold_between(model, batch)
    with tokens_switched(model, threshold):
        received = outputs(model, batch)
    kept = []
    for row in (0, 1):
        inputs = alone(batch, row)
        expected, keeps = removed_one_by_one(model, inputs, threshold)
        real = batch["attention_mask"][row].bool() if model.is_decoder_only else slice(None)
        torch.testing.assert_close(received[row : row + 1, real], expected, **TOLERANCE)
        with tokens_switched(model, threshold):
            torch.testing.assert_close(outputs(model, inputs), expected, **TOLERANCE)
        kept += [np.concatenate(keep) for keep in keeps]
    assert 0 < np.mean(kept) < 1
    assert len({keep.tobytes() for keep in kept}) > 1, "the texts, or queries, must differ in what they keep"
    assert not torch.allclose(received, outputs(model, batch), **TOLERANCE)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", NAMES)
def test_threshold_0_is_the_model_and_over_1_the_backbone_bit_for_bit(name, implementation):
    model = with_prefixes(name, implementation)
    batch = batch_of(model)
    expected = outputs(model, batch)
    with tokens_switched(model, 0.0):
        assert torch.equal(outputs(model, batch), expected)
    with tokens_switched(model, 1.5):
        assert torch.equal(outputs(model, batch), outputs(build(name, implementation), batch))
    assert torch.equal(outputs(model, batch), expected)


@pytest.mark.parametrize("pooling", ["mean", "per-position"])
def test_encoder_without_padding_mask_hides_tokens_of_one_text_only(pooling):
    """With no mask at hand one has to be made, for each implementation in its own form."""
    received = []
    for implementation in ("eager", "sdpa"):
        model = with_prefixes("BERT", implementation, gate_pooling=pooling)
        batch = {"input_ids": batch_of(model)["input_ids"].clamp(min=4)}
        threshold = threshold_between(model, batch)
        with tokens_switched(model, threshold):
            together = outputs(model, batch)
            for row in (0, 1):
                single = {"input_ids": batch["input_ids"][row : row + 1]}
                torch.testing.assert_close(together[row : row + 1], outputs(model, single), **TOLERANCE)
        received.append(together)
    torch.testing.assert_close(*received, **TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["BERT", "Llama"])
@pytest.mark.parametrize("padded", [True, False])
def test_flex_attention_hides_what_eager_hides(name, padded):
    """torch 2.13 cannot compile flex attention of varying shapes for a CPU: every shape is compiled by itself."""
    torch._dynamo.reset()
    received = []
    for implementation in ("eager", "flex_attention"):
        model = with_prefixes(name, implementation)
        batch = batch_of(model)
        if not padded:
            del batch["attention_mask"]
        with tokens_switched(model, 0.5), torch._dynamo.config.patch(automatic_dynamic_shapes=False):
            received.append(outputs(model, batch))
    real = batch["attention_mask"].bool() if padded and name == "Llama" else slice(None)
    torch.testing.assert_close(received[0][real], received[1][real], **TOLERANCE)


@pytest.mark.parametrize("name", ["BERT", "Llama"])
def test_static_gates_drop_the_same_tokens_for_every_input(name):
    model = with_prefixes(name, "sdpa", token_gate="static")
    for prefix in filter(None, model.prefixes):
        prefix.token_gate.weight.data = torch.linspace(-1, 1, prefix.num_virtual_tokens)
    batch = batch_of(model)
    keep = [
        np.ones(0, bool) if prefix is None else (prefix.token_gate(None, None)[0] >= 0.5).numpy()
        for prefix in model.prefixes
    ]
    with tokens_kept(model, keep):
        expected = outputs(model, batch)
    with tokens_switched(model, 0.5):
        assert torch.equal(outputs(model, batch), expected)


def test_decoding_with_a_cache_equals_one_pass():
    model = with_prefixes("Llama", "sdpa")
    input_ids = batch_of(model)["input_ids"][:1]
    with tokens_switched(model, 0.5), torch.no_grad():
        expected = model(input_ids=input_ids).logits
        past, steps = None, []
        for position in range(input_ids.shape[1]):
            result = model(input_ids=input_ids[:, position : position + 1], past_key_values=past, use_cache=True)
            past = result.past_key_values
            steps.append(result.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), expected, **TOLERANCE)


@pytest.mark.parametrize("name", ["BERT", "Llama"])
def test_gradients_are_those_of_the_tokens_kept(name, monkeypatch):
    """The fused path's own backward against the one written out, and none for a token nobody keeps."""
    from apt_core import split

    def gradients():
        model = with_prefixes(name, "sdpa")
        with tokens_switched(model, 0.5):
            outputs_ = model(**batch_of(model)).logits
        outputs_.pow(2).mean().backward()
        return [prefix.key.grad for prefix in model.prefixes if prefix is not None]

    received = gradients()
    monkeypatch.setattr(split, "_can_fuse", lambda *_: False)
    for one, other in zip(received, gradients(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_tokens_nobody_keeps_are_cut_out_and_others_masked():
    gate = torch.tensor([[0.9, 0.1, 0.6, 0.2], [0.8, 0.1, 0.3, 0.4]])
    key = torch.arange(8.0).view(1, 4, 2)
    result = switched(key, -key, gate, 0.5)
    assert result.key[0, :, 0].tolist() == [0, 4]
    assert result.visible.tolist() == [[[True, True]], [[True, False]]]
    one = switched(key, -key, gate[:1], 0.5)
    assert one.visible is None
    assert (one.key.shape[1], one.gate.tolist()) == (2, [pytest.approx([0.9, 0.6])])
    assert switched(key, -key, gate, 0.95).key.shape == (1, 0, 2)


@pytest.mark.parametrize("threshold", [-0.1, float("nan")])
def test_threshold_that_is_none_is_refused(threshold):
    with pytest.raises(AptError, match=r"threshold: got .*; accepted: a token gate, from 0"):
        tokens_switched(with_prefixes("BERT"), threshold)


def test_switching_what_is_also_removed_is_refused():
    model = with_prefixes("BERT")
    keep = [np.zeros_like(layer) for layer in all_kept(model)]
    with pytest.raises(AptError, match="one or the other"), tokens_kept(model, keep), tokens_switched(model, 0.5):
        outputs(model, batch_of(model))


def test_model_without_token_gates_is_refused():
    model = get_apt_model(build("BERT"), AptConfig(token_gate="none"))
    with pytest.raises(AptError, match="token_gate: got 'none'; accepted: 'hidden' or 'static'"):
        tokens_switched(model, 0.5)
