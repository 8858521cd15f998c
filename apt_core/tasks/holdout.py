"""Sets part of the training examples aside for validation, the same part whatever the training seed is."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence

from apt_core.errors import AptValueError
from apt_core.tasks.base import Example

_SEED = 20230705
"""of the draw; not the training seed, so that runs with different seeds see the same data"""


def with_validation(
    splits: dict[str, list[Example]], fraction: float, classes: Callable[[Example], Collection[Hashable]]
) -> tuple[dict[str, list[Example]], list[str]]:
    """Splits that have a validation split, and a sentence where it was made here. Test is never touched.

    Args:
        splits: with ``train``.
        fraction: of the training examples, in (0, 1).
        classes: of an example: its class, the entity types in it, or nothing.

    Raises:
        AptValueError: if too few training examples are left to set any aside.
    """
    if "validation" in splits:
        return splits, []
    train = splits["train"]
    held = set(hold_out([classes(example) for example in train], fraction))
    if not held:
        raise AptValueError(
            f"validation: none of the {len(train)} train examples can be set aside without taking the last one of a "
            "class; give a validation file, or more examples per class."
        )
    parts = {
        "train": [example for index, example in enumerate(train) if index not in held],
        "validation": [example for index, example in enumerate(train) if index in held],
    }
    note = f"validation: {len(held)} of {len(train)} train examples set aside, the same for every seed"
    return {**parts, **{split: rows for split, rows in splits.items() if split != "train"}}, [note]


def hold_out(classes: Sequence[Collection[Hashable]], fraction: float) -> list[int]:
    """Indices of examples to set aside, ascending: in proportion per class where every example has exactly one.

    No class loses its last training example; a class of two or more has one in each part. Where examples have
    several classes, or none, they are drawn over all.
    """
    draw = random.Random(_SEED)
    if all(len(set(own)) == 1 for own in classes):
        members: dict[Hashable, list[int]] = {}
        for index, own in enumerate(classes):
            members.setdefault(next(iter(own)), []).append(index)
        return sorted(
            index
            for rows in members.values()
            if len(rows) > 1
            for index in draw.sample(rows, _share(len(rows), fraction))
        )
    left = Counter(name for own in classes for name in set(own))
    count = _share(len(classes), fraction)
    held: list[int] = []
    for index in draw.sample(range(len(classes)), len(classes)):
        own = set(classes[index])
        if len(held) < count and all(left[name] > 1 for name in own):
            held.append(index)
            left.subtract(own)
    return sorted(held)


def _share(total: int, fraction: float) -> int:
    return min(max(1, round(fraction * total)), total - 1)
