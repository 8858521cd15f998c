"""Behaviour of the token gates and the layer scale."""

from __future__ import annotations

import pytest
import torch

from apt_core.gates import HiddenTokenGate, LayerScale, StaticTokenGate

HIDDEN = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))


def hidden_gate(pooling: str) -> HiddenTokenGate:
    torch.manual_seed(0)
    return HiddenTokenGate(hidden_size=5, num_virtual_tokens=3, pooling=pooling, init_std=0.5)


def test_hidden_token_gate_matches_equation_3():
    gate = hidden_gate("first")
    expected = 1 / (1 + torch.exp(-torch.einsum("bd,pd->bp", HIDDEN[:, 0], gate.weight)))
    torch.testing.assert_close(gate(HIDDEN, None), expected)


def test_hidden_token_gate_per_position_is_one_gate_per_position():
    gate = hidden_gate("per-position")
    assert gate(HIDDEN, None).shape == (2, 4, 3)
    torch.testing.assert_close(gate(HIDDEN, None)[:, 2], hidden_gate("first")(HIDDEN[:, 2:], None))


@pytest.mark.parametrize("mask_kind", ["boolean", "additive", "flat", "none"])
def test_hidden_token_gate_of_the_mean_leaves_padding_out(mask_kind):
    """The first sequence has 4 real positions, the second 3."""
    real = torch.tensor([[True] * 4, [True] * 3 + [False]])
    square = real[:, None, None, :].expand(2, 1, 4, 4)
    mask = {
        "boolean": square,
        "additive": torch.zeros(2, 1, 4, 4).masked_fill(~square, torch.finfo(torch.float32).min),
        "flat": real.long(),
        "none": None,
    }[mask_kind]
    last = 4 if mask_kind == "none" else 3
    pooled = torch.stack([HIDDEN[0].mean(0), HIDDEN[1, :last].mean(0)])
    gate = hidden_gate("mean")
    torch.testing.assert_close(gate(HIDDEN, mask), torch.sigmoid(pooled @ gate.weight.T))


def test_hidden_token_gate_of_the_first_position_ignores_later_ones():
    changed = HIDDEN.clone()
    changed[:, 1:] += 1
    assert torch.equal(hidden_gate("first")(HIDDEN, None), hidden_gate("first")(changed, None))


def test_hidden_token_gate_with_bfloat16_input_computes_in_float32():
    assert hidden_gate("first")(HIDDEN.bfloat16(), None).dtype == torch.float32


def test_hidden_token_gate_with_zero_init_starts_at_one_half():
    gate = HiddenTokenGate(hidden_size=5, num_virtual_tokens=3, pooling="first", init_std=0)
    assert torch.equal(gate(HIDDEN, None), torch.full((2, 3), 0.5))


def test_static_token_gate_starts_at_one_half_for_every_input():
    gate = StaticTokenGate(num_virtual_tokens=3)
    assert torch.equal(gate(HIDDEN, None), torch.full((1, 3), 0.5))


def test_layer_scale_starts_as_identity():
    gate = torch.rand(2, 3)
    assert torch.equal(LayerScale()(gate), gate)
