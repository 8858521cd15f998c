"""Token gates and layer scale: the weights that tell which virtual tokens and layers a task uses.

Zhang et al., ACL 2023, arXiv 2305.15212. Their W_i is ``HiddenTokenGate.weight`` transposed, their lambda_i is
``LayerScale.weight``. Axes: B batch, T sequence, P virtual tokens of the layer, d hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from apt_core.masks import Mask, real_positions

Pooling = Literal["first", "mean", "per-position"]


class HiddenTokenGate(nn.Module):
    """alpha_i = sigmoid(h_{i-1} W_i) (eq. 3).

    Args:
        hidden_size: d of the hidden state that enters the layer.
        num_virtual_tokens: P.
        pooling: which h: that of the first position (the paper's), the mean over the real positions, or each
            position's own. Only the last is right for causal models: the others would show a position its future.
        init_std: standard deviation of W_i at the start.
        init: what gates start near, in (0, 1). Other than 1/2, the sigmoid gets a learned bias, which eq. 3 has not.
    """

    def __init__(
        self, hidden_size: int, num_virtual_tokens: int, pooling: Pooling, init_std: float, init: float = 0.5
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_virtual_tokens, hidden_size) * init_std)
        bias = None if init == 0.5 else nn.Parameter(torch.full((num_virtual_tokens,), _logit(init)))
        self.register_parameter("bias", bias)
        self.pooling = pooling

    def forward(self, hidden_states: Tensor, mask: Mask) -> Tensor:
        """[B, T, d] to token gates in (0, 1): [B, P], or [B, T, P] per position."""
        pooled = self._pooled(hidden_states, mask).to(self.weight.dtype)
        return torch.sigmoid(F.linear(pooled, self.weight, self.bias))

    def keep(self, tokens: Sequence[int]) -> None:
        """Drops all gates but those of these virtual tokens (0 to P - 1)."""
        self.weight = _kept(self.weight, tokens)
        if self.bias is not None:
            self.bias = _kept(self.bias, tokens)

    def _pooled(self, hidden_states: Tensor, mask: Mask) -> Tensor:
        if self.pooling == "per-position":
            return hidden_states
        if self.pooling == "first":
            return hidden_states[:, 0]
        real = real_positions(mask, hidden_states)
        if real is None:
            return hidden_states.mean(dim=1)
        weight = real.to(hidden_states.dtype)[..., None]  # [B, T, 1]
        return (hidden_states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


class StaticTokenGate(nn.Module):
    """alpha_i = sigmoid(w_i): one learned value per virtual token, the same for every input (the paper's "w/o h").

    Args:
        num_virtual_tokens: P.
        init: what gates start at, in (0, 1).
    """

    def __init__(self, num_virtual_tokens: int, init: float = 0.5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((num_virtual_tokens,), _logit(init)))

    def forward(self, hidden_states: Tensor, mask: Mask) -> Tensor:
        """Token gates [1, P] in (0, 1); the input is not looked at."""
        return torch.sigmoid(self.weight)[None]

    def keep(self, tokens: Sequence[int]) -> None:
        """Drops all gates but those of these virtual tokens (0 to P - 1)."""
        self.weight = _kept(self.weight, tokens)


class LayerScale(nn.Module):
    """lambda_i of eq. 4: a learned multiplier of one layer's prefix, any real number, starts at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, gate: Tensor) -> Tensor:
        """Multiplies token gates [..., P] by the scale."""
        return self.weight * gate


def _logit(gate: float) -> float:
    return math.log(gate / (1 - gate))


def _kept(parameter: nn.Parameter, tokens: Sequence[int]) -> nn.Parameter:
    return nn.Parameter(parameter.detach()[torch.as_tensor(tokens)].clone())
