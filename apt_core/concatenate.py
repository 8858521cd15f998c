"""Attention with the prefix's keys and values concatenated in front of the main ones.

Axes: B batch, H key/value heads, Q queries, K keys, P virtual tokens, D head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apt_core.attention_call import AttentionCall
from apt_core.errors import AptValueError
from apt_core.masks import extend_mask
from apt_core.prefix import GatedPrefix


def concatenated_attention(call: AttentionCall, prefix: GatedPrefix) -> tuple[Tensor, Tensor | None]:
    """The module's own attention over [prefix; main]: output [B, Q, heads, D] and its weights.

    Raises:
        AptValueError: where flash attention would hide the prefix behind a sliding window or a packed batch.
    """
    length = prefix.key.shape[2]
    if call.is_flash:
        _refuse_what_flash_hides(call, length)
    if call.needs_causal_mask:
        call = call.without_empty_cache()
        queries, keys = call.query.shape[2], length + call.key.shape[2]
        mask = torch.ones(queries, keys, dtype=torch.bool, device=call.query.device).tril(length)[None, None]
    else:
        longer = isinstance(call.mask, Tensor) and not call.is_flash  # a static cache may have a longer mask
        mask = extend_mask(call.mask[..., : call.key.shape[2]] if longer else call.mask, length)
    arguments = dict(call.arguments)
    bias = arguments.get("position_bias")
    if bias is not None:
        arguments["position_bias"] = torch.cat([bias.new_zeros(*bias.shape[:-1], length), bias], dim=-1)
    return call._replace(
        key=_in_front(prefix.key, call.key), value=_in_front(prefix.value, call.value), mask=mask, arguments=arguments
    ).run()


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
