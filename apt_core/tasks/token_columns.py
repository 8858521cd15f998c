"""``token-classification``: one's own tokens with a tag each, from tables or CoNLL files, in any tag scheme."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from apt_core.errors import AptValueError, bad_value
from apt_core.tasks.base import Example, TaskData
from apt_core.tasks.files import read_conll
from apt_core.tasks.holdout import with_validation
from apt_core.tasks.source import DataSource
from apt_core.tasks.splits import HIDDEN_TEST, hides_test, read_splits
from apt_core.tasks.table import Table, is_missing
from apt_core.tasks.tables import CONLL_ENDINGS, TABLE_ENDINGS, is_conll, read_table
from apt_core.tasks.tags import SCHEMES, accepted_tags, detect_scheme, tag_names, to_iob2, unknown_tag


class Tagged(NamedTuple):
    """Sentences with IOB2 tags."""

    splits: dict[str, list[Example]]
    labels: tuple[str, ...]
    """of the train split"""
    notes: list[str]


def load(source: DataSource, name: str) -> TaskData:
    """Reads ``tokens_column`` and ``tags_column``; in CoNLL files they are numbers.

    Raises:
        AptError: naming file and line, or row, if something is missing or cannot be used.
    """
    tokens, tags = source.tokens_column or "tokens", source.tags_column or "tags"

    def read(path: Path) -> Table:
        if is_conll(path):
            return read_conll(path, _number(source.tokens_column, 0, "tokens"), _number(source.tags_column, -1, "tags"))
        return read_table(path, {tokens, tags})

    tables, notes = read_splits(source, read, (*TABLE_ENDINGS, *CONLL_ENDINGS), {tokens, tags})
    splits, labels, found = tagged(tables, tokens, tags, source.tag_scheme)
    splits, made = with_validation(
        splits, source.validation_fraction, lambda example: {tag[2:] for tag in example["tags"] if tag != "O"} | {""}
    )
    description = "the entities in a text"
    return TaskData(name, "token-classification", labels, splits, description, notes=(*notes, *found, *made))


def tagged(tables: Mapping[str, Table], tokens: str, tags: str, scheme: str = "auto") -> Tagged:
    """The sentences of every split, their tags turned into IOB2.

    Args:
        tables: ``train`` among them; its tags decide the scheme of all where ``scheme`` is ``auto``.
        tokens, tags: names of the two columns, for tables that are not from CoNLL files.
        scheme: a key of ``SCHEMES``, or ``auto``.

    Raises:
        AptValueError: naming file and line, or row, of a sentence without tokens or with another number of tags, or
            of a tag that is none.
    """
    notes, sentences = [], {}
    for split, table in tables.items():
        if split == "test" and _is_hidden(table, tags):
            notes.append(HIDDEN_TEST)
        else:
            sentences[split] = [_sentence(table, index, tokens, tags) for index in range(_checked(table, tokens, tags))]
    if scheme == "auto":
        scheme = detect_scheme([tag for tag in found if isinstance(tag, str)] for _, found in sentences["train"])
        if scheme != "iob2":
            notes.append(f"tags: read as {SCHEMES[scheme]}, which those of the train split follow; see --tag-scheme")
    splits = {}
    for split, rows in sentences.items():
        table = tables[split]
        splits[split] = [
            {"id": f"{split}-{table.numbers[index]}", "tokens": words, "tags": _iob2(table, index, found, scheme)}
            for index, (words, found) in enumerate(rows)
        ]
    return Tagged(splits, tag_names(example["tags"] for example in splits["train"]), notes)


def _checked(table: Table, tokens: str, tags: str) -> int:
    """Number of rows of a table that has both columns."""
    if table.unit != "token":
        table.column(tokens, "tokens_column")
        table.column(tags, "tags_column")
    return len(table.rows)


def _sentence(table: Table, index: int, tokens: str, tags: str) -> tuple[list[str], list[Any]]:
    row = table.rows[index]
    if table.unit == "token":
        return row["tokens"], row["tags"]
    words, found = (_items(table, index, column) for column in (tokens, tags))
    for item, word in enumerate(words):
        if not isinstance(word, str):
            raise bad_value(f"{table.where(index, item)}: {tokens}", word, "text")
    if len(words) != len(found):
        raise AptValueError(
            f"{table.where(index)}: {len(words)} tokens in {tokens!r}, {len(found)} tags in {tags!r}; "
            "accepted: as many of one as of the other."
        )
    return words, found


def _items(table: Table, index: int, column: str) -> list[Any]:
    value = table.rows[index].get(column)
    if is_missing(value) or value == []:
        empty = [at for at, row in enumerate(table.rows) if is_missing(row.get(column)) or row.get(column) == []]
        raise table.missing(column, empty)
    if isinstance(value, str):
        return value.split()
    if not isinstance(value, list):
        raise bad_value(f"{table.where(index)}: {column}", value, "a list, or text separated by spaces")
    return value


def _iob2(table: Table, index: int, tags: list[Any], scheme: str) -> list[str]:
    at = unknown_tag(tags, scheme)
    if at is not None:
        hint = "Numbers need names: Parquet files and datasets with ClassLabel have them." * isinstance(tags[at], int)
        raise bad_value(f"{table.where(index, at)}: tag", tags[at], accepted_tags(scheme), hint)
    return to_iob2(tags, scheme)


def _is_hidden(table: Table, tags: str) -> bool:
    if table.unit == "token":
        return False
    values = [row.get(tags) for row in table.rows]
    return hides_test([tag for value in values for tag in (value if isinstance(value, list) else [value])], (-1, "-1"))


def _number(column: str | None, default: int, what: str) -> int:
    if column is None:
        return default
    try:
        return int(column)
    except ValueError:
        raise bad_value(
            f"{what}-column", column, "in CoNLL files a column's number, counted from 0 (-1 is the last)"
        ) from None
