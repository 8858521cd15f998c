"""Pruning keeps the tokens with the largest gates; folding leaves the outputs as they are."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from apt_core import AptConfig, AptError, AptModel, get_apt_model


def logits(model, batch) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**batch).logits


@pytest.fixture
def gates() -> np.ndarray:
    return np.array([[0.1, 0.9, 0.5, 0.8], [0.5, 0.5, 0.5, 0.5], [0.4, 0.3, 0.2, 0.1]])


def test_prune_keeps_the_largest_gates_in_their_order(backbone, gates):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=4))
    before = [copy.deepcopy(prefix.state_dict()) for prefix in model.prefixes]
    assert model.prune((2, 3, 0), gates) == ((1, 3), (0, 1, 2), ())
    for layer, tokens in ((0, [1, 3]), (1, [0, 1, 2])):
        after = model.prefixes[layer].state_dict()
        assert torch.equal(after["key"], before[layer]["key"][:, tokens])
        assert torch.equal(after["value"], before[layer]["value"][:, tokens])
        assert torch.equal(after["token_gate.weight"], before[layer]["token_gate.weight"][tokens])
    assert model.prefixes[2] is None
    assert model.apt_config.prefix_lengths == (2, 3, 0)
    assert all(parameter.requires_grad for parameter in model.trained_state_dict().values())


def test_pruning_twice_counts_in_the_unpruned_prefix(backbone, gates):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=4))
    model.prune((3, 4, 1), gates)
    assert model.prune((1, 2, 1), gates[:, 1:]) == ((1,), (0, 1), (0,))
    assert model.apt_config.kept_tokens == ((1,), (0, 1), (0,))


def test_pruned_model_saves_loads_and_computes(backbone, batch, gates, tmp_path):
    frozen = copy.deepcopy(backbone)
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=4))
    model.prune((2, 0, 1), gates)
    model.save_pretrained(tmp_path)
    again = AptModel.from_pretrained(tmp_path, frozen)
    assert torch.equal(logits(again, batch), logits(model, batch))
    assert again.apt_config.kept_tokens == ((1, 3), (), (0,))


def test_pruning_a_layer_away_leaves_it_as_in_the_backbone(backbone, batch):
    expected = logits(copy.deepcopy(backbone), batch)
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=4, token_gate="static"))
    assert not torch.equal(logits(model, batch), expected)
    model.prune((0, 0, 0))
    assert torch.equal(logits(model, batch), expected)


def test_prune_by_static_gates_needs_no_other_numbers(backbone):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=3, token_gate="static"))
    with torch.no_grad():
        model.prefixes[0].token_gate.weight.copy_(torch.tensor([-1.0, 2.0, 0.5]))
    assert model.prune((1, 3, 2)) == ((1,), (0, 1, 2), (0, 1))


@pytest.mark.parametrize("lengths", [(5, 1, 1), (1, 1), (-1, 1, 1)])
def test_prune_to_lengths_that_do_not_fit_raises(backbone, gates, lengths):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=4))
    with pytest.raises(AptError, match=r"accepted: 3 integers, each at most that of \[4, 4, 4\]"):
        model.prune(lengths, gates)


def test_prune_of_hidden_gates_without_numbers_says_where_to_take_them(backbone):
    with pytest.raises(AptError, match="Take a recorded step of the run"):
        get_apt_model(backbone, AptConfig(num_virtual_tokens=4)).prune((1, 1, 1))


@pytest.mark.parametrize(
    ("token_gate", "layer_scale"), [("static", True), ("static", False), ("none", True), ("none", False)]
)
def test_folded_model_gives_the_same_outputs_without_gates(backbone, batch, token_gate, layer_scale):
    model = get_apt_model(backbone, AptConfig(prefix_lengths=(4, 0, 2), token_gate=token_gate, layer_scale=layer_scale))
    with torch.no_grad():
        for parameter in model.trained_state_dict().values():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    expected = logits(model, batch)
    model.fold_gates()
    torch.testing.assert_close(logits(model, batch), expected, atol=1e-6, rtol=1e-6)
    counts = model.count_parameters()
    assert (counts["token_gate"], counts["layer_scale"]) == (0, 0)
    assert (model.apt_config.token_gate, model.apt_config.layer_scale) == ("none", False)


def test_hidden_gates_cannot_be_folded(backbone):
    with pytest.raises(AptError, match="token_gate: got 'hidden'; accepted: 'static' or 'none'"):
        get_apt_model(backbone, AptConfig()).fold_gates()
