"""SuperGLUE's tasks of one sentence or a pair: BoolQ, CB, RTE, WiC, WSC, in SuperGLUE's JSONL format.

Where a folder has ``dev32.jsonl``, the few-shot protocol of FewGLUE_32dev is followed: ``train.jsonl`` to train on,
``dev32.jsonl`` to choose the checkpoint, SuperGLUE's ``validation.jsonl`` as the test split.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from apt_core.errors import AptFileNotFoundError, bad_value
from apt_core.tasks.base import Example, TaskData
from apt_core.tasks.files import read_jsonl

FEW_SHOT_FILE = "dev32.jsonl"


class _Format(NamedTuple):
    fields: dict[str, type]
    labels: tuple[str, ...]
    texts: Callable[[dict[str, Any]], tuple[str, str]]


def _wsc_texts(row: dict[str, Any]) -> tuple[str, str]:
    target = row["target"]
    return row["text"], f"{target.get('span2_text', '')} refers to {target.get('span1_text', '')}"


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
    "wsc": _Format({"text": str, "target": dict}, _BOOLEAN, _wsc_texts),
}


def load(folder: Path, name: str) -> TaskData:
    """Reads a task of ``FORMATS`` from its folder.

    Raises:
        AptError: naming file and line, or example, if something is missing or malformed.
    """
    few_shot = (folder / FEW_SHOT_FILE).is_file()
    files = {"train": "train", "validation": "validation", "test": "test"}
    if few_shot:
        files = {"train": "train", "validation": "dev32", "test": "validation"}
    splits = {}
    for split, stem in files.items():
        path = folder / f"{stem}.jsonl"
        if split != "test" or path.is_file():
            splits[split] = _read(path, FORMATS[name])
    if few_shot and "test" not in splits:
        raise AptFileNotFoundError(
            f"{folder / 'validation.jsonl'}: no such file; with {FEW_SHOT_FILE} it is the test split."
        )
    return TaskData(name, "sequence-classification", FORMATS[name].labels, splits)


def _read(path: Path, form: _Format) -> list[Example]:
    examples = []
    for number, row in enumerate(read_jsonl(path, {**form.fields, "label": object}), start=1):
        first, second = form.texts(row)
        where = f"{path}: example {number}: label"
        examples.append(
            {
                "id": f"{path.stem}-{number}",
                "text": first,
                "text_pair": second,
                "label": _label(row, form.labels, where),
            }
        )
    return examples


def _label(row: dict[str, Any], labels: tuple[str, ...], where: str) -> int:
    """SuperGLUE's own files have booleans and words, the Hub's integers."""
    value = row["label"]
    word = str(value).lower() if isinstance(value, bool | str) else None
    if word in labels:
        return labels.index(word)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(labels):
        return value
    raise bad_value(where, value, " or ".join(labels))
