"""Finds the table of every split: in a folder, in files given one by one, or in a dataset."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from apt_core.errors import AptFileNotFoundError, AptValueError
from apt_core.tasks.hub import read_dataset
from apt_core.tasks.source import FILES, DataSource
from apt_core.tasks.table import Table, is_missing

SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "dev", "valid"), "test": ("test",)}
"""split to the names that files and datasets give it"""


class Tables(NamedTuple):
    """What was found, and what a person should know about it."""

    splits: dict[str, Table]
    """``train`` first; there may be no ``validation`` and no ``test``"""
    notes: list[str]


def read_splits(
    source: DataSource, read: Callable[[Path], Table], endings: Collection[str], wanted: Collection[str]
) -> Tables:
    """The tables of a task that reads columns.

    Args:
        source: says where.
        read: one file to its table.
        endings: of the files that ``read`` understands.
        wanted: columns to read of a dataset.

    Raises:
        AptFileNotFoundError: if a folder or file does not exist.
        AptValueError: if a split is ambiguous, train is missing, or a file cannot be read.
    """
    if source.dataset_name:
        return dataset_splits(source, source.dataset_config_name, wanted)
    if source.data_dir:
        paths = _paths_in(existing_folder(source.data_dir, "the task's files"), endings)
    else:
        given = {split: getattr(source, field) for split, field in zip(SPLIT_NAMES, FILES, strict=True)}
        paths = {split: Path(path).expanduser() for split, path in given.items() if path}
    return Tables({split: read(path) for split, path in paths.items()}, [])


def dataset_splits(source: DataSource, config: str | None, wanted: Collection[str] | None = None) -> Tables:
    """The tables of the dataset that ``source`` names.

    Raises:
        AptValueError: if it cannot be had, or has no train split.
    """
    found = read_dataset(source.dataset_name, config, wanted)
    splits = {}
    for split, names in SPLIT_NAMES.items():
        known = [name for name in names if name in found]
        if len(known) > 1:
            raise AptValueError(f"dataset_name: {source.dataset_name!r} has {' and '.join(known)}; accepted: one.")
        if known:
            splits[split] = found.pop(known[0])
    if "train" not in splits:
        raise AptValueError(f"dataset_name: {source.dataset_name!r} has no train split; found: {', '.join(found)}.")
    return Tables(splits, [f"splits of the dataset that are not read: {', '.join(found)}"] if found else [])


def existing_folder(data_dir: str, holds: str) -> Path:
    """The folder a person named.

    Raises:
        AptFileNotFoundError: if there is none.
    """
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise AptFileNotFoundError(f"data-dir: got {data_dir!r}, which is not a folder; accepted: one with {holds}.")
    return folder


def hides_test(values: list[Any], also_hidden: Collection[Any] = ()) -> bool:
    """Whether a test split comes without its labels: all of them missing, or -1 and the like."""
    return all(is_missing(value) or value in also_hidden for value in values)


HIDDEN_TEST = "test: left out, its labels are hidden"


def _paths_in(folder: Path, endings: Collection[str]) -> dict[str, Path]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    paths = {}
    for split, names in SPLIT_NAMES.items():
        named = [path for path in files if path.stem.lower() in names]
        usable = [path for path in named if path.suffix.lower() in endings]
        if len(usable) > 1:
            found = ", ".join(path.name for path in usable)
            raise AptValueError(f"{folder}: several files for the {split} split: {found}; leave one.")
        if usable:
            paths[split] = usable[0]
        elif named or split == "train":
            found = ", ".join(path.name for path in files[:20]) or "nothing"
            raise AptFileNotFoundError(
                f"{folder}: no {split} file that can be read; accepted: {' or '.join(names)} with one of the endings "
                f"{', '.join(endings)}; found: {found}."
            )
    return paths
