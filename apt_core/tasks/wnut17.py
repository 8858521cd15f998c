"""WNUT 2017, emerging named entities in social media, from CoNLL files or the Hub's dataset."""

from __future__ import annotations

from apt_core.tasks.base import TaskData
from apt_core.tasks.files import read_conll
from apt_core.tasks.named import task_folder
from apt_core.tasks.source import DataSource
from apt_core.tasks.splits import dataset_splits
from apt_core.tasks.token_columns import tagged


def load(source: DataSource, name: str) -> TaskData:
    """Reads ``train.conll``, ``validation.conll`` and, where there is one, ``test.conll``; or a dataset's columns
    ``tokens`` and ``ner_tags``. A third column, which a few lines of the test file have, is ignored.

    Raises:
        AptError: naming file and line, if something is missing or malformed.
    """
    if source.dataset_name:
        tables, notes = dataset_splits(source, source.dataset_config_name, ("tokens", "ner_tags"))
    else:
        folder, notes = task_folder(source, name), []
        paths = {split: folder / f"{split}.conll" for split in ("train", "validation", "test")}
        tables = {
            split: read_conll(path, token_column=0, tag_column=1)
            for split, path in paths.items()
            if split != "test" or path.is_file()
        }
    splits, labels, found = tagged(tables, "tokens", "ner_tags", "iob2")
    description = "named entities of six types in social media text"
    return TaskData(name, "token-classification", labels, splits, description, notes=(*notes, *found))
