"""Removing virtual tokens while a model runs equals a model that never had them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apt_core import AptConfig, AptError, get_apt_model
from apt_core.removal import order_of, removal_order, tokens_kept, without_first
from benchmarks.architectures import difference, logits
from benchmarks.small_backbones import batch_of, build, is_decoder_only, with_prefixes

BACKBONES = ["BERT", "DeBERTa-v2", "Llama", "T5", "GPT-2"]
LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=6)


def lengths_of(model) -> list[int]:
    return [0 if prefix is None else prefix.num_virtual_tokens for prefix in model.prefixes]


def compared(model, one: torch.Tensor, other: torch.Tensor) -> float:
    real = batch_of(model)["attention_mask"].bool() if is_decoder_only(model) else slice(None)
    return difference(one[real], other[real])


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", BACKBONES)
def test_without_any_token_the_model_is_the_backbone(name, implementation):
    model, batch = with_prefixes(name, implementation), batch_of(build(name))
    expected = logits(build(name, implementation), batch)
    assert compared(model, logits(model, batch), expected) > 1e-3
    with tokens_kept(model, [np.zeros(length, bool) for length in lengths_of(model)]):
        assert compared(model, logits(model, batch), expected) < 1e-6


@pytest.mark.parametrize("token_gate", ["hidden", "static"])
@pytest.mark.parametrize("name", BACKBONES)
def test_keeping_some_tokens_equals_pruning_to_them(name, token_gate):
    model = with_prefixes(name, "sdpa", token_gate)
    lengths, draw = lengths_of(model), np.random.default_rng(0)
    keep = [draw.random(length) < 0.5 for length in lengths]
    keep[0][:] = False  # a whole layer too
    assert 0 < sum(layer.sum() for layer in keep) < sum(lengths)
    batch = batch_of(model)
    with tokens_kept(model, keep):
        kept = logits(model, batch)
    gates = np.zeros((len(lengths), max(lengths)))
    for layer, row in enumerate(keep):
        gates[layer, : len(row)] = row
    model.prune([int(layer.sum()) for layer in keep], gates)
    assert compared(model, kept, logits(model, batch)) < 1e-6


def test_afterwards_the_model_is_as_it_was(backbone, batch):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=4))
    before = logits(model, batch)
    with pytest.raises(RuntimeError), tokens_kept(model, [np.zeros(4, bool)] * 3):
        raise RuntimeError
    assert torch.equal(logits(model, batch), before)


@pytest.mark.parametrize("lengths", [[4, 4], [4, 4, 3]])
def test_masks_that_do_not_fit_are_refused(backbone, lengths):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=4))
    with pytest.raises(AptError, match=r"keep: got .*; accepted: \[4, 4, 4\] booleans"):
        tokens_kept(model, [np.ones(length, bool) for length in lengths])


def test_the_least_important_goes_first_and_of_equal_ones_the_last():
    order = removal_order([np.array([0.5, 0.1]), np.array([]), np.array([0.1, 0.9, 0.0])])
    assert order.tolist() == [4, 2, 1, 0, 3]
    assert removal_order([np.ones(2), np.ones(1)]).tolist() == [2, 1, 0]
    assert removal_order([np.array([])]).tolist() == []


@given(LENGTHS, st.data())
def test_what_is_left_shrinks_token_by_token(lengths, data):
    order = np.array(data.draw(st.permutations(range(sum(lengths)))), int)
    before = [np.ones(length, bool) for length in lengths]
    for kept in range(sum(lengths), -1, -1):
        now = without_first(order, kept, lengths)
        assert [len(layer) for layer in now] == lengths
        assert sum(int(layer.sum()) for layer in now) == kept
        assert all((was | ~has).all() for was, has in zip(before, now, strict=True))
        if kept:
            assert np.concatenate(now)[order[-1]]
        before = now


def test_random_orders_differ_and_reversed_ones_are_reversed():
    importance = {"gate": [np.array([0.3, 0.1]), np.array([0.2])]}
    assert order_of("gate", importance, 0).tolist() == [1, 2, 0]
    assert order_of("gate reversed", importance, 0).tolist() == [0, 2, 1]
    large = {"gate": [np.zeros(50)]}
    draws = [order_of(f"random {number}", large, seed).tolist() for number in (1, 2) for seed in (0, 1)]
    assert all(sorted(draw) == list(range(50)) for draw in draws)
    assert len({tuple(draw) for draw in draws}) == 4
    assert order_of("random 1", large, 0).tolist() == draws[0]
