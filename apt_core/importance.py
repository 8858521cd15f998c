"""What every virtual token is worth by itself, from one forward and backward pass over some examples.

Of token j of layer i, with alpha its token gate, lambda the layer's scale and v its value vector (before the gates):

    gate       |lambda| E[alpha]                                              (Zhang et al., ACL 2023, eq. 4)
    norm       |lambda| E[alpha] ||v||_2, all key/value heads together
    attention  E[a], the share a of the softmax that the token is given, over heads, real query positions, examples
    effect     E[|dLoss/dw|] at w = 1, where w weighs the token in the softmax: a = w exp(s) / (w exp(s) + ...)

w = 0 takes the token out of the softmax, so -dLoss/dw is the first-order estimate of what removing it does; setting
its key and value to 0 is not removing, a key of zeros is still attended to. For an output o = sum_k a_k v_k of a
query, do/dw = a (v - o), which needs no weight in the computation: dLoss/dw = sum over heads and queries of
a <dLoss/do, g v - o>, with g the gate where it differs per query (else it is in v). Everything downstream is in
dLoss/do, the gates of later layers too. The absolute value is taken per example, as for the heads of Michel et al.
(NeurIPS 2019, arXiv 1905.10650, eq. 2): near the end of a training the signed mean is close to 0 even for a token that
much hangs on, because what helps one example hurts another.

Axes: B sequences in a batch, Q queries, L layers, P virtual tokens of a layer, D head size, N examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from apt_core.gate_tally import GateTally, real_mean, real_queries
from apt_core.measure_format import Point
from apt_core.model import AptModel
from apt_core.passes import Batch, Outcome, Passes
from apt_core.prefix import GatedPrefix

Importance = list[np.ndarray]
"""[L][P of the layer], each 0 or larger"""


class Importances(NamedTuple):
    """All of ``IMPORTANCES``, and what the model made of the examples on the way."""

    importance: dict[str, Importance]
    full: Point


class PrefixCall(NamedTuple):
    """What one layer's attention did with its prefix, in one forward pass."""

    prefix: GatedPrefix
    share: Tensor
    """[B, heads, Q, P] of the softmax, in [0, 1], without gradient"""
    output: Tensor
    """[B, Q, heads, value_size], part of the graph"""

    def attention(self, real: Tensor) -> Tensor:
        """Share of each token, mean over heads and real queries (boolean [B, Q]): [B, P]."""
        return real_mean(self.share.float().mean(dim=1), real)

    def effect(self, gradient: Tensor) -> Tensor:
        """dLoss/dw of each token and sequence [B, P], from dLoss/d ``output``."""
        gradient, share = gradient.float().transpose(1, 2), self.share.float()  # [B, heads, Q, .]
        value = self.prefix.value.detach().float()
        value = value.repeat_interleave(share.shape[1] // value.shape[1], dim=1)  # [B or 1, heads, P, D]
        through_value = gradient @ value.transpose(-1, -2)  # [B, heads, Q, P]
        if self.prefix.query_gate is not None:
            through_value = through_value * self.prefix.query_gate.detach().float()[:, None]
        through_output = (gradient * self.output.detach().float().transpose(1, 2)).sum(dim=-1, keepdim=True)
        return (share * (through_value - through_output)).sum(dim=(1, 2))


class PrefixWatch:
    """Within this context, collects what attention does with every prefix; nothing stays on the model.

    Args:
        model: from ``get_apt_model``.
    """

    def __init__(self, model: AptModel) -> None:
        self._prefixes = model.prefixes
        self._calls: dict[int, PrefixCall] = {}
        self._handles: list = []

    def __enter__(self) -> Self:
        self._handles = [
            prefix.register_forward_hook(self._hand_on(layer))
            for layer, prefix in enumerate(self._prefixes)
            if prefix is not None
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def take(self) -> dict[int, PrefixCall]:
        """Layer -> its call since the last time; layers without prefix are missing."""
        calls, self._calls = self._calls, {}
        return calls

    def _hand_on(self, layer: int) -> Callable:
        def watched(_: nn.Module, __: tuple, prefix: GatedPrefix) -> GatedPrefix:
            def note(share: Tensor, output: Tensor) -> None:
                self._calls[layer] = PrefixCall(prefix, share, output)

            return prefix._replace(watch=note)

        return watched


def measure_importances(model: AptModel, passes: Passes, batches: list[Batch]) -> Importances:
    """Every importance of every virtual token, over the examples of ``batches``, in evaluation mode.

    Args:
        model: that ``passes`` was made for, in evaluation mode.
        passes: the examples.
        batches: all of them; with its gradients, a batch takes about the memory of a training step.
    """
    sums = {name: [0.0] * len(model.prefixes) for name in ("gate", "attention", "effect")}
    sequences = 0

    def outcomes() -> Iterator[Outcome]:
        nonlocal sequences
        for batch in batches:
            with torch.enable_grad():
                outcome = passes.run(batch)
            calls = watch.take()
            gradients = _gradients(outcome.losses, [call.output for call in calls.values()])
            gates = tally.take()
            for (layer, call), gradient in zip(calls.items(), gradients, strict=True):
                rows = len(call.share)  # more than examples, where an example is several sequences
                reads_source = not model.config.is_encoder_decoder or model._apt_kinds[layer] == "encoder"
                real = real_queries(batch.inputs, call.output, reads_source=reads_source)
                effect = call.effect(gradient).view(len(batch.indices), -1, call.share.shape[-1]).sum(dim=1)
                sums["gate"][layer] += gates[layer].float().expand(rows, -1).sum(dim=0).cpu().numpy()
                sums["attention"][layer] += call.attention(real).sum(dim=0).cpu().numpy()
                sums["effect"][layer] += effect.abs().sum(dim=0).cpu().numpy()
            sequences += rows
            yield outcome

    with PrefixWatch(model) as watch, GateTally(model, training=False, per_sequence=True) as tally:
        full = passes.point_of(batches, outcomes())
    counts = {"gate": sequences, "attention": sequences, "effect": sum(len(batch.indices) for batch in batches)}
    importance: dict[str, Importance] = {name: [] for name in ("gate", "norm", "attention", "effect")}
    for layer, prefix in enumerate(model.prefixes):
        means = {name: np.asarray(sums[name][layer] / counts[name], np.float64) for name in sums}
        if prefix is None:
            means = dict.fromkeys(importance, np.empty(0))
        else:
            with torch.no_grad():
                norm = prefix.keys_and_values()[1].float().pow(2).sum(dim=(0, 2)).sqrt().cpu().numpy()  # [P]
                scale = 1.0 if prefix.layer_scale is None else abs(prefix.layer_scale.weight.item())
            means["gate"] = scale * means["gate"]
            means["norm"] = means["gate"] * norm
        for name in importance:
            importance[name].append(means[name])
    return Importances(importance, full)


def _gradients(losses: Tensor, outputs: list[Tensor]) -> list[Tensor]:
    """Of the sum of the losses that there are, by each output; 0 where nothing hangs on it."""
    losses = losses[~losses.isnan()]
    if not len(losses):
        return [torch.zeros_like(output) for output in outputs]
    return list(torch.autograd.grad(losses.sum(), outputs, allow_unused=True, materialize_grads=True))
