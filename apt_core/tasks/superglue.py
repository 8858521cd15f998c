"""SuperGLUE's tasks of one sentence or a pair: BoolQ, CB, RTE, WiC, WSC, from JSON Lines files or a Hub dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from apt_core.errors import bad_value
from apt_core.tasks.base import Example, TaskData
from apt_core.tasks.files import check_fields
from apt_core.tasks.named import NamedTable, read_named
from apt_core.tasks.source import DataSource


class _Format(NamedTuple):
    fields: dict[str, type]
    labels: tuple[str, ...]
    texts: Callable[[dict[str, Any]], tuple[str, str]]


_NLI = ("premise", "hypothesis")
_BOOLEAN = ("false", "true")
FORMATS = {
    "boolq": _Format({"question": str, "passage": str}, _BOOLEAN, lambda row: (row["question"], row["passage"])),
    "cb": _Format(
        dict.fromkeys(_NLI, str),
        ("entailment", "contradiction", "neutral"),
        lambda row: (row["premise"], row["hypothesis"]),
    ),
    "rte": _Format(
        dict.fromkeys(_NLI, str), ("entailment", "not_entailment"), lambda row: (row["premise"], row["hypothesis"])
    ),
    "wic": _Format(
        {"word": str, "sentence1": str, "sentence2": str},
        _BOOLEAN,
        lambda row: (f"{row['word']}: {row['sentence1']}", row["sentence2"]),
    ),
    "wsc": _Format(
        {"text": str, "span1_text": str, "span2_text": str},
        _BOOLEAN,
        lambda row: (row["text"], f"{row['span2_text']} refers to {row['span1_text']}"),
    ),
}


def load(source: DataSource, name: str) -> TaskData:
    """Reads a task of ``FORMATS``.

    Raises:
        AptError: naming file and line, or row, if something is missing or malformed.
    """
    tables, notes = read_named(source, name)
    splits = {split: _examples(found, FORMATS[name]) for split, found in tables.items()}
    return TaskData(name, "sequence-classification", FORMATS[name].labels, splits, notes=tuple(notes))


def _examples(found: NamedTable, form: _Format) -> list[Example]:
    examples = []
    for index, row in enumerate(found.table.rows):
        where = found.table.where(index)
        nested = row.get("target")  # SuperGLUE's own WSC files keep the spans in there, the Hub beside the text
        flat = {**row, **nested} if isinstance(nested, dict) else row
        check_fields(flat, {**form.fields, "label": object}, where)
        text, text_pair = form.texts(flat)
        label = _label(flat["label"], form.labels, f"{where}: label")
        examples.append({"id": f"{found.stem}-{index + 1}", "text": text, "text_pair": text_pair, "label": label})
    return examples


def _label(value: Any, labels: tuple[str, ...], where: str) -> int:
    """SuperGLUE's own files have booleans and words, the Hub's names or integers."""
    word = str(value).lower() if isinstance(value, bool | str) else None
    if word in labels:
        return labels.index(word)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(labels):
        return value
    raise bad_value(where, value, " or ".join(labels))
