"""Reads the splits of a dataset on the Hugging Face Hub, or of a local dataset folder, through ``datasets``."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from apt_core.errors import AptValueError
from apt_core.tasks.table import Table, checked_header
from apt_core.tasks.tables import name_classes

_CONVERTED = "refs/convert/parquet"
"""branch where the Hub keeps a Parquet copy of a dataset that was a Python script"""


def read_dataset(name: str, config: str | None, wanted: Collection[str] | None = None) -> dict[str, Table]:
    """Every split of a dataset.

    Args:
        name: on the Hub, or a local folder.
        config: the dataset's configuration; None: the only one.
        wanted: columns that are read; None: all.

    Raises:
        AptValueError: in one line, if the dataset cannot be had: not reachable, unknown, or not readable.
    """
    from datasets import Dataset

    try:
        loaded = _load(name, config)
        return {
            str(split): _table(f"dataset {name}, split {split}", data, wanted)
            for split, data in loaded.items()
            if isinstance(data, Dataset)
        }
    except AptValueError:
        raise
    except Exception as problem:  # whatever the Hub, the network or a stranger's files bring
        config_said = f", configuration {config!r}," if config else ""
        reason = " ".join(str(problem).split())[:300].rstrip(". ") or type(problem).__name__
        raise AptValueError(
            f"dataset_name: {name!r}{config_said} cannot be read: {reason}. {_advice(name, problem)}"
        ) from problem


def _load(name: str, config: str | None) -> dict[str, Any]:
    import datasets

    folder = Path(name).expanduser()
    place = str(folder) if folder.is_dir() else name
    try:
        return datasets.load_dataset(place, config)
    except RuntimeError as problem:
        if "Dataset scripts are no longer supported" not in str(problem) or folder.is_dir():
            raise
    return datasets.load_dataset(name, data_dir=_converted_folder(name, config), revision=_CONVERTED)


def _converted_folder(name: str, config: str | None) -> str:
    """The folder of a configuration in the Parquet copy, which knows configurations by their folder only."""
    from huggingface_hub import HfApi

    files = HfApi().list_repo_files(name, repo_type="dataset", revision=_CONVERTED)
    configs = sorted({file.partition("/")[0] for file in files if file.endswith(".parquet")})
    if config is None and len(configs) == 1:
        return configs[0]
    if config not in configs:
        raise AptValueError(
            f"dataset_config_name: got {config!r} for dataset {name!r}; accepted: {', '.join(configs)}."
        )
    return config


def _table(name: str, data: Any, wanted: Collection[str] | None) -> Table:
    columns = checked_header(name, data.column_names)
    names = {}
    for column, feature in data.features.items():
        while hasattr(feature, "feature"):
            feature = feature.feature
        if getattr(feature, "names", None):
            names[column] = tuple(map(str, feature.names))
    kept = [column for column in columns if wanted is None or column in wanted]
    rows = data.select_columns(kept).to_list() if kept else [{}] * len(data)
    return Table(name, columns, name_classes(rows, names), range(1, len(rows) + 1), "row", names)


def _advice(name: str, problem: Exception) -> str:
    if "config" in str(problem).lower():
        return "Name one of the dataset's configurations with --dataset-config-name."
    if "Dataset scripts" in str(problem):
        return "Datasets made by a Python script are not run; save it as Parquet or JSON Lines and give the folder."
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "HF_HUB_OFFLINE is set: unset it, or give a local folder."
    return "Check the name and the network, log in with `hf auth login` if it is private, or give a local folder."
