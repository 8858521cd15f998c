"""Watches the token gates of a model while it runs, and averages them.

A watcher is put on the gates from outside and taken off again; the model itself keeps no state between calls.
Axes: B batch, L layers, P virtual tokens.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from apt_core.model import AptModel


class GateAverages(NamedTuple):
    """Gates of one optimizer step; NaN where a layer has no such virtual token."""

    token_gate: np.ndarray  # [L, P] in (0, 1)
    token_gate_std: np.ndarray  # [L, P] >= 0, over the examples
    layer_scale: np.ndarray  # [L]


class GateTally:
    """Collects the token gates of every forward pass in training mode or every one in evaluation mode.

    Args:
        model: from ``get_apt_model``.
        training: which passes are collected.
    """

    def __init__(self, model: AptModel, *, training: bool) -> None:
        self._prefixes = model.prefixes
        self._training = training
        self._seen: list[list[Tensor]] = [[] for _ in self._prefixes]
        self._handles = [
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
        """Token gates since the last call: per layer [B, P of the layer], or None for a layer without prefix.

        A layer with a prefix but without token gate has gates of 1, one row.
        """
        taken: list[Tensor | None] = []
        for prefix, seen in zip(self._prefixes, self._seen, strict=True):
            if prefix is None:
                taken.append(None)
            elif prefix.token_gate is None:
                taken.append(torch.ones(1, prefix.num_virtual_tokens))
            else:
                taken.append(torch.cat(seen) if seen else torch.full((1, prefix.num_virtual_tokens), torch.nan))
            seen.clear()
        return taken

    def average(self) -> GateAverages:
        """Mean and standard deviation over the examples since the last call, and the layer scales as they are now."""
        taken = self.take()
        shape = (len(taken), max((gate.shape[1] for gate in taken if gate is not None), default=0))
        averages = GateAverages(
            np.full(shape, np.nan, np.float32),
            np.full(shape, np.nan, np.float32),
            np.full(shape[0], np.nan, np.float32),
        )
        for layer, (prefix, gate) in enumerate(zip(self._prefixes, taken, strict=True)):
            if prefix is None:
                continue
            length = gate.shape[1]
            averages.token_gate[layer, :length] = gate.mean(dim=0).float().cpu()
            averages.token_gate_std[layer, :length] = gate.std(dim=0, correction=0).float().cpu()
            averages.layer_scale[layer] = prefix.layer_scale.weight.item() if prefix.layer_scale is not None else 1.0
        return averages

    def _watch(self, layer: int):
        def note(gate: nn.Module, _: tuple, output: Tensor) -> None:
            if gate.training == self._training:
                self._seen[layer].append(output.detach())

        return note
