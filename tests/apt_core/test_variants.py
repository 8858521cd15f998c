"""One backbone with other prefixes: the same as a model made for them, and itself again afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from apt_core.removal import removal_order, tokens_kept, without_first
from apt_core.switching import tokens_switched
from apt_core.variants import ModelVariant, folded, pruned, running, untrained, without_prefixes
from benchmarks.small_backbones import batch_of, build, with_prefixes

NAMES = ["BERT", "DeBERTa-v2", "ALBERT", "Llama", "T5"]


def outputs(model) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch_of(model)).logits


def lengths_of(model) -> list[int]:
    return [0 if prefix is None else prefix.num_virtual_tokens for prefix in model.prefixes]


@pytest.mark.parametrize("name", NAMES)
def test_without_prefixes_is_the_backbone_and_leaves_the_model_as_it_was(name):
    model = with_prefixes(name, "sdpa")
    before, prefixes = outputs(model), model.prefixes
    with running(model, without_prefixes(model)):
        assert torch.equal(outputs(model), outputs(build(name, "sdpa")))
    assert torch.equal(outputs(model), before)
    assert all(one is other for one, other in zip(model.prefixes, prefixes, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_pruned_is_the_model_with_those_tokens_removed(name):
    model = with_prefixes(name, "sdpa")
    lengths = lengths_of(model)
    order = removal_order([np.random.default_rng(layer).random(length) for layer, length in enumerate(lengths)])
    variant = pruned(model, order, 4)
    assert sum(variant.lengths) == 4
    with tokens_kept(model, without_first(order, 4, lengths)):
        expected = outputs(model)
    with running(model, variant):
        torch.testing.assert_close(outputs(model), expected, rtol=1e-4, atol=1e-5)
    assert lengths_of(model) == lengths


@pytest.mark.parametrize("name", ["BERT", "Llama"])
def test_folded_gives_equal_outputs_without_gates(name):
    model = with_prefixes(name, "sdpa", token_gate="static")
    variant = folded(model)
    assert all(prefix.token_gate is None for prefix in variant.prefixes if prefix is not None)
    expected = outputs(model)
    with running(model, variant):
        torch.testing.assert_close(outputs(model), expected, rtol=1e-4, atol=1e-5)
    assert model.prefixes[0].token_gate is not None


@pytest.mark.parametrize("name", ["BERT", "Llama", "T5"])
def test_untrained_has_the_lengths_asked_for_and_takes_nothing_from_the_random_state(name):
    model = with_prefixes(name, "sdpa")
    state = torch.get_rng_state()
    variant = untrained(model, [2] * len(model.prefixes), "two", "uniform")
    assert torch.equal(torch.get_rng_state(), state)
    assert variant.lengths == [2] * len(model.prefixes)
    with running(model, variant):
        assert outputs(model).isfinite().all()


def test_threshold_switches_within_the_variant_only():
    model = with_prefixes("BERT", "sdpa")
    before = outputs(model)
    with tokens_switched(model, 0.5):
        expected = outputs(model)
    with running(model, ModelVariant("half", "switched", model.prefixes, 0.5)):
        assert torch.equal(outputs(model), expected)
    assert torch.equal(outputs(model), before)
