"""Watches the token gates of a model while it runs, and averages them over real positions.

A watcher is put on the gates from outside and taken off again; the model itself keeps no state between calls.
Axes: B batch, T sequence, L layers, P virtual tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from apt_core.model import AptModel
from apt_core.ranks import gathered

IGNORED_LABEL = -100


class GateAverages(NamedTuple):
    """Gates of one optimizer step; NaN where a layer has no such virtual token."""

    token_gate: np.ndarray  # [L, P] in (0, 1)
    token_gate_std: np.ndarray  # [L, P] >= 0, over the examples, or over their real positions
    layer_scale: np.ndarray  # [L]


class GateTally:
    """Collects the token gates of every forward pass in training mode or every one in evaluation mode.

    Args:
        model: from ``get_apt_model``.
        training: which passes are collected.
        per_sequence: for gates that differ per position, True keeps their mean over each sequence's real positions,
            False every real position.
    """

    def __init__(self, model: AptModel, *, training: bool, per_sequence: bool = False) -> None:
        self._prefixes = model.prefixes
        self._kinds = model._apt_kinds
        self._is_encoder_decoder = model.config.is_encoder_decoder
        self._training = training
        self._per_sequence = per_sequence
        self._inputs: dict[str, Any] = {}
        self._seen: list[list[Tensor]] = [[] for _ in self._prefixes]
        self._handles = [model.register_forward_pre_hook(self._note_inputs, with_kwargs=True)]
        self._handles += [
            prefix.token_gate.register_forward_hook(self._watch(layer))
            for layer, prefix in enumerate(self._prefixes)
            if prefix is not None and prefix.token_gate is not None
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Takes the watcher off the model."""
        for handle in self._handles:
            handle.remove()

    def take(self) -> list[Tensor | None]:
        """Token gates since the last call: per layer [rows, P of the layer], or None for a layer without prefix.

        A row is a sequence, or a real position of one. A layer with a prefix but without token gate has gates of 1,
        one row.
        """
        taken: list[Tensor | None] = []
        for prefix, seen in zip(self._prefixes, self._seen, strict=True):
            if prefix is None:
                taken.append(None)
            elif prefix.token_gate is None:
                taken.append(torch.ones(1, prefix.num_virtual_tokens, device=next(prefix.parameters()).device))
            else:
                taken.append(torch.cat(seen) if seen else torch.full((1, prefix.num_virtual_tokens), torch.nan))
            seen.clear()
        return taken

    def discard(self) -> None:
        """Forgets the passes since the last call, of a step that is not recorded."""
        for seen in self._seen:
            seen.clear()

    def average(self) -> GateAverages:
        """Mean and standard deviation over the rows since the last call, and the layer scales as they are now.

        Where several processes train together, over the rows of all of them; all must call it.
        """
        taken = self.take()
        shape = (len(taken), max((gate.shape[1] for gate in taken if gate is not None), default=0))
        averages = GateAverages(
            np.full(shape, np.nan, np.float32),
            np.full(shape, np.nan, np.float32),
            np.full(shape[0], np.nan, np.float32),
        )
        present = [layer for layer, gate in enumerate(taken) if gate is not None]
        if not present:
            return averages
        lengths = [taken[layer].shape[1] for layer in present]
        scales = [
            prefix.layer_scale.weight.detach() if prefix.layer_scale is not None else torch.ones(())
            for prefix in (self._prefixes[layer] for layer in present)
        ]
        # one row per process: rows of each layer, mean and variance of each token, scales; one transfer from the device
        counts = torch.tensor([float(len(taken[layer])) for layer in present])
        tokens = [part.float() for layer in present for part in _mean_and_variance(taken[layer])]
        device = next((part.device for part in tokens if part.device.type != "cpu"), tokens[0].device)
        row = torch.cat([part.to(device) for part in (counts, *tokens, torch.stack(scales).float())])
        rows = gathered(row).cpu().numpy()  # [processes, ...]
        start = len(present)
        for index, (layer, length) in enumerate(zip(present, lengths, strict=True)):
            mean, variance = rows[:, start : start + length], rows[:, start + length : start + 2 * length]
            weight = rows[:, index] / rows[:, index].sum()  # [processes]
            averages.token_gate[layer, :length] = weight @ mean
            spread = variance + (mean - averages.token_gate[layer, :length]) ** 2
            averages.token_gate_std[layer, :length] = np.sqrt(weight @ spread)
            start += 2 * length
        averages.layer_scale[present] = rows[0, start:]
        return averages

    def _note_inputs(self, _: nn.Module, __: tuple, kwargs: dict[str, Any]) -> None:
        self._inputs = kwargs

    def _watch(self, layer: int) -> Callable:
        def note(gate: nn.Module, _: tuple, output: Tensor) -> None:
            if gate.training != self._training:
                return
            output = output.detach()
            self._seen[layer].append(self._rows(output, layer) if output.dim() == 3 else output)

        return note

    def _rows(self, gate: Tensor, layer: int) -> Tensor:
        """[B, T, P] to [B, P] or to [real positions, P]."""
        reads_source = not self._is_encoder_decoder or self._kinds[layer] == "encoder"
        real = real_queries(self._inputs, gate, reads_source=reads_source)
        return real_mean(gate, real) if self._per_sequence else gate[real]


def real_queries(inputs: dict[str, Any], like: Tensor, *, reads_source: bool) -> Tensor:
    """Which query positions of an attention module are no padding, as the model's own inputs tell: boolean [B, T].

    Args:
        inputs: of the model's forward pass, by name.
        like: anything [B, T, ...] that the module made; B counts the sequences, several of one example if it has
            choices.
        reads_source: whether the queries are of the input, not of what a decoder behind an encoder writes.
    """
    if reads_source:
        real = inputs.get("attention_mask")
    else:
        real, labels = inputs.get("decoder_attention_mask"), inputs.get("labels")
        if real is None and labels is not None:  # a classifier's decoder reads the source again
            real = labels != IGNORED_LABEL if labels.dim() == 2 else inputs.get("attention_mask")
    if real is None or real.numel() != like.shape[0] * like.shape[1]:
        return torch.ones(like.shape[:2], dtype=torch.bool, device=like.device)
    return real.reshape(like.shape[:2]).to(like.device).bool()


def real_mean(rows: Tensor, real: Tensor) -> Tensor:
    """Mean over each sequence's real positions: [B, T, P] and boolean [B, T] to [B, P]."""
    weight = real[..., None].to(rows.dtype)
    return (rows * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def _mean_and_variance(rows: Tensor) -> tuple[Tensor, Tensor]:
    return rows.mean(dim=0), rows.var(dim=0, correction=0)
