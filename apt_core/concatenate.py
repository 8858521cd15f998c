"""Attention with the prefix's keys and values concatenated in front of the main ones.

Axes: B batch, H key/value heads, Q queries, K keys, P virtual tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from apt_core.errors import AptValueError
from apt_core.masks import Mask, extend_mask
from apt_core.prefix import GatedPrefix


def concatenated_attention(
    call: Callable,
    module: Any,
    implementation: str | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Mask,
    prefix: GatedPrefix,
    args: tuple,
    kwargs: dict[str, Any],
) -> tuple[Tensor, Tensor | None]:
    """Calls the module's own attention function on [prefix; main]: output [B, Q, heads, D] and its weights.

    Args:
        call: the implementation, bound to ``module``.
        implementation: its name, as in the config.

    Raises:
        AptValueError: where flash attention would hide the prefix behind a sliding window or a packed batch.
    """
    length = prefix.key.shape[2]
    flash = implementation is not None and "flash" in implementation
    if flash:
        _refuse_what_flash_hides(implementation, key, length, kwargs)
    if mask is None and implementation == "sdpa" and query.shape[2] > 1 and _is_causal(module, kwargs):
        # sdpa's own causal mask is aligned top-left: wrong once there are more keys than queries
        if key.shape[2] > query.shape[2]:  # a static cache at prefill: its tail is still empty
            key, value = key[:, :, : query.shape[2]], value[:, :, : query.shape[2]]
            if kwargs.get("position_bias") is not None:
                kwargs = {**kwargs, "position_bias": kwargs["position_bias"][..., : query.shape[2]]}
        queries, keys = query.shape[2], length + key.shape[2]
        mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(length)[None, None]
    else:
        if isinstance(mask, Tensor) and not flash:
            mask = mask[..., : key.shape[2]]
        mask = extend_mask(mask, length)
    bias = kwargs.get("position_bias")
    if bias is not None:
        kwargs = {**kwargs, "position_bias": torch.cat([bias.new_zeros(*bias.shape[:-1], length), bias], dim=-1)}
    batch = key.shape[0]
    key = torch.cat([prefix.key.to(key.dtype).expand(batch, -1, -1, -1), key], dim=2)
    value = torch.cat([prefix.value.to(value.dtype).expand(batch, -1, -1, -1), value], dim=2)
    return call(query, key, value, mask, *args, **kwargs)


def _is_causal(module: Any, kwargs: dict[str, Any]) -> bool:
    is_causal = kwargs.get("is_causal")
    return bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)


def _refuse_what_flash_hides(implementation: str, key: Tensor, length: int, kwargs: dict[str, Any]) -> None:
    window = kwargs.get("sliding_window")
    if window is not None and key.shape[2] + length > window:
        reason = f"its sliding window of {window} would hide the prefix"
    elif kwargs.get("cu_seq_lens_k") is not None:
        reason = "packed sequences leave no place for a prefix in front of each"
    else:
        return
    raise AptValueError(
        f"attn_implementation: got {implementation!r}, where {reason}; accepted: 'sdpa', 'eager' or 'flex_attention'. "
        "Call model.set_attn_implementation('sdpa')."
    )
