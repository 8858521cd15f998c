"""Leaves out, at inference, the virtual tokens whose gate for this input is under a threshold.

A token that is left out takes no part in the softmax, as if its layer had never had it: this is removing, not weighing
with 0. What is compared is the token gate alpha in (0, 1) of eq. 3 (Zhang et al., 2023), without the layer scale: the
same number means the same for every layer and input, where a scale may be any real number. Gates that differ per
position decide for each query position on its own.

Tokens that no sequence of a batch keeps are cut out of keys and values, and a layer that keeps none is computed as the
backbone's own: with a batch of 1 all of the saving is had. What only some sequences keep is hidden from the others by a
mask. How many columns are left depends on the input, so a compiled graph of fixed shapes cannot hold it.

Axes: B batch, T queries, H key/value heads, P virtual tokens of a layer, D head size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

from torch import Tensor

from apt_core.errors import AptValueError, bad_value

if TYPE_CHECKING:
    from apt_core.model import AptModel


class Switched(NamedTuple):
    """The virtual tokens that some sequence keeps: p of P."""

    key: Tensor  # [H, p, D]
    value: Tensor  # [H, p, D]
    gate: Tensor  # [B or 1, p] or [B, T, p]
    visible: Tensor | None
    """[B or 1, 1 or T, p] which sequence, or query, keeps which of them; None: all keep all"""


def switched(key: Tensor, value: Tensor, gate: Tensor, threshold: float) -> Switched:
    """Leaves out the virtual tokens with a gate under ``threshold``.

    Args:
        key, value: of a layer [H, P, D].
        gate: token gates of an input in (0, 1), [B or 1, P] or [B, T, P].
        threshold: a gate of at least this much keeps its token.
    """
    visible = gate >= threshold
    kept = visible.flatten(end_dim=-2).any(dim=0)  # [P]
    if not kept.all():
        index = kept.nonzero().squeeze(1)
        key, value = key.index_select(1, index), value.index_select(1, index)
        gate, visible = gate.index_select(-1, index), visible.index_select(-1, index)
    if visible.all():
        return Switched(key, value, gate, None)
    return Switched(key, value, gate, visible if gate.dim() == 3 else visible[:, None])


class tokens_switched:
    """Within this context the model leaves out, for each input, the virtual tokens with a gate under ``threshold``.

    Args:
        model: from ``get_apt_model``, with token gates.
        threshold: 0 leaves out nothing: the model bit for bit. Over 1 leaves out everything: the backbone.

    Raises:
        AptValueError: if the threshold is not 0 or larger, or the model has no token gates to compare.
    """

    def __init__(self, model: AptModel, threshold: float) -> None:
        if not threshold >= 0:
            raise bad_value("threshold", threshold, "a token gate, from 0 (leave out nothing) to over 1 (everything)")
        if model.apt_config.token_gate == "none":
            raise AptValueError(
                "token_gate: got 'none'; accepted: 'hidden' or 'static', because without token gates there is nothing "
                "to compare with a threshold."
            )
        self._prefixes = [prefix for prefix in model.prefixes if prefix is not None]
        self._threshold = threshold

    def __enter__(self) -> Self:
        self._before = [prefix.skip_below for prefix in self._prefixes]
        for prefix in self._prefixes:
            prefix.skip_below = self._threshold
        return self

    def __exit__(self, *_: object) -> None:
        for prefix, before in zip(self._prefixes, self._before, strict=True):
            prefix.skip_below = before
