"""Reads a table from a file by its ending: CSV, TSV, JSON Lines, a JSON array or Parquet."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apt_core.errors import AptValueError, bad_value
from apt_core.tasks.files import parse_json, read_bytes, read_jsonl
from apt_core.tasks.table import Table, checked_header

CONLL_ENDINGS = (".conll", ".iob", ".bio", ".txt")


def read_table(path: Path, wanted: Collection[str]) -> Table:
    """The rows of a file.

    Args:
        path: its ending says the format; upper case is accepted.
        wanted: columns that are read where the format allows to read some only.

    Raises:
        AptFileNotFoundError: if there is no such file.
        AptValueError: naming file, and line or row, if the content is not what the ending says.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        hint = "CoNLL files (.conll, .iob, .bio, .txt) are for --task token-classification." if is_conll(path) else ""
        raise bad_value(str(path), path.suffix, "a file that ends in " + ", ".join(_READERS), hint)
    return reader(path, wanted)


def is_conll(path: Path) -> bool:
    """Whether a file's ending says a token and its tag per line."""
    return path.suffix.lower() in CONLL_ENDINGS


def read_delimited(path: Path, delimiter: str) -> Table:
    """A header and one record per row; fields with delimiters, quotes or line ends stand in double quotes."""
    text = _text(path)
    rows, numbers = [], []
    with _long_fields():
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header: tuple[str, ...] | None = None
        while True:
            number = reader.line_num + 1
            try:
                record = next(reader)
            except StopIteration:
                break
            except csv.Error as problem:
                raise AptValueError(
                    f"{path}:{number}: {problem}; accepted: fields that hold quotes stand in double quotes, with the "
                    "quotes doubled. JSON Lines needs no such care."
                ) from None
            if not record:
                continue
            if header is None:
                header = _header(path, record, delimiter)
                continue
            if len(record) != len(header):
                raise AptValueError(
                    f"{path}:{number}: {len(record)} fields; accepted: {len(header)}, as the header has. "
                    "A field that holds the separator stands in double quotes."
                )
            rows.append(dict(zip(header, record, strict=True)))
            numbers.append(number)
    if header is None:
        raise AptValueError(f"{path}: is empty; accepted: a line of column names and one row per example.")
    if not rows:
        raise AptValueError(f"{path}: holds a header and no example; accepted: one row per example below it.")
    return Table(str(path), header, rows, numbers)


def read_json(path: Path) -> Table:
    """An array of objects, or JSON Lines."""
    text = _text(path)
    if not text.lstrip().startswith("["):
        return read_jsonl(path)
    rows = parse_json(text, str(path), "a JSON array of objects, or one JSON object per line", list)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise bad_value(f"{path}: row {number}", row, "a JSON object")
    if not rows:
        raise AptValueError(f"{path}: holds no example; accepted: a JSON array of objects.")
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(str(path), columns, rows, range(1, len(rows) + 1), "row")


def read_parquet(path: Path, wanted: Collection[str]) -> Table:
    """The wanted columns; classes that ``datasets`` stored as integers get their names back."""
    import pyarrow
    import pyarrow.parquet as parquet

    content = pyarrow.BufferReader(read_bytes(path))
    try:
        file = parquet.ParquetFile(content)
        columns = file.schema_arrow.names
        rows = file.read(columns=[column for column in columns if column in wanted]).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as problem:
        raise AptValueError(f"{path}: no Parquet file that can be read ({_first_line(problem)}).") from problem
    if not file.metadata.num_rows:
        raise AptValueError(f"{path}: holds no example.")
    names = _stored_class_names(file.schema_arrow.metadata)
    rows = name_classes(rows or [{}] * file.metadata.num_rows, names)
    return Table(str(path), checked_header(str(path), columns), rows, range(1, len(rows) + 1), "row", names)


def name_classes(rows: list[dict[str, Any]], names: dict[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """Integers of the columns in ``names`` as the names they stand for; -1, which hides a class, as ``None``."""

    def named(value: Any, known: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [named(item, known) for item in value]
        if isinstance(value, int) and not isinstance(value, bool):
            return known[value] if 0 <= value < len(known) else None
        return value

    return [
        {column: named(value, names[column]) if column in names else value for column, value in row.items()}
        for row in rows
    ]


def _header(path: Path, record: list[str], delimiter: str) -> tuple[str, ...]:
    other = next((mark for mark in ";\t," if mark != delimiter and mark in record[0]), None)
    if len(record) == 1 and other:
        raise AptValueError(
            f"{path}:1: got one column, {record[0][:80]!r}, which looks separated by {other!r}; accepted: commas in "
            ".csv, tabs in .tsv."
        )
    return checked_header(str(path), record)


def _text(path: Path) -> str:
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        number = content.count(b"\n", 0, problem.start) + 1
        raise AptValueError(
            f"{path}:{number}: no text in UTF-8 ({problem.reason}); save the file as UTF-8, or correct its ending."
        ) from None
    if "\0" in text:
        number = text.count("\n", 0, text.index("\0")) + 1
        raise AptValueError(f"{path}:{number}: holds NUL characters; save the file as UTF-8, or correct its ending.")
    return text


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lifts the csv module's limit of 131,072 characters per field."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _stored_class_names(metadata: dict[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """What the library ``datasets`` writes beside the columns: their features, as JSON."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    found = {}
    for column, feature in features.items():
        while isinstance(feature, dict) and "feature" in feature:
            feature = feature["feature"]
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names"):
            found[column] = tuple(map(str, feature["names"]))
    return found


def _first_line(problem: Exception) -> str:
    return str(problem).strip().partition("\n")[0][:200]


_READERS: dict[str, Callable[[Path, Collection[str]], Table]] = {
    ".csv": lambda path, wanted: read_delimited(path, ","),
    ".tsv": lambda path, wanted: read_delimited(path, "\t"),
    ".jsonl": lambda path, wanted: read_jsonl(path),
    ".json": lambda path, wanted: read_json(path),
    ".parquet": read_parquet,
}
TABLE_ENDINGS = tuple(_READERS)
