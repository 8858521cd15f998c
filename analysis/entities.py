"""Entities of tagged examples: which were found, missed, wrong or invented, by type.

Strict, as the entity F1 of ``apt_core.tasks.token_classification``: an entity is right if its type and both ends are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from itertools import islice, takewhile
from typing import NamedTuple

import numpy as np

from apt_core.tasks.tags import well_formed

ARROW = " → "
"""from gold to predicted"""
OTHER_ENDS = " (other ends)"
MAX_NAMES = 500
"""types, or pairs of them, that examples are compared by"""
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
        in_true, in_guessed = _Places(true), _Places(guessed)
        for span in true:
            outcome = "right" if span in guessed else "wrong" if in_guessed.overlapping(span) else "missed"
            _count(counts, span[0], "gold", outcome)
        for span in guessed:
            _count(counts, span[0], "predicted", *([] if in_true.overlapping(span) else ["invented"]))
    return [EntityErrors(name, **counts[name]) for name in sorted(counts)]


def type_outcomes(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """Entity type -> per example [N] 1 where an entity of it was missed, wrong or invented, 0 where all are right.

    -1 where the example neither has nor was predicted to have an entity of the type. Of many types the ``MAX_NAMES``
    that most examples have.
    """
    found: dict[str, dict[int, bool]] = {}
    for index, (tags, guess) in enumerate(zip(gold, predicted, strict=True)):
        true, guessed = spans(tags), spans(guess)
        mistaken = {name for name, _, _ in true ^ guessed}
        for name in {name for name, _, _ in true | guessed}:
            found.setdefault(name, {})[index] = name in mistaken
    outcomes = {name: np.full(len(gold), -1, np.int8) for name in _most_frequent(found)}
    for name, outcome in outcomes.items():
        outcome[list(found[name])] = list(found[name].values())
    return dict(sorted(outcomes.items()))


def confusion_outcomes(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """Gold type → predicted type, as one name: per example [N] 1 where an entity was taken so, 0 elsewhere.

    The pairs that most examples have come first. Entities that overlap are a pair, ``(other ends)`` added where the
    type is the same and an end is not. ``O`` stands for no entity: on the right the entity was missed, on the left
    invented. Of many pairs the ``MAX_NAMES`` that most examples have.
    """
    found: dict[str, list[int]] = {}
    for index, (tags, guess) in enumerate(zip(gold, predicted, strict=True)):
        for pair in _pairs(spans(tags), spans(guess)):
            found.setdefault(pair, []).append(index)
    outcomes = {pair: np.zeros(len(gold), np.int8) for pair in _most_frequent(found)}
    for pair, outcome in outcomes.items():
        outcome[found[pair]] = 1
    return outcomes


def _most_frequent(found: Mapping[str, Collection[int]]) -> list[str]:
    return sorted(found, key=lambda name: (-len(found[name]), name))[:MAX_NAMES]


def _pairs(true: frozenset[Span], guessed: frozenset[Span]) -> set[str]:
    in_true, in_guessed = _Places(true), _Places(guessed)
    pairs = {
        f"{one[0]}{ARROW}{other[0]}" + (OTHER_ENDS if one[0] == other[0] and one != other else "")
        for one in true
        for other in in_guessed.overlapping(one)
    }
    pairs |= {f"{span[0]}{ARROW}O" for span in true if not in_guessed.overlapping(span)}
    return pairs | {f"O{ARROW}{span[0]}" for span in guessed if not in_true.overlapping(span)}


class _Places:
    """Spans of one text, which do not overlap each other, found by their place."""

    def __init__(self, spans: frozenset[Span]) -> None:
        self._spans = sorted(spans, key=lambda span: span[1])
        self._ends = [end for _, _, end in self._spans]

    def overlapping(self, span: Span) -> list[Span]:
        """Those that have a word in common with ``span``, from left to right."""
        first = bisect_right(self._ends, span[1])
        return list(takewhile(lambda other: other[1] < span[2], islice(self._spans, first, None)))


def _count(counts: dict[str, dict[str, int]], name: str, *fields: str) -> None:
    of_type = counts.setdefault(name, dict.fromkeys(("gold", "right", "wrong", "missed", "invented", "predicted"), 0))
    for field in fields:
        of_type[field] += 1
