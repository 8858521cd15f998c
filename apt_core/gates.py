"""Token gates and layer scale: the weights that tell which virtual tokens and layers a task uses.

Zhang et al., ACL 2023, arXiv 2305.15212. Their W_i is ``HiddenTokenGate.weight`` transposed, their lambda_i is
``LayerScale.weight``. Axes: B batch, T sequence, P virtual tokens of the layer, d hidden size.
"""

from __future__ import annotations

from typing import Literal

import torch
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
        init_std: standard deviation of W_i at the start; gates start near 1/2.
    """

    def __init__(self, hidden_size: int, num_virtual_tokens: int, pooling: Pooling, init_std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_virtual_tokens, hidden_size) * init_std)
        self.pooling = pooling

    def forward(self, hidden_states: Tensor, mask: Mask) -> Tensor:
        """[B, T, d] to token gates in (0, 1): [B, P], or [B, T, P] per position."""
        return torch.sigmoid(self._pooled(hidden_states, mask).to(self.weight.dtype) @ self.weight.T)

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
    """

    def __init__(self, num_virtual_tokens: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_virtual_tokens))

    def forward(self, hidden_states: Tensor, mask: Mask) -> Tensor:
        """Token gates [1, P] in (0, 1); the input is not looked at."""
        return torch.sigmoid(self.weight)[None]


class LayerScale(nn.Module):
    """lambda_i of eq. 4: a learned multiplier of one layer's prefix, any real number, starts at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, gate: Tensor) -> Tensor:
        """Multiplies token gates [..., P] by the scale."""
        return self.weight * gate
