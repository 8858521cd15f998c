"""Runs a model without some of its virtual tokens, as if they had never been there; nothing is changed for good.

Axes: B batch, T sequence, H key/value heads, P virtual tokens of a layer, D head size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from apt_core.errors import AptValueError, bad_value
from apt_core.measure_format import RANDOM, REVERSED
from apt_core.model import AptModel
from apt_core.prefix import GatedPrefix


class tokens_kept:
    """Within this context the model attends only to the virtual tokens that ``keep`` names.

    A token that is not kept takes no part in the softmax: this is removing, not weighing with 0, after which a key of
    zeros would still be given attention. Position ids that count virtual tokens (``shift_positions``) stay as they are.

    Args:
        model: from ``get_apt_model``.
        keep: per layer (L entries) a boolean [P]; entries of layers without prefix are empty.

    Raises:
        AptValueError: if ``keep`` does not fit the model's lengths.
    """

    def __init__(self, model: AptModel, keep: Sequence[np.ndarray]) -> None:
        lengths = [0 if prefix is None else prefix.num_virtual_tokens for prefix in model.prefixes]
        if [len(layer) for layer in keep] != lengths:
            raise bad_value("keep", [len(layer) for layer in keep], f"{lengths} booleans, one per virtual token")
        self._model, self._keep = model, [np.asarray(layer, bool) for layer in keep]
        self._handles: list = []

    def __enter__(self) -> Self:
        for prefix, keep in zip(self._model.prefixes, self._keep, strict=True):
            if prefix is not None and not keep.all():
                self._handles.append(prefix.register_forward_hook(_selecting(keep)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def removal_order(importance: Sequence[np.ndarray]) -> np.ndarray:
    """All virtual tokens, the least important first: places [total] in the layers put end to end.

    Args:
        importance: per layer (L entries) [P of the layer]; of equal ones the last layer's last token goes first, so
            that what is left is what a budget of as many tokens has.
    """
    values = np.concatenate([*map(np.asarray, importance), []])
    return np.lexsort((-np.arange(values.size), values))


def order_of(name: str, importance: Mapping[str, Sequence[np.ndarray]], seed: int) -> np.ndarray:
    """The order in which a curve of this name removes virtual tokens, see ``removal_order``.

    Args:
        name: as in ``Curve.order``.
        importance: key of ``IMPORTANCES`` -> [L][P].
        seed: of the random orders.
    """
    if name.startswith(RANDOM):
        total = sum(map(len, importance["gate"]))
        return np.random.default_rng([seed, int(name.removeprefix(RANDOM))]).permutation(total)
    order = removal_order(importance[name.removesuffix(REVERSED)])
    return order[::-1] if name.endswith(REVERSED) else order


def without_first(order: np.ndarray, kept: int, lengths: Sequence[int]) -> list[np.ndarray]:
    """What ``tokens_kept`` takes, once all but the last ``kept`` of ``order`` are removed.

    Args:
        order: from ``removal_order``, or any permutation of 0 to total - 1.
        kept: how many are left, 0 to total.
        lengths: virtual tokens per layer (L integers).
    """
    flat = np.zeros(sum(lengths), bool)
    flat[order[len(order) - kept :]] = True
    return np.split(flat, np.cumsum(lengths)[:-1])


def _selecting(keep: np.ndarray):
    indices = torch.from_numpy(np.flatnonzero(keep))

    def select(module: nn.Module, _: tuple, prefix: GatedPrefix) -> GatedPrefix:
        if module.skip_below is not None:
            raise AptValueError("tokens_kept: got a model within tokens_switched; accepted: one or the other.")
        index = indices.to(prefix.key.device)
        gate: Tensor | None = None if prefix.query_gate is None else prefix.query_gate.index_select(2, index)
        key, value = prefix.key.index_select(2, index), prefix.value.index_select(2, index)
        return prefix._replace(key=key, value=value, query_gate=gate)

    return select
