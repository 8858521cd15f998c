"""Tags that mark the spans of entities: their schemes, all turned into IOB2, and IOB2 read strictly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_PREFIXES = {"iob1": "BI", "iob2": "BI", "bioes": "BIESLU"}
_TAG = {scheme: re.compile(rf"O|[{prefixes}]-\S(.*\S)?") for scheme, prefixes in _PREFIXES.items()}
SCHEMES = {"iob1": "IOB1", "iob2": "IOB2", "bioes": "BIOES or BILOU"}
"""scheme to how people call it"""


def accepted_tags(scheme: str) -> str:
    """What a tag of a scheme looks like, in words."""
    return f"{SCHEMES[scheme]}: O, or " + ", ".join(f"{prefix}-<type>" for prefix in _PREFIXES[scheme])


def unknown_tag(tags: Sequence[object], scheme: str) -> int | None:
    """Position of the first value that is no tag of the scheme; None where all are."""
    pattern = _TAG[scheme]
    return next((at for at, tag in enumerate(tags) if not (isinstance(tag, str) and pattern.fullmatch(tag))), None)


def detect_scheme(sentences: Iterable[Sequence[str]]) -> str:
    """The scheme that tags follow, as far as they show it.

    ``bioes`` if any tag starts with E, S, L or U; ``iob1`` if some entity starts with I, and B stands only right after
    an entity of its own type, where IOB1 needs it; otherwise ``iob2``.
    """
    starts_with_i, b_elsewhere = False, False
    for tags in sentences:
        before = "O"
        for tag in tags:
            if tag[:2] in ("E-", "S-", "L-", "U-"):
                return "bioes"
            continues = before != "O" and before[2:] == tag[2:]
            starts_with_i |= tag.startswith("I-") and not continues
            b_elsewhere |= tag.startswith("B-") and not continues
            before = tag
    return "iob1" if starts_with_i and not b_elsewhere else "iob2"


def to_iob2(tags: Sequence[str], scheme: str) -> list[str]:
    """The same spans in IOB2.

    ``iob2`` stays as it is, an I that continues nothing included (``well_formed`` reads it strictly). In ``bioes``, an
    I, E or L that continues nothing starts an entity, as conlleval and seqeval have it.
    """
    if scheme == "iob2":
        return list(tags)
    result = []
    before = "O"
    for tag in tags:
        if tag != "O":
            continues = before != "O" and before[0] not in "ESLU" and before[2:] == tag[2:] and tag[0] in "IEL"
            result.append(f"{'I' if continues else 'B'}-{tag[2:]}")
        else:
            result.append(tag)
        before = tag
    return result


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
