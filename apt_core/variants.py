"""Ways to run one model with other prefixes, side by side: the backbone is there once, its prefixes are exchanged.

Axes: L layers, P virtual tokens of a layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import torch

from apt_core.attention import attach, detach, prefix_of
from apt_core.inference_format import Kind
from apt_core.model import AptModel
from apt_core.prefix import LayerPrefix
from apt_core.removal import without_first
from apt_core.sites import Site, pooling_of
from apt_core.switching import tokens_switched

Prefixes = Sequence[LayerPrefix | None]
"""of every layer [L]"""


class ModelVariant(NamedTuple):
    """The model with these prefixes, in evaluation mode."""

    name: str
    kind: Kind
    prefixes: Prefixes
    threshold: float | None = None
    """of token gates, see ``tokens_switched``"""

    @property
    def lengths(self) -> list[int]:
        """Virtual tokens per layer [L]."""
        return [0 if prefix is None else prefix.num_virtual_tokens for prefix in self.prefixes]


@contextmanager
def running(model: AptModel, variant: ModelVariant) -> Iterator[None]:
    """Within this context the model has the variant's prefixes; ``apt_config`` and positions stay as they are."""
    before = model.prefixes
    _exchange(model, variant.prefixes)
    try:
        with nullcontext() if variant.threshold is None else tokens_switched(model, variant.threshold):
            yield
    finally:
        _exchange(model, before)


def without_prefixes(model: AptModel) -> ModelVariant:
    """The frozen backbone with the trained head."""
    return ModelVariant("frozen backbone", "backbone", [None] * len(model.prefixes))


def pruned(model: AptModel, order: np.ndarray, kept: int) -> ModelVariant:
    """The model with ``kept`` of its virtual tokens, those last in ``order`` (see ``removal_order``)."""
    lengths = [0 if prefix is None else prefix.num_virtual_tokens for prefix in model.prefixes]
    masks = without_first(order, kept, lengths)
    chosen = _changed(model, lambda layer, prefix: prefix.keep(np.flatnonzero(masks[layer])))
    prefixes = [prefix if prefix is not None and prefix.num_virtual_tokens else None for prefix in chosen]
    return ModelVariant(f"pruned to {kept}", "pruned", prefixes)


def folded(model: AptModel) -> ModelVariant:
    """The model with gates that do not depend on the input multiplied into its keys and values."""
    return ModelVariant("gates folded", "folded", _changed(model, lambda _, prefix: prefix.fold_gates()))


def untrained(model: AptModel, lengths: Sequence[int], name: str, kind: Kind, seed: int = 0) -> ModelVariant:
    """The model with new prefixes of other lengths, from random values: as fast as trained ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        prefixes = [
            LayerPrefix(site.shape, length, model.apt_config, pooling_of(site, model.apt_config)) if length else None
            for site, length in zip(_sites_of(model), lengths, strict=True)
        ]
    return ModelVariant(name, kind, [prefix and prefix.to(model.device) for prefix in prefixes])


def _sites_of(model: AptModel) -> list[Site]:
    return [
        Site(name, model.get_submodule(name), shape, kind, causal=kind != "encoder")
        for name, shape, kind in zip(model._apt_sites, model._apt_shapes, model._apt_kinds, strict=True)
    ]


def _changed(model: AptModel, change: Callable[[int, LayerPrefix], None]) -> list[LayerPrefix | None]:
    """Copies of the model's prefixes, each changed."""
    copies = copy.deepcopy(model.prefixes)
    for layer, prefix in enumerate(copies):
        if prefix is not None:
            change(layer, prefix)
    return copies


def _exchange(model: AptModel, prefixes: Prefixes) -> None:
    for name, prefix in zip(model._apt_sites, prefixes, strict=True):
        module = model.get_submodule(name)
        if prefix_of(module) is not None:
            detach(module)
        if prefix is not None:
            attach(module, prefix)
