"""The tables of a task that knows its own columns: from its folder, or from a dataset of the same form.

Where a folder has ``dev32.jsonl``, the few-shot protocol of FewGLUE_32dev is followed: ``train.jsonl`` to train on,
``dev32.jsonl`` to choose the checkpoint, SuperGLUE's ``validation.jsonl`` as the test split.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from apt_core.errors import AptFileNotFoundError, AptValueError
from apt_core.tasks.files import read_jsonl
from apt_core.tasks.source import DataSource
from apt_core.tasks.splits import HIDDEN_TEST, dataset_splits, existing_folder, hides_test
from apt_core.tasks.table import Table

FEW_SHOT_FILE = "dev32.jsonl"


class NamedTable(NamedTuple):
    """One split and what the ids of its examples begin with."""

    stem: str
    table: Table


def read_named(source: DataSource, name: str, label: str = "label") -> tuple[dict[str, NamedTable], list[str]]:
    """The splits of a task in SuperGLUE's form, and what a person should know. A test split without labels is left out.

    Args:
        source: a folder of JSON Lines files, or a dataset whose configuration is called like the task.
        name: of the task.
        label: column with the label.

    Raises:
        AptError: if there is no such place, or a file is missing or malformed.
    """
    if source.dataset_name:
        config = source.dataset_config_name or (None if Path(source.dataset_name).expanduser().is_dir() else name)
        tables, notes = dataset_splits(source, config)
        found = {split: NamedTable(split, table) for split, table in tables.items()}
    else:
        folder, notes = task_folder(source, name), []
        found = {
            split: NamedTable(stem, read_jsonl(folder / f"{stem}.jsonl"))
            for split, stem in _stems(folder).items()
            if split != "test" or (folder / f"{stem}.jsonl").is_file()
        }
    if "validation" not in found:
        raise AptValueError(f"dataset_name: {source.dataset_name!r} has no validation split, which task {name} needs.")
    if "test" in found and hides_test([row.get(label) for row in found["test"].table.rows], (-1,)):
        del found["test"]
        notes.append(HIDDEN_TEST)
    return found, notes


def task_folder(source: DataSource, name: str) -> Path:
    """The folder with a task's files: ``data_dir``, or the folder of the task's name in it.

    Raises:
        AptFileNotFoundError: if there is none.
    """
    folder = existing_folder(source.data_dir or "", f"{name}/")
    return folder / name if (folder / name).is_dir() else folder


def _stems(folder: Path) -> dict[str, str]:
    """The file of every split, without its ending; that of the test split may be missing."""
    if not (folder / FEW_SHOT_FILE).is_file():
        return {split: split for split in ("train", "validation", "test")}
    if not (folder / "validation.jsonl").is_file():
        raise AptFileNotFoundError(
            f"{folder / 'validation.jsonl'}: no such file; with {FEW_SHOT_FILE} it is the test split."
        )
    return {"train": "train", "validation": Path(FEW_SHOT_FILE).stem, "test": "validation"}
