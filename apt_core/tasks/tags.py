"""IOB2 tags: the label list of a task, and which sequences of tags are well formed."""

from __future__ import annotations

from collections.abc import Iterable


def tag_names(sentences: Iterable[list[str]]) -> tuple[str, ...]:
    """``O``, then B and I of every entity type that occurs, in alphabetical order of types."""
    types = sorted({tag[2:] for tags in sentences for tag in tags if tag != "O"})
    return ("O", *(f"{position}-{name}" for name in types for position in "BI"))


def well_formed(tags: list[str]) -> list[str]:
    """Turns an I that does not continue an entity of its type into ``O``: IOB2 read strictly."""
    result = ["O"]
    for tag in tags:
        result.append("O" if tag.startswith("I-") and result[-1][2:] != tag[2:] else tag)
    return result[1:]
