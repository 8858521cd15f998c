"""Rows of one split, the columns they have, and where each row stands in its file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from apt_core.errors import AptValueError, bad_value

_SHOWN_COLUMNS = 20


@dataclass(frozen=True)
class Table:
    """Rows as plain dictionaries; a value that a row lacks counts as ``None``.

    Attributes:
        name: path of the file, or dataset and split.
        columns: all there are, read or not, in their order.
        rows: the examples, with the columns that were asked for.
        numbers: line (text files) or row (counted from 1) of every example.
        unit: what ``numbers`` count: ``line`` of a file, ``row`` of a table, or ``token`` for a CoNLL file, where an
            example takes one line per token.
        class_names: names, in order, of columns whose integers stood for classes. Their values are names already.
    """

    name: str
    columns: tuple[str, ...]
    rows: Sequence[dict[str, Any]]
    numbers: Sequence[int]
    unit: Literal["line", "row", "token"] = "line"
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def where(self, index: int, item: int | None = None) -> str:
        """File and line, or row, of an example, and of its item (token) where one is meant; both from 0."""
        number = self.numbers[index]
        if self.unit == "token":
            return f"{self.name}:{number + (item or 0)}"
        place = f"{self.name}:{number}" if self.unit == "line" else f"{self.name}: row {number}"
        return place if item is None else f"{place}: item {item + 1}"

    def has(self, column: str) -> bool:
        return column in self.columns

    def column(self, column: str, option: str) -> list[Any]:
        """One value per row.

        Args:
            column: its name, exactly.
            option: the field of ``DataSource`` that names it.

        Raises:
            AptValueError: listing the columns there are.
        """
        if not self.has(column):
            raise AptValueError(
                f"{self.name}: no column {column!r}; found: {_listed(self.columns)}.{_nearest(column, self.columns)} "
                f"Name it with --{option.replace('_', '-')}."
            )
        return [row.get(column) for row in self.rows]

    def texts(self, column: str, option: str, *, may_be_empty: bool = False) -> list[str]:
        """One text per row; where they may be empty, a missing one is ``""``.

        Raises:
            AptValueError: naming the first row that holds something else, or nothing.
        """
        values = self.column(column, option)
        missing = [index for index, value in enumerate(values) if is_missing(value)]
        if missing and not may_be_empty:
            raise self.missing(column, missing)
        for index in missing:
            values[index] = ""
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise bad_value(f"{self.where(index)}: {column}", value, "text")
        return values

    def missing(self, column: str, indices: Sequence[int]) -> AptValueError:
        """The error for rows whose value is missing."""
        return AptValueError(
            f"{self.where(indices[0])}: {column!r} is empty, as it is in {len(indices)} of {len(self.rows)} rows; "
            "fill it in, or leave those rows out."
        )


def is_missing(value: Any) -> bool:
    """None, not a number, or text without a character to see."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def checked_header(name: str, columns: Iterable[Any]) -> tuple[str, ...]:
    """The column names of a table.

    Raises:
        AptValueError: if a name occurs twice.
    """
    names = tuple(str(column) for column in columns)
    twice = sorted({column for column in names if names.count(column) > 1})
    if twice:
        raise AptValueError(f"{name}: more than one column is named {_listed(twice)}; rename all but one.")
    return names


def _listed(columns: Sequence[str]) -> str:
    shown = ", ".join(repr(column) for column in columns[:_SHOWN_COLUMNS])
    return shown if len(columns) <= _SHOWN_COLUMNS else f"{shown} and {len(columns) - _SHOWN_COLUMNS} more"


def _nearest(column: str, columns: Sequence[str]) -> str:
    folded = {name.strip().casefold(): name for name in columns}
    close = difflib.get_close_matches(column.strip().casefold(), folded, n=1)
    return f" Did you mean {folded[close[0]]!r}?" if close else ""
