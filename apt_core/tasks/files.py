"""Reads data files line by line; what is wrong is named by file and line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from apt_core.errors import AptFileNotFoundError, AptValueError, bad_value

_IOB2_TAG = re.compile(r"O|[BI]-\S+")


class Sentence(NamedTuple):
    """One sentence of a CoNLL file."""

    line: int
    """of its first token, counted from 1"""
    tokens: list[str]
    tags: list[str]


def read_jsonl(path: Path, required: Mapping[str, type]) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file; empty lines are passed over.

    Args:
        path: UTF-8, with or without byte-order mark.
        required: fields every object must have, and their types (``bool`` is not an ``int`` here).

    Raises:
        AptFileNotFoundError: if there is no such file.
        AptValueError: naming file and line, if a line is no object, lacks a field, or the file holds nothing.
    """
    rows = []
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as problem:
            raise bad_value(f"{path}:{number}", line, "one JSON object per line", str(problem)) from None
        if not isinstance(row, dict):
            raise bad_value(f"{path}:{number}", row, "one JSON object per line")
        for field, kind in required.items():
            if field not in row:
                raise AptValueError(f"{path}:{number}: field {field!r} is missing; found: {', '.join(row)}.")
            if not isinstance(row[field], kind) or (kind is int and isinstance(row[field], bool)):
                raise bad_value(f"{path}:{number}: {field}", row[field], f"a value of type {kind.__name__}")
        rows.append(row)
    if not rows:
        raise AptValueError(f"{path}: holds no example; accepted: one JSON object per line.")
    return rows


def read_conll(path: Path, token_column: int = 0, tag_column: int = 1) -> list[Sentence]:
    """The sentences of a CoNLL file: a token and its IOB2 tag per line, an empty line after each sentence.

    Columns are separated by tabs, or by spaces where a line has no tab; further columns are ignored.

    Raises:
        AptFileNotFoundError: if there is no such file.
        AptValueError: naming file and line, if a line lacks a column, a tag is not IOB2, or the file holds nothing.
    """
    sentences: list[Sentence] = []
    current: Sentence | None = None
    for number, line in _lines(path):
        if not line.strip():
            current = None
            continue
        columns = line.split("\t") if "\t" in line else line.split()
        if len(columns) <= max(token_column, tag_column):
            raise bad_value(f"{path}:{number}", line, "a token and its tag, separated by a tab or spaces")
        token, tag = columns[token_column].strip(), columns[tag_column].strip()
        if token == "-DOCSTART-":
            continue
        if not token or not _IOB2_TAG.fullmatch(tag):
            raise bad_value(f"{path}:{number}", line, "a token and an IOB2 tag: O, B-<type> or I-<type>")
        if current is None:
            current = Sentence(number, [], [])
            sentences.append(current)
        current.tokens.append(token)
        current.tags.append(tag)
    if not sentences:
        raise AptValueError(f"{path}: holds no sentence; accepted: a token and its tag per line.")
    return sentences


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    if not path.is_file():
        raise AptFileNotFoundError(f"{path}: no such file; check --data-dir.")
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r")
        except UnicodeDecodeError as problem:
            raise bad_value(f"{path}:{number}", line, "text in UTF-8", str(problem)) from None
