"""Attention over the prefix apart from the main keys, the two merged through their log-sum-exp.

Where concatenation cannot serve: a gate that differs per query position weighs scores and values of the prefix for
each query on its own, and prepending to a long key/value cache would copy it at every decoding step.

With s = q k^T the main scores, r = g (.) q p_k^T the gated prefix scores and L = logaddexp(lse(s), lse(r)):

    out = exp(lse(s) - L) attention(q, k, v) + (exp(r - L) (.) g) p_v

Axes: B batch, H heads, Q queries, K keys, P virtual tokens, D head size. g is the query gate [B, Q, P].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from apt_core.attention_call import AttentionCall
from apt_core.errors import AptValueError
from apt_core.masks import additive, dense_mask
from apt_core.prefix import GatedPrefix

_fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_fused_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Scores(NamedTuple):
    """How the main scores are formed, whatever the implementation."""

    scaling: float
    dropout: float
    softcap: float | None
    sinks: Tensor | None

    @classmethod
    def of(cls, call: AttentionCall) -> Scores:
        scaling = call.arguments.get("scaling")
        return cls(
            scaling=call.query.shape[-1] ** -0.5 if scaling is None else scaling,
            dropout=call.arguments.get("dropout") or 0.0,
            softcap=call.arguments.get("softcap"),
            sinks=call.arguments.get("s_aux"),
        )


class _Parts(NamedTuple):
    """A call and its prefix, ready for the formulas above: one mask, and a prefix with as many heads as the query.

    A single query whose heads share keys stands as one query for each of them, [B, H, heads / H, D]: a key/value cache
    is then read as it is, not copied for every head. Only without gradients: its gate is one for all of these rows.
    """

    query: Tensor  # [B, heads, Q, D]
    key: Tensor  # [B, H, K, D], fewer heads than the query's where they share them
    value: Tensor
    mask: Tensor | None
    """additive, with position bias and causality in it"""
    prefix: GatedPrefix
    scores: Scores

    @classmethod
    def of(cls, call: AttentionCall, prefix: GatedPrefix) -> _Parts:
        if call.is_flash:
            raise AptValueError(
                f"attn_implementation: got {call.implementation!r}; accepted: 'sdpa', 'eager' or 'flex_attention' "
                "where gates differ per position or attention is measured. Call model.set_attn_implementation('sdpa')."
            )
        causal = call.needs_causal_mask
        if causal:
            call = call.without_empty_cache()
        query, key = call.query, call.key
        mask = _additive(dense_mask(call.mask, query, key), call.arguments.get("position_bias"), causal, query, key)
        if _is_decoding(call) and query.shape[1] != key.shape[1]:
            batch, heads, _, size = query.shape
            query = query.reshape(batch, key.shape[1], -1, size)
            if mask is not None and mask.shape[1] == heads:
                mask = mask.reshape(mask.shape[0], key.shape[1], -1, mask.shape[-1])
        return cls(query, key, call.value, mask, _matching(prefix, query), Scores.of(call))


def split_attention(call: AttentionCall, prefix: GatedPrefix) -> tuple[Tensor, Tensor | None]:
    """Output [B, Q, heads, D] and, for eager attention, the weights [B, heads, Q, P + K].

    Raises:
        AptValueError: for flash attention, which does not give its log-sum-exp away.
    """
    parts = _Parts.of(call, prefix)
    shape, weights = call.query.shape[:3], None
    if _can_fuse(parts, call):
        query, key, value, mask, prefix, scores = parts
        output = _Fused.apply(
            query, key, value, prefix.key, prefix.value, prefix.query_gate, prefix.visible, mask, scores.scaling
        )
    else:
        output, weights = _explicit(call.module, parts)
    output = output.reshape(*shape, -1).transpose(1, 2).contiguous()
    return output, weights.reshape(*shape, -1) if call.is_eager else None


@torch.no_grad()
def prefix_shares(call: AttentionCall, prefix: GatedPrefix) -> Tensor:
    """Share of the softmax that each virtual token is given [B, heads, Q, P], in [0, 1], without gradient.

    Written out, because no implementation but eager tells; before the gate per position, which weighs what is read.

    Raises:
        AptValueError: for flash attention, whose masks are not written out.
    """
    weights = _weights(_Parts.of(call, prefix)).reshape(*call.query.shape[:3], -1)
    return weights[..., : prefix.key.shape[2]]


def _is_decoding(call: AttentionCall) -> bool:
    """Whether there is one query and no gradient is wanted."""
    return call.query.shape[2] == 1 and not torch.is_grad_enabled()


def _per_query_head(shared: Tensor, query: Tensor) -> Tensor:
    """Keys or values [B, H, K, D], repeated to the query's heads [B, heads, K, D]."""
    repeats = query.shape[1] // shared.shape[1]
    return shared if repeats == 1 else shared.repeat_interleave(repeats, dim=1)


def _matching(prefix: GatedPrefix, query: Tensor) -> GatedPrefix:
    gate = None if prefix.query_gate is None else prefix.query_gate.to(query.dtype)
    key, value = (_per_query_head(part, query).to(query.dtype) for part in (prefix.key, prefix.value))
    return prefix._replace(key=key, value=value, query_gate=gate)


def _additive(mask: Tensor | None, bias: Tensor | None, causal: bool, query: Tensor, key: Tensor) -> Tensor | None:
    """Mask, position bias and causality as one additive mask; None where everything is visible."""
    if causal:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()[None, None]
    if mask is not None and mask.dtype == torch.bool:
        mask = additive(mask, query.dtype)
    if bias is not None:
        bias = bias[..., : key.shape[2]]
        mask = bias if mask is None else bias + mask
    return None if mask is None else mask.to(query.dtype)


def _seen(front: Tensor, visible: Tensor | None) -> Tensor:
    """Scores of the prefix [B, heads, Q, P], minus infinity where a virtual token is not visible [B, 1 or Q, P]."""
    return front if visible is None else front.masked_fill(~visible[:, None], -torch.inf)


def _can_fuse(parts: _Parts, call: AttentionCall) -> bool:
    """Whether the fused kernel serves. For a single query, whose scores are small, writing them out is faster."""
    query, key, value, mask, _, scores = parts
    return (
        not call.is_eager
        and query.device.type == "cpu"
        and scores.dropout == 0
        and scores.softcap is None
        and scores.sinks is None
        and key.shape[-1] == value.shape[-1]
        and not (mask is not None and mask.requires_grad)
        and not (_is_decoding(call) and query.dtype == torch.float32)
    )


class _Fused(torch.autograd.Function):
    """The fused CPU kernel for the main part; its own backward, fed with the merged output and the merged
    log-sum-exp, gives the exact gradients of the main part. Keys and values that heads share are read in place: a
    key/value cache is not copied."""

    @staticmethod
    def forward(ctx, query, key, value, prefix_key, prefix_value, gate, visible, mask, scaling):
        main, main_lse = _fused(query, key, value, 0.0, False, attn_mask=mask, scale=scaling)
        raw = query @ prefix_key.transpose(-1, -2) * scaling  # [B, H, Q, P]
        gated = _seen(raw if gate is None else raw * gate[:, None], visible)
        lse = torch.logaddexp(main_lse, gated.float().logsumexp(-1))
        weight = torch.exp(gated - lse[..., None]).to(query.dtype)
        weight_gated = weight if gate is None else weight * gate[:, None]
        output = main * torch.exp(main_lse - lse)[..., None].to(query.dtype) + weight_gated @ prefix_value
        ctx.save_for_backward(query, key, value, prefix_key, prefix_value, gate, visible, mask, output, lse)
        ctx.scaling = scaling
        return output

    @staticmethod
    def backward(ctx, grad):
        query, key, value, prefix_key, prefix_value, gate, visible, mask, output, lse = ctx.saved_tensors
        scaling = ctx.scaling
        raw = query @ prefix_key.transpose(-1, -2) * scaling
        gated = _seen(raw if gate is None else raw * gate[:, None], visible)
        weight = torch.exp(gated - lse[..., None]).to(query.dtype)
        through_value = grad @ prefix_value.transpose(-1, -2)
        through_gate = through_value if gate is None else through_value * gate[:, None]
        grad_gated = weight * (through_gate - (grad * output).sum(-1, keepdim=True))
        grad_gate = None if gate is None else (grad_gated * raw + weight * through_value).sum(1)
        grad_raw = grad_gated if gate is None else grad_gated * gate[:, None]
        grad_query = grad_key = grad_value = None
        if any(ctx.needs_input_grad[:3]):
            grad_query, grad_key, grad_value = _fused_backward(
                grad.contiguous(), query, key, value, output, lse, 0.0, False, attn_mask=mask, scale=scaling
            )
            grad_query = grad_query + grad_raw @ prefix_key * scaling
        grad_prefix_key = grad_raw.transpose(-1, -2) @ query * scaling
        weight_gated = weight if gate is None else weight * gate[:, None]
        grad_prefix_value = weight_gated.transpose(-1, -2) @ grad
        if prefix_key.shape[0] == 1:
            grad_prefix_key = grad_prefix_key.sum(0, keepdim=True)
            grad_prefix_value = grad_prefix_value.sum(0, keepdim=True)
        return grad_query, grad_key, grad_value, grad_prefix_key, grad_prefix_value, grad_gate, None, None, None


def _weights(parts: _Parts) -> Tensor:
    """The softmax over prefix, main keys and sinks, written out: [B, heads, Q, P + K] and a column of sinks."""
    query, key, _, mask, prefix, scores = parts
    scaled = query * scores.scaling
    main = scaled @ _per_query_head(key, query).transpose(-1, -2)
    front = scaled @ prefix.key.transpose(-1, -2)
    if prefix.query_gate is not None:
        front = front * prefix.query_gate[:, None]
    if scores.softcap is not None:
        main, front = (scores.softcap * torch.tanh(part / scores.softcap) for part in (main, front))
    if mask is not None:
        main = main + mask
    columns = [_seen(front, prefix.visible), main]
    if scores.sinks is not None:
        columns.append(scores.sinks.view(1, main.shape[1], -1, 1).expand(*main.shape[:3], 1).to(main.dtype))
    return torch.softmax(torch.cat(columns, dim=-1), dim=-1, dtype=torch.float32).to(query.dtype)


def _explicit(module: Any, parts: _Parts) -> tuple[Tensor, Tensor]:
    """The same written out: output [B, heads, Q, D] and weights [B, heads, Q, P + K].

    For dropout, softcap, sinks, a trained bias, devices without the fused kernel, and decoding.
    """
    prefix, value = parts.prefix, _per_query_head(parts.value, parts.query)
    weights = _weights(parts)
    if parts.scores.dropout and module.training:
        weights = F.dropout(weights, parts.scores.dropout)
    length = prefix.key.shape[2]
    on_prefix, on_main = weights[..., :length], weights[..., length : length + value.shape[2]]
    if prefix.query_gate is not None:
        on_prefix = on_prefix * prefix.query_gate[:, None]
    return on_prefix @ prefix.value + on_main @ value, weights[..., : length + value.shape[2]]
