"""Counts virtual tokens as positions, as PEFT does: the text begins at position P."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from apt_core.model import AptModel


def shift_positions(model: AptModel, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Lets the text begin at position P; positions that are given are the text's own and move with it."""
    text = kwargs.get("input_ids", kwargs.get("inputs_embeds", args[0] if args else None))
    if not model.apt_config.shift_positions or text is None:
        return args, kwargs
    start, positions = model.apt_config.prefix_lengths[0], kwargs.get("position_ids")
    if positions is None:
        cache = kwargs.get("past_key_values")
        seen = int(cache.get_seq_length()) if cache is not None else 0
        own = getattr(model.base_model, "embeddings", None)
        if not hasattr(own, "create_position_ids_from_input_ids"):
            own = None
        if own is not None and not text.is_floating_point():  # RoBERTa and its kin begin behind the padding's own
            positions = own.create_position_ids_from_input_ids(text, own.padding_idx, seen + start)
            return args, {**kwargs, "position_ids": positions}
        if own is not None:
            start += own.padding_idx + 1
        length = text.shape[1] if kwargs.get("input_ids") is None and text.dim() == 3 else text.shape[-1]
        positions = torch.arange(seen, seen + length, device=text.device)[None]
    return args, {**kwargs, "position_ids": positions + start}
