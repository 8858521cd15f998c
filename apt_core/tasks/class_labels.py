"""The values of a label column to class names and class indices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from apt_core.errors import AptValueError, bad_value
from apt_core.tasks.table import Table, is_missing

HIDDEN = (-1, -1.0, "-1")
"""what test splits have where labels are kept secret"""
_WHOLE = re.compile(r"[+-]?\d+")
_WHOLE_WITH_POINT = re.compile(r"([+-]?\d+)\.0+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
_SHOWN_CLASSES = 20


def class_name(value: Any) -> str | None:
    """How a class is called: text trimmed, ``True`` and ``False``, whole numbers without a point; None: no class."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    if isinstance(value, bool | int):
        return str(value)
    if not isinstance(value, str):
        return None
    whole = _WHOLE_WITH_POINT.fullmatch(value.strip())
    return whole.group(1) if whole else value.strip()


def train_classes(table: Table, column: str) -> tuple[str, ...]:
    """The classes of a training split: those its file names in order, or those that occur, sorted (whole numbers by
    value).

    Raises:
        AptValueError: naming the first row without a label, or whose label is no class.
    """
    names = _names(table, column)
    if column in table.class_names:
        return tuple(str(class_name(name)) for name in table.class_names[column])
    if all(_NUMBER.fullmatch(name) for name in names):
        fraction = next((index for index, name in enumerate(names) if not _WHOLE.fullmatch(name)), None)
        if fraction is not None:
            raise _no_class(table, column, fraction)
        return tuple(sorted(set(names), key=lambda name: (int(name), name)))
    return tuple(sorted(set(names)))


def class_indices(table: Table, column: str, classes: Sequence[str]) -> list[int]:
    """The class index of every row.

    Raises:
        AptValueError: naming the first row without a label, or with one that is not among ``classes``.
    """
    index = {name: position for position, name in enumerate(classes)}
    names = _names(table, column)
    for row, name in enumerate(names):
        if name not in index:
            shown = ", ".join(classes[:_SHOWN_CLASSES]) + (" and more" if len(classes) > _SHOWN_CLASSES else "")
            raise bad_value(f"{table.where(row)}: {column}", name, f"a class of the train split: {shown}")
    return [index[name] for name in names]


def _names(table: Table, column: str) -> list[str]:
    values = table.column(column, "label_column")
    missing = [index for index, value in enumerate(values) if is_missing(value)]
    if missing:
        raise table.missing(column, missing)
    names = [class_name(value) for value in values]
    for index, name in enumerate(names):
        if name is None:
            raise _no_class(table, column, index)
    return names


def _no_class(table: Table, column: str, index: int) -> AptValueError:
    value = table.rows[index][column]
    accepted = "a class: text, a whole number or a boolean (scores are not supported)"
    return bad_value(f"{table.where(index)}: {column}", value, accepted)
