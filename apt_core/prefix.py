"""One layer's virtual tokens: learned keys and values, weighted by their gates.

P'_i = lambda_i * alpha_i (.) P_i (Zhang et al., ACL 2023, arXiv 2305.15212, eq. 4).
Axes: B batch, T sequence, H key/value heads, P virtual tokens, D head size, d hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from apt_core.config import AptConfig
from apt_core.gates import HiddenTokenGate, LayerScale, Pooling, StaticTokenGate
from apt_core.masks import Mask


class LayerShape(NamedTuple):
    """The sizes of one attention module that a prefix must fit."""

    num_heads: int  # key/value heads
    key_size: int
    value_size: int
    hidden_size: int  # of the hidden state that enters the module


class GatedPrefix(NamedTuple):
    """What attention sees of a prefix."""

    key: Tensor  # [B or 1, H, P, key_size]
    value: Tensor  # [B or 1, H, P, value_size]
    query_gate: Tensor | None = None
    """[B, T, P] where the gate differs per query position: it weighs scores and values for each query"""


class LayerPrefix(nn.Module):
    """Virtual tokens of one layer.

    Args:
        shape: sizes of the attention module.
        num_virtual_tokens: P, at least 1.
        config: which gates there are, and what they start from.
        pooling: which hidden state a ``hidden`` token gate looks at.
    """

    def __init__(
        self, shape: LayerShape, num_virtual_tokens: int, config: AptConfig, pooling: Pooling = "first"
    ) -> None:
        super().__init__()
        size = (shape.num_heads, num_virtual_tokens)
        self.key = nn.Parameter(torch.randn(*size, shape.key_size) * config.init_std)
        self.value = nn.Parameter(torch.randn(*size, shape.value_size) * config.init_std)
        self.token_gate: nn.Module | None = None
        if config.token_gate == "hidden":
            self.token_gate = HiddenTokenGate(shape.hidden_size, num_virtual_tokens, pooling, config.gate_init_std)
        elif config.token_gate == "static":
            self.token_gate = StaticTokenGate(num_virtual_tokens)
        self.layer_scale = LayerScale() if config.layer_scale else None

    @property
    def num_virtual_tokens(self) -> int:
        """P."""
        return self.key.shape[1]

    def forward(self, hidden_states: Tensor, mask: Mask = None) -> GatedPrefix:
        """Hidden states entering the layer [B, T, d], and its attention mask, to gated keys and values."""
        gate = self.token_gate(hidden_states, mask) if self.token_gate is not None else None
        if self.layer_scale is not None:
            gate = self.layer_scale(gate if gate is not None else self.key.new_ones(1, 1))
        if gate is None:
            return GatedPrefix(self.key[None], self.value[None])
        if gate.dim() == 3:
            return GatedPrefix(self.key[None], self.value[None], gate)
        weight = gate[:, None, :, None]  # [B or 1, 1, P, 1]
        return GatedPrefix(weight * self.key, weight * self.value)

    def keep(self, tokens: Sequence[int]) -> None:
        """Drops all virtual tokens but those with these indices (0 to P - 1), with their gates."""
        chosen = torch.as_tensor(tokens, device=self.key.device)
        self.key = nn.Parameter(self.key.detach()[:, chosen].clone())
        self.value = nn.Parameter(self.value.detach()[:, chosen].clone())
        if self.token_gate is not None:
            self.token_gate.weight = nn.Parameter(self.token_gate.weight.detach()[chosen].clone())

    def fold(self) -> None:
        """Multiplies keys and values by their gates and drops the gates; outputs stay the same.

        Only for gates that do not depend on the input.
        """
        folded = self(self.key.new_zeros(1, 1, 1))
        self.key = nn.Parameter(folded.key[0].detach().clone())
        self.value = nn.Parameter(folded.value[0].detach().clone())
        self.token_gate = self.layer_scale = None
