"""COPA, choice of plausible alternatives (Roemmele et al., 2011), in SuperGLUE's JSONL format."""

from __future__ import annotations

from pathlib import Path

from apt_core.errors import bad_value
from apt_core.tasks.base import Example, TaskData
from apt_core.tasks.files import read_jsonl

QUESTIONS = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}
_FIELDS = {"premise": str, "choice1": str, "choice2": str, "question": str, "label": int}


def load(folder: Path) -> TaskData:
    """Reads ``train.jsonl``, ``validation.jsonl`` and, where there is one, ``test.jsonl``."""
    splits = {
        split: _read(folder / f"{split}.jsonl")
        for split in ("train", "validation", "test")
        if split != "test" or (folder / "test.jsonl").is_file()
    }
    return TaskData("copa", "multiple-choice", (), splits, "which of two sentences is the cause or effect of a premise")


def _read(path: Path) -> list[Example]:
    examples = []
    for number, row in enumerate(read_jsonl(path, _FIELDS), start=1):
        where = f"{path}: example {number}"
        if row["question"] not in QUESTIONS:
            raise bad_value(f"{where}: question", row["question"], "cause or effect")
        if row["label"] not in (0, 1):
            raise bad_value(f"{where}: label", row["label"], "0 or 1")
        examples.append(
            {
                "id": f"{path.stem}-{row.get('idx', number)}",
                "context": f"{row['premise']} {QUESTIONS[row['question']]}",
                "choices": [row["choice1"], row["choice2"]],
                "label": row["label"],
            }
        )
    return examples
