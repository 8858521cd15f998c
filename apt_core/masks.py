"""Attention masks with columns added in front for virtual tokens, which every query may see."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask


def extend_mask(mask: Tensor | BlockMask | None, length: int) -> Tensor | BlockMask | None:
    """Adds ``length`` visible columns in front: [..., K] to [..., P + K].

    Args:
        mask: none, boolean (True: visible) or additive [B, 1 or heads, Q, K], flash's 0/1 mask [B, K], or flex's
            block mask.
        length: P.
    """
    if mask is None:
        return None
    if isinstance(mask, BlockMask):
        return _extend_block_mask(mask, length)
    visible = mask.new_ones if mask.dtype == torch.bool or mask.dim() == 2 else mask.new_zeros
    return torch.cat([visible(*mask.shape[:-1], length), mask], dim=-1)


def _extend_block_mask(mask: BlockMask, length: int) -> BlockMask:
    main = mask.mask_mod

    def with_prefix(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key < length) | main(batch, head, query, torch.clamp(key - length, min=0))

    batch, heads = mask.kv_num_blocks.shape[:2]
    queries, keys = mask.seq_lengths
    return create_block_mask(
        with_prefix, batch, None if heads == 1 else heads, queries, keys + length, device=mask.kv_num_blocks.device
    )
