"""Attention masks: columns added in front for virtual tokens, and which positions are real."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, create_mask

Mask = Tensor | BlockMask | None
"""none, boolean (True: visible) or additive [B, 1 or heads, Q, K], flash's 0/1 [B, K], or flex's block mask"""


def extend_mask(mask: Mask, length: int, visible: Tensor | None = None) -> Mask:
    """Adds ``length`` columns in front: [..., K] to [..., P + K].

    Args:
        mask: of the main keys.
        length: P.
        visible: boolean [B, P], which sequence sees which of them; None: every query sees all.
    """
    if mask is None:
        return None
    if isinstance(mask, BlockMask):
        return _extend_block_mask(mask, length, visible)
    seen = mask.dtype == torch.bool or mask.dim() == 2
    if visible is None:
        front = (mask.new_ones if seen else mask.new_zeros)(*mask.shape[:-1], length)
    else:
        mask = mask.expand(visible.shape[0], *mask.shape[1:])
        columns = visible.to(mask.dtype) if seen else additive(visible, mask.dtype)
        front = columns.view(-1, *[1] * (mask.dim() - 2), length).expand(*mask.shape[:-1], length)
    return torch.cat([front, mask], dim=-1)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask (True: visible) as one that is added to scores: 0 or the lowest number of ``dtype``."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)


def dense_mask(mask: Mask, query: Tensor, key: Tensor) -> Tensor | None:
    """A block mask written out as boolean [B, heads or 1, Q, K]; other masks cut to the keys there are."""
    if isinstance(mask, BlockMask):
        batch, heads = mask.kv_num_blocks.shape[:2]
        return create_mask(mask.mask_mod, batch, heads, query.shape[2], key.shape[2], device=query.device)
    return None if mask is None else mask[..., : key.shape[2]]


def real_positions(mask: Mask, hidden_states: Tensor) -> Tensor | None:
    """Which positions some query may see, as boolean [B, T]; None where all are.

    Args:
        mask: of self-attention over ``hidden_states``.
        hidden_states: [B, T, d].
    """
    if mask is None:
        return None
    batch, length = hidden_states.shape[:2]
    if isinstance(mask, BlockMask):
        mask = create_mask(mask.mask_mod, batch, 1, length, length, device=hidden_states.device)
    if mask.dim() == 2:
        return mask[:, :length].bool().expand(batch, -1)
    visible = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    return visible[..., :length].any(dim=1).any(dim=1).expand(batch, -1)


def _extend_block_mask(mask: BlockMask, length: int, visible: Tensor | None) -> BlockMask:
    main = mask.mask_mod
    batch, heads = mask.kv_num_blocks.shape[:2]
    queries, keys = mask.seq_lengths
    seen = None if visible is None else torch.cat([visible, visible.new_ones(len(visible), keys)], dim=1)

    def with_prefix(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        either = (key < length) | main(batch, head, query, torch.clamp(key - length, min=0))
        return either if seen is None else seen[batch, key] & either

    batch = batch if visible is None else len(visible)
    return create_block_mask(
        with_prefix, batch, None if heads == 1 else heads, queries, keys + length, device=mask.kv_num_blocks.device
    )
