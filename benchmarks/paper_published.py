"""Numbers that others have published for the same methods and tasks, with where they stand. Nothing here is ours."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """One number."""

    task: str
    method: str
    """a key of ``METHODS``"""
    model: str
    """name on the Hugging Face Hub"""
    value: float
    """of the task's metric, in [0, 1]"""
    source: str
    protocol: str
    """in what it differs from ours, beside the backbone"""


_README = "Liu et al., ACL 2022, their own re-implementation: README of github.com/THUDM/P-tuning-v2"
_PROTOCOL = "on the development split, at the epoch that was best there"

PUBLISHED = (
    Published("copa", "pt2", "google-bert/bert-large-cased", 0.770, _README, _PROTOCOL),
    Published("copa", "pt2", "FacebookAI/roberta-large", 0.920, _README, _PROTOCOL),
)


def published_for(task: str) -> list[Published]:
    """What is known of a task, all of its data used."""
    return [each for each in PUBLISHED if each.task == task.split(":")[0]]
