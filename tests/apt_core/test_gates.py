"""Behaviour of the token gates and the layer scale."""

from __future__ import annotations

import torch

from apt_core.gates import HiddenTokenGate, LayerScale, StaticTokenGate


def test_hidden_token_gate_matches_equation_3():
    torch.manual_seed(0)
    gate = HiddenTokenGate(hidden_size=5, num_virtual_tokens=3)
    hidden = torch.randn(2, 4, 5)
    expected = 1 / (1 + torch.exp(-torch.einsum("bd,pd->bp", hidden[:, 0], gate.weight)))
    torch.testing.assert_close(gate(hidden), expected)


def test_hidden_token_gate_ignores_later_positions():
    torch.manual_seed(0)
    gate = HiddenTokenGate(hidden_size=5, num_virtual_tokens=3)
    hidden = torch.randn(2, 4, 5)
    changed = hidden.clone()
    changed[:, 1:] += 1
    assert torch.equal(gate(hidden), gate(changed))


def test_hidden_token_gate_with_bfloat16_input_computes_in_float32():
    gate = HiddenTokenGate(hidden_size=5, num_virtual_tokens=3)
    assert gate(torch.randn(2, 4, 5, dtype=torch.bfloat16)).dtype == torch.float32


def test_static_token_gate_starts_at_one_half_for_every_input():
    gate = StaticTokenGate(num_virtual_tokens=3)
    assert torch.equal(gate(torch.randn(2, 4, 5)), torch.full((1, 3), 0.5))


def test_layer_scale_starts_as_identity():
    gate = torch.rand(2, 3)
    assert torch.equal(LayerScale()(gate), gate)
