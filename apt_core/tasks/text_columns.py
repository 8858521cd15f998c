"""``text-classification``: one's own texts, or pairs of texts, with a class each."""

from __future__ import annotations

from functools import partial

from apt_core.tasks.base import Example, TaskData
from apt_core.tasks.class_labels import HIDDEN, class_indices, train_classes
from apt_core.tasks.holdout import with_validation
from apt_core.tasks.source import DataSource
from apt_core.tasks.splits import HIDDEN_TEST, hides_test, read_splits
from apt_core.tasks.table import Table
from apt_core.tasks.tables import TABLE_ENDINGS, read_table


def load(source: DataSource, name: str) -> TaskData:
    """Reads ``text_column``, ``text_pair_column`` (where given) and ``label_column``.

    Raises:
        AptError: naming file and line, or row, if something is missing or cannot be used.
    """
    text, pair, label = source.text_column or "text", source.text_pair_column, source.label_column or "label"
    wanted = {text, pair, label} - {None}
    tables, notes = read_splits(source, partial(read_table, wanted=wanted), TABLE_ENDINGS, wanted)
    classes = train_classes(tables["train"], label)
    if "test" in tables and _is_hidden(tables["test"], label, classes):
        del tables["test"]
        notes.append(HIDDEN_TEST)
    splits = {split: _examples(split, table, text, pair, label, classes) for split, table in tables.items()}
    splits, made = with_validation(splits, source.validation_fraction, lambda example: (example["label"],))
    return TaskData(name, "sequence-classification", classes, splits, "the class of a text", notes=(*notes, *made))


def _examples(
    split: str, table: Table, text: str, pair: str | None, label: str, classes: tuple[str, ...]
) -> list[Example]:
    columns = {"text": table.texts(text, "text_column")}
    if pair:
        columns["text_pair"] = table.texts(pair, "text_pair_column", may_be_empty=True)
    columns["label"] = class_indices(table, label, classes)
    rows = zip(*columns.values(), strict=True)
    return [
        {"id": f"{split}-{number}", **dict(zip(columns, row, strict=True))}
        for number, row in zip(table.numbers, rows, strict=True)
    ]


def _is_hidden(table: Table, label: str, classes: tuple[str, ...]) -> bool:
    values = table.column(label, "label_column") if table.has(label) else []
    return hides_test(values, () if "-1" in classes else HIDDEN)
