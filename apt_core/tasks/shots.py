"""Few-shot selection: a small, seeded part of a training split."""

from __future__ import annotations

import random
from dataclasses import replace

from apt_core.errors import bad_value
from apt_core.tasks.base import TaskData


def take_shots(task: TaskData, shots: int, seed: int) -> TaskData:
    """Keeps ``shots`` training examples per class, or in all where examples have no class (choices, tags).

    Validation and test stay whole. The order of the split is kept.

    Raises:
        AptValueError: if a class has fewer examples.
    """
    train = task.splits["train"]
    per_class = task.family == "sequence-classification"
    groups: dict[int, list[int]] = {}
    for index, example in enumerate(train):
        groups.setdefault(example["label"] if per_class else 0, []).append(index)
    smallest = min(len(members) for members in groups.values())
    if shots > smallest:
        unit = "per class" if per_class else "in all"
        raise bad_value("shots", shots, f"at most {smallest} {unit} for task {task.name}")
    draw = random.Random(seed)
    kept = {index for label in sorted(groups) for index in draw.sample(groups[label], shots)}
    return replace(task, splits={**task.splits, "train": [row for index, row in enumerate(train) if index in kept]})
