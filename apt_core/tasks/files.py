"""Reads JSON Lines and CoNLL files line by line; what is wrong is named by file and line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from apt_core.errors import AptFileNotFoundError, AptValueError, bad_value
from apt_core.tasks.table import Table

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        AptFileNotFoundError: if there is no such file.
        AptValueError: if it may not be read.
    """
    if not path.is_file():
        raise AptFileNotFoundError(f"{path}: no such file; check where the data is.")
    try:
        return path.read_bytes()
    except OSError as problem:
        raise AptValueError(f"{path}: cannot be read ({problem.strerror}); check its permissions.") from problem


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text without line end) of every line; UTF-8, with or without byte-order mark.

    Raises:
        AptError: if there is no such file, or naming file and line that is no text in UTF-8.
    """
    for number, line in enumerate(read_bytes(path).split(b"\n"), start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r")
        except UnicodeDecodeError as problem:
            raise bad_value(f"{path}:{number}", line, "text in UTF-8", str(problem)) from None
        if "\0" in text:
            raise bad_value(f"{path}:{number}", text, "text in UTF-8 without NUL characters")
        yield number, text


def read_jsonl(path: Path, required: Mapping[str, type] | None = None) -> Table:
    """The objects of a JSON Lines file; empty lines are passed over.

    Args:
        path: the file.
        required: see ``check_fields``.

    Raises:
        AptFileNotFoundError: if there is no such file.
        AptValueError: naming file and line, if a line is no object, lacks a field, or the file holds nothing.
    """
    rows, numbers = [], []
    for number, line in lines(path):
        if line.strip():
            row = parse_json(line, f"{path}:{number}", "one JSON object per line")
            check_fields(row, required or {}, f"{path}:{number}")
            rows.append(row)
            numbers.append(number)
    if not rows:
        raise AptValueError(f"{path}: holds no example; accepted: one JSON object per line.")
    return Table(str(path), tuple(dict.fromkeys(name for row in rows for name in row)), rows, numbers)


def parse_json(text: str, where: str, accepted: str, kind: type = dict) -> Any:
    """One value of the given kind.

    Raises:
        AptValueError: if it is no JSON, of another kind, or has half of a surrogate pair, which is no character.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise bad_value(where, text, accepted, str(problem)) from None
    if not isinstance(value, kind):
        raise bad_value(where, value, accepted)
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as problem:
            raise bad_value(where, text, "text whose escapes are whole characters", str(problem)) from None
    return value


def check_fields(row: Mapping[str, Any], required: Mapping[str, type], where: str) -> None:
    """Refuses a row without the fields it must have.

    Args:
        row: one example.
        required: fields it must have, and their types (``bool`` is not an ``int`` here).
        where: file and line, for the error.

    Raises:
        AptValueError: naming the field.
    """
    for field, kind in required.items():
        if field not in row:
            raise AptValueError(f"{where}: field {field!r} is missing; found: {', '.join(row)}.")
        if not isinstance(row[field], kind) or (kind is int and isinstance(row[field], bool)):
            raise bad_value(f"{where}: {field}", row[field], f"a value of type {kind.__name__}")


def read_conll(path: Path, token_column: int = 0, tag_column: int = -1) -> Table:
    """The sentences of a CoNLL file, as rows of ``tokens`` and ``tags``; an empty line ends a sentence.

    Columns are separated by tabs, or by spaces where a line has no tab; columns not asked for are ignored, and tags
    are taken as they are. ``-DOCSTART-`` lines are passed over.

    Args:
        path: the file.
        token_column, tag_column: counted from 0, or from the end of the line (-1: the last).

    Raises:
        AptFileNotFoundError: if there is no such file.
        AptValueError: naming file and line, if a line lacks a column, or the file holds nothing.
    """
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    inside = False
    for number, line in lines(path):
        columns = [column.strip() for column in (line.split("\t") if "\t" in line else line.split())]
        if not any(columns) or columns[0] == "-DOCSTART-":
            inside = False
            continue
        at = [column if column >= 0 else len(columns) + column for column in (token_column, tag_column)]
        if at[0] == at[1] or not all(0 <= column < len(columns) and columns[column] for column in at):
            raise bad_value(
                f"{path}:{number}",
                line,
                f"a token in column {token_column} and its tag in column {tag_column}, counted from 0 (-1: the last), "
                "separated by a tab or spaces",
            )
        if not inside:
            rows.append({"tokens": [], "tags": []})
            numbers.append(number)
            inside = True
        rows[-1]["tokens"].append(columns[at[0]])
        rows[-1]["tags"].append(columns[at[1]])
    if not rows:
        raise AptValueError(f"{path}: holds no sentence; accepted: a token and its tag per line.")
    return Table(str(path), ("tokens", "tags"), rows, numbers, "token")
