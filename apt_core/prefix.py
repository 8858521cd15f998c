"""One layer's virtual tokens: learned keys and values, weighted by their gates.

P'_i = lambda_i * alpha_i (.) P_i (Zhang et al., ACL 2023, arXiv 2305.15212, eq. 4).
Axes: B batch, T sequence, H key/value heads, P virtual tokens, D head size, d hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from apt_core.config import AptConfig
from apt_core.gates import HiddenTokenGate, LayerScale, Pooling, StaticTokenGate
from apt_core.masks import Mask
from apt_core.projection import PrefixProjection
from apt_core.switching import switched


class LayerShape(NamedTuple):
    """The sizes of one attention module that a prefix must fit."""

    num_heads: int  # key/value heads
    key_size: int
    value_size: int
    hidden_size: int  # of the hidden state that enters the module
    num_query_heads: int


class GatedPrefix(NamedTuple):
    """What attention sees of a prefix."""

    key: Tensor  # [B or 1, H, P, key_size]
    value: Tensor  # [B or 1, H, P, value_size]
    query_gate: Tensor | None = None
    """[B, T, P] where the gate differs per query position: it weighs scores and values for each query"""
    watch: Callable[[Tensor, Tensor], None] | None = None
    """told, of the attention call that gets this prefix, the share of the softmax that every virtual token is given
    [B, heads, T, P], without gradient, and the output [B, T, heads, value_size], as it goes on"""
    visible: Tensor | None = None
    """[B, 1 or T, P] which virtual tokens each sequence, or each of its queries, attends to; None: all"""


class LayerPrefix(nn.Module):
    """Virtual tokens of one layer.

    Args:
        shape: sizes of the attention module.
        num_virtual_tokens: P, at least 1.
        config: which gates there are, and what they start from.
        pooling: which hidden state a ``hidden`` token gate looks at.

    Attributes:
        skip_below: token gate under which a virtual token is left out for that input; None, as at first: all take
            part. Set by ``apt_core.switching.tokens_switched``.
    """

    def __init__(
        self, shape: LayerShape, num_virtual_tokens: int, config: AptConfig, pooling: Pooling = "first"
    ) -> None:
        super().__init__()
        self.dropout = config.prefix_dropout
        self.skip_below: float | None = None
        self.projection: PrefixProjection | None = None
        if config.prefix_projection:
            self.projection = PrefixProjection(
                *shape[:3], num_virtual_tokens, config.encoder_hidden_size, config.init_std
            )
            self.register_parameter("key", None)
            self.register_parameter("value", None)
        else:
            size = (shape.num_heads, num_virtual_tokens)
            self.key = nn.Parameter(torch.randn(*size, shape.key_size) * config.init_std)
            self.value = nn.Parameter(torch.randn(*size, shape.value_size) * config.init_std)
        self.token_gate: nn.Module | None = None
        if config.token_gate == "hidden":
            self.token_gate = HiddenTokenGate(
                shape.hidden_size, num_virtual_tokens, pooling, config.gate_init_std, config.gate_init
            )
        elif config.token_gate == "static":
            self.token_gate = StaticTokenGate(num_virtual_tokens, config.gate_init)
        self.layer_scale = LayerScale() if config.layer_scale else None

    @property
    def num_virtual_tokens(self) -> int:
        """P."""
        return self.projection.embedding.shape[0] if self.projection is not None else self.key.shape[1]

    def keys_and_values(self) -> tuple[Tensor, Tensor]:
        """Keys [H, P, key_size] and values [H, P, value_size], without their gates."""
        return self.projection() if self.projection is not None else (self.key, self.value)

    def forward(self, hidden_states: Tensor, mask: Mask = None) -> GatedPrefix:
        """Hidden states entering the layer [B, T, d], and its attention mask, to gated keys and values."""
        device = hidden_states.device.type
        if not torch.is_autocast_enabled(device):
            return self._gated(hidden_states, mask)
        with torch.autocast(device, enabled=False):  # gates are recorded: no rounding to bfloat16
            return self._gated(hidden_states, mask)

    def _gated(self, hidden_states: Tensor, mask: Mask) -> GatedPrefix:
        key, value = self.keys_and_values()
        if self.dropout and self.training:
            key, value = F.dropout(key, self.dropout), F.dropout(value, self.dropout)
        gate = self.token_gate(hidden_states, mask) if self.token_gate is not None else None
        visible = None
        if self.skip_below is not None and gate is not None:
            key, value, gate, visible = switched(key, value, gate, self.skip_below)
        if self.layer_scale is not None:
            gate = self.layer_scale(gate if gate is not None else key.new_ones(1, 1))
        if gate is None:
            return GatedPrefix(key[None], value[None])
        if gate.dim() == 3:
            return GatedPrefix(key[None], value[None], gate, visible=visible)
        weight = gate[:, None, :, None]  # [B or 1, 1, P, 1]
        return GatedPrefix(weight * key, weight * value, visible=visible)

    def keep(self, tokens: Sequence[int]) -> None:
        """Drops all virtual tokens but those with these indices (0 to P - 1), with their gates."""
        if self.projection is not None:
            self.projection.keep(tokens)
        else:
            self.key = nn.Parameter(self.key.detach()[:, torch.as_tensor(tokens)].clone())
            self.value = nn.Parameter(self.value.detach()[:, torch.as_tensor(tokens)].clone())
        if self.token_gate is not None:
            self.token_gate.keep(tokens)

    def fold_projection(self) -> None:
        """Keeps the keys and values that the projection computes, and drops it; outputs stay the same."""
        if self.projection is None:
            return
        key, value = self.projection()
        self.projection = None
        self.key = nn.Parameter(key.detach().clone())
        self.value = nn.Parameter(value.detach().clone())

    def fold_gates(self) -> None:
        """Multiplies keys and values by their gates and drops the gates; outputs stay the same.

        Only for gates that do not depend on the input.
        """
        self.fold_projection()
        training = self.training
        folded = self.eval()(self.key.new_zeros(1, 1, 1))  # without dropout
        self.train(training)
        self.key = nn.Parameter(folded.key[0].detach().clone())
        self.value = nn.Parameter(folded.value[0].detach().clone())
        self.token_gate = self.layer_scale = None
