"""Attention with the prefix's keys and values concatenated in front of the main ones.

Axes: B batch, H key/value heads, Q queries, K keys, P virtual tokens, D head size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from apt_core.attention_call import AttentionCall
from apt_core.errors import AptValueError
from apt_core.masks import Mask, additive, extend_mask
from apt_core.prefix import GatedPrefix


def concatenated_attention(call: AttentionCall, prefix: GatedPrefix) -> tuple[Tensor, Tensor | None]:
    """The module's own attention over [prefix; main]: output [B, Q, heads, D] and its weights.

    Where the prefix has a mask, it is one per sequence [B, 1, P].

    Raises:
        AptValueError: where flash attention would hide the prefix behind a sliding window or a packed batch.
    """
    length = prefix.key.shape[2]
    if call.is_flash:
        _refuse_what_flash_hides(call, length)
    if call.needs_causal_mask:
        call = call.without_empty_cache()
        queries, keys = call.query.shape[2], call.key.shape[2]
        main = torch.ones(queries, keys, dtype=torch.bool, device=call.query.device).tril()[None, None]
    else:
        longer = isinstance(call.mask, Tensor) and not call.is_flash  # a static cache may have a longer mask
        main = call.mask[..., : call.key.shape[2]] if longer else call.mask
    visible = None if prefix.visible is None else prefix.visible[:, 0]
    if main is None and visible is not None:
        main = _open_mask(call)
    mask = extend_mask(main, length, visible)
    arguments = dict(call.arguments)
    bias = arguments.get("position_bias")
    if bias is not None:
        arguments["position_bias"] = torch.cat([bias.new_zeros(*bias.shape[:-1], length), bias], dim=-1)
    return call._replace(
        key=_in_front(prefix.key, call.key), value=_in_front(prefix.value, call.value), mask=mask, arguments=arguments
    ).run()


def _open_mask(call: AttentionCall) -> Mask:
    """A mask that hides nothing, in the form that the call's implementation takes."""
    batch, queries, keys = call.query.shape[0], call.query.shape[2], call.key.shape[2]
    device = call.query.device
    if call.is_flash:
        return torch.ones(batch, keys, dtype=torch.bool, device=device)
    if call.implementation == "flex_attention":
        return create_block_mask(lambda _, __, ___, key: key >= 0, batch, None, queries, keys, device=device)
    everything = torch.ones(batch, 1, queries, keys, dtype=torch.bool, device=device)
    return additive(everything, call.query.dtype) if call.is_eager else everything


def _in_front(prefix: Tensor, main: Tensor) -> Tensor:
    return torch.cat([prefix.to(main.dtype).expand(main.shape[0], -1, -1, -1), main], dim=2)


def _refuse_what_flash_hides(call: AttentionCall, length: int) -> None:
    window = call.arguments.get("sliding_window")
    if window is not None and call.key.shape[2] + length > window:
        reason = f"its sliding window of {window} would hide the prefix"
    elif call.arguments.get("cu_seq_lens_k") is not None:
        reason = "packed sequences leave no place for a prefix in front of each"
    else:
        return
    raise AptValueError(
        f"attn_implementation: got {call.implementation!r}, where {reason}; accepted: 'sdpa', 'eager' or "
        "'flex_attention'. Call model.set_attn_implementation('sdpa')."
    )
