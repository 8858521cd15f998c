"""Entities of tagged examples: which were found, missed, wrong or invented, by type.

Strict, as the entity F1 of ``apt_core.tasks.token_classification``: an entity is right if its type and both ends are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from apt_core.tasks.tags import well_formed

Span = tuple[str, int, int]
"""type, first word, word after the last, counted from 0"""


class EntityErrors(NamedTuple):
    """How the entities of one type went."""

    name: str
    gold: int
    """entities there are: right + wrong + missed"""
    right: int
    wrong: int
    """with another type or other ends: a predicted entity of any type overlaps it"""
    missed: int
    """nothing predicted overlaps it"""
    invented: int
    """predicted entities of this type that overlap no gold one"""
    predicted: int

    @property
    def precision(self) -> float:
        """Share of the predicted entities of this type that are right; NaN without any."""
        return self.right / self.predicted if self.predicted else np.nan

    @property
    def recall(self) -> float:
        """Share of the gold entities of this type that are found; NaN without any."""
        return self.right / self.gold if self.gold else np.nan

    @property
    def f1(self) -> float:
        """Strict F1, in [0, 1]; NaN where the type neither is there nor is predicted."""
        either = self.gold + self.predicted
        return 2 * self.right / either if either else np.nan


def spans(tags: Sequence[str]) -> frozenset[Span]:
    """The entities that IOB2 tags mark; an I that continues none of its type is read as O."""
    found: list[list] = []
    for place, tag in enumerate(well_formed(list(tags))):
        if tag.startswith("B-"):
            found.append([tag[2:], place, place + 1])
        elif tag.startswith("I-"):
            found[-1][2] = place + 1
    return frozenset(map(tuple, found))


def entity_errors(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> list[EntityErrors]:
    """One entry per entity type that is there or was predicted, in alphabetical order."""
    counts: dict[str, dict[str, int]] = {}
    for tags, guess in zip(gold, predicted, strict=True):
        true, guessed = spans(tags), spans(guess)
        for span in true:
            outcome = "right" if span in guessed else "wrong" if _overlaps(span, guessed) else "missed"
            _count(counts, span[0], "gold", outcome)
        for span in guessed:
            _count(counts, span[0], "predicted", *([] if _overlaps(span, true) else ["invented"]))
    return [EntityErrors(name, **counts[name]) for name in sorted(counts)]


def type_outcomes(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """Entity type -> per example [N] 1 where an entity of it was missed, wrong or invented, 0 where all are right.

    NaN where the example neither has nor was predicted to have an entity of the type.
    """
    outcomes: dict[str, np.ndarray] = {}
    for index, (tags, guess) in enumerate(zip(gold, predicted, strict=True)):
        true, guessed = spans(tags), spans(guess)
        mistaken = {name for name, _, _ in true ^ guessed}
        for name in {name for name, _, _ in true | guessed}:
            outcomes.setdefault(name, np.full(len(gold), np.nan))[index] = float(name in mistaken)
    return dict(sorted(outcomes.items()))


def _overlaps(span: Span, others: frozenset[Span]) -> bool:
    return any(span[1] < end and start < span[2] for _, start, end in others)


def _count(counts: dict[str, dict[str, int]], name: str, *fields: str) -> None:
    of_type = counts.setdefault(name, dict.fromkeys(("gold", "right", "wrong", "missed", "invented", "predicted"), 0))
    for field in fields:
        of_type[field] += 1
