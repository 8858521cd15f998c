"""COPA, choice of plausible alternatives (Roemmele et al., 2011), from JSON Lines files or a Hub dataset."""

from __future__ import annotations

from apt_core.errors import bad_value
from apt_core.tasks.base import Example, TaskData
from apt_core.tasks.files import check_fields
from apt_core.tasks.named import NamedTable, read_named
from apt_core.tasks.source import DataSource

QUESTIONS = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}
_FIELDS = {"premise": str, "choice1": str, "choice2": str, "question": str, "label": object}
_LABELS = {"choice1": 0, "choice2": 1}
"""the Hub's names"""


def load(source: DataSource, name: str) -> TaskData:
    """Reads ``train``, ``validation`` and, where there is one with labels, ``test``.

    Raises:
        AptError: naming file and line, or row, if something is missing or malformed.
    """
    tables, notes = read_named(source, name)
    return TaskData(
        name,
        "multiple-choice",
        (),
        {split: _examples(found) for split, found in tables.items()},
        "which of two sentences is the cause or effect of a premise",
        notes=tuple(notes),
    )


def _examples(found: NamedTable) -> list[Example]:
    examples = []
    for index, row in enumerate(found.table.rows):
        where = found.table.where(index)
        check_fields(row, _FIELDS, where)
        if row["question"] not in QUESTIONS:
            raise bad_value(f"{where}: question", row["question"], "cause or effect")
        label = _LABELS.get(row["label"], row["label"]) if isinstance(row["label"], str) else row["label"]
        if isinstance(label, bool) or not isinstance(label, int) or label not in (0, 1):
            raise bad_value(f"{where}: label", label, "0 or 1")
        examples.append(
            {
                "id": f"{found.stem}-{row.get('idx', index + 1)}",
                "context": f"{row['premise']} {QUESTIONS[row['question']]}",
                "choices": [row["choice1"], row["choice2"]],
                "label": label,
            }
        )
    return examples
