"""Token gates and layer scale: the weights that tell which virtual tokens and layers a task uses.

Zhang et al., ACL 2023, arXiv 2305.15212. Their W_i is ``HiddenTokenGate.weight`` transposed, their lambda_i is
``LayerScale.weight``. Axes: B batch, T sequence, P virtual tokens of the layer, d hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

GATE_INIT_STD = 0.02


class HiddenTokenGate(nn.Module):
    """alpha_i = sigmoid(h_{i-1} W_i) (eq. 3), h taken at the first position of the sequence.

    Args:
        hidden_size: d of the hidden state that enters the layer.
        num_virtual_tokens: P.
    """

    def __init__(self, hidden_size: int, num_virtual_tokens: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_virtual_tokens, hidden_size) * GATE_INIT_STD)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, T, d] to token gates [B, P] in (0, 1)."""
        first = hidden_states[:, 0].to(self.weight.dtype)
        return torch.sigmoid(first @ self.weight.T)


class StaticTokenGate(nn.Module):
    """alpha_i = sigmoid(w_i): one learned value per virtual token, the same for every input (the paper's "w/o h").

    Args:
        num_virtual_tokens: P.
    """

    def __init__(self, num_virtual_tokens: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_virtual_tokens))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Token gates [1, P] in (0, 1); ``hidden_states`` is not looked at."""
        return torch.sigmoid(self.weight)[None]


class LayerScale(nn.Module):
    """lambda_i of eq. 4: a learned multiplier of one layer's prefix, any real number, starts at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, gate: Tensor) -> Tensor:
        """Multiplies token gates [..., P] by the scale."""
        return self.weight * gate
