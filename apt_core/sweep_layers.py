"""How many layers of a backbone get prefixes, found in a process of its own that has torch; this one stays without."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import NamedTuple

from apt_core.config import AptConfig
from apt_core.errors import AptValueError
from apt_core.tasks.base import TaskData


class Asked(NamedTuple):
    """One backbone with what is to be put on it."""

    model: str
    task: TaskData
    """decides on the head; needs no examples"""
    apt: AptConfig


def count_layers(asked: Sequence[Asked]) -> list[int]:
    """Loads each backbone as a training would, and counts the layers that get prefixes.

    Raises:
        AptError: if one cannot be loaded, or prefixes cannot be put on it, as the training would say it.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # its memory is free again afterwards
            return list(pool.map(_count, asked))
    except BrokenProcessPool as problem:
        models = ", ".join(sorted({each.model for each in asked}))
        raise AptValueError(
            f"model: got {models}; loading it ended the process, as a lack of memory does."
        ) from problem


def _count(asked: Asked) -> int:
    from apt_core.backbones import load_backbone
    from apt_core.model import get_apt_model
    from apt_core.tasks import family_of
    from apt_core.train import quiet_transformers

    quiet_transformers()
    backbone = load_backbone(asked.model, family_of(asked.task).auto_class)
    return len(get_apt_model(backbone.model, asked.apt).prefixes)
