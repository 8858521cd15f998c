"""WNUT 2017, emerging named entities in social media, from CoNLL files."""

from __future__ import annotations

from pathlib import Path

from apt_core.tasks.base import TaskData
from apt_core.tasks.files import read_conll
from apt_core.tasks.tags import tag_names


def load(folder: Path) -> TaskData:
    """Reads ``train.conll``, ``validation.conll`` and, where there is one, ``test.conll``."""
    splits = {}
    for split in ("train", "validation", "test"):
        path = folder / f"{split}.conll"
        if split == "test" and not path.is_file():
            continue
        splits[split] = [
            {"id": f"{split}-{sentence.line}", "tokens": sentence.tokens, "tags": sentence.tags}
            for sentence in read_conll(path)
        ]
    labels = tag_names(example["tags"] for example in splits["train"])
    return TaskData(
        "wnut17", "token-classification", labels, splits, "named entities of six types in social media text"
    )
