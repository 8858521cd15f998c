"""Reparameterisation of a prefix: its keys and values come from a small network while it trains.

Li & Liang, 2021 (arXiv 2101.00190), section 4.3; names as in PEFT's ``PrefixTuningConfig``. PEFT has one network for
all layers; here every layer has its own, because layers may have different numbers of virtual tokens. After training
only what it computes is kept. Axes: P virtual tokens, H key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PrefixProjection(nn.Module):
    """Embedding [P, w], linear to ``encoder_hidden_size``, tanh, linear to keys and values; w = H key_size.

    Args:
        num_heads: H.
        key_size: D of the keys.
        value_size: D of the values.
        num_virtual_tokens: P.
        encoder_hidden_size: width between the two linear maps; None: w.
        init_std: standard deviation of the embedding at the start.
    """

    def __init__(
        self,
        num_heads: int,
        key_size: int,
        value_size: int,
        num_virtual_tokens: int,
        encoder_hidden_size: int | None,
        init_std: float,
    ) -> None:
        super().__init__()
        self._heads, self._sizes = num_heads, (key_size, value_size)
        width = num_heads * key_size
        hidden = encoder_hidden_size or width
        self.embedding = nn.Parameter(torch.randn(num_virtual_tokens, width) * init_std)
        self.transform = nn.Sequential(
            nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, num_heads * (key_size + value_size))
        )

    def forward(self) -> tuple[Tensor, Tensor]:
        """Keys [H, P, key_size] and values [H, P, value_size]."""
        joined = self.transform(self.embedding).view(self.embedding.shape[0], self._heads, sum(self._sizes))
        key, value = joined.transpose(0, 1).split(self._sizes, dim=-1)
        return key, value

    def keep(self, tokens: Sequence[int] | Tensor) -> None:
        """Drops all virtual tokens but those with these indices (0 to P - 1)."""
        self.embedding = nn.Parameter(self.embedding.detach()[torch.as_tensor(tokens)].clone())
