"""Task name to data, and family name to head, tokenisation and metric. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from apt_core.errors import AptFileNotFoundError, AptValueError, bad_value
from apt_core.tasks.base import Family, TaskData


class TaskEntry(NamedTuple):
    """A task that ``--task`` accepts."""

    module: str
    """module under ``apt_core.tasks`` with ``load(folder)``, ``load(folder, name)`` or, built in, ``load()``"""
    needs_data: bool
    description: str
    training: dict[str, Any]
    """settings that suit the task with the offline backbone; anything the user gives goes before them"""
    named: bool = False
    """whether the module has several tasks and is told which"""


TASKS: dict[str, TaskEntry] = {
    "pydoc-topic": TaskEntry(
        "pydoc_topic",
        False,
        "which area of Python's standard library a docstring comes from; built in",
        {"epochs": 3, "learning_rate": 1e-2},
    ),
    "pydoc-entities": TaskEntry(
        "pydoc_entities",
        False,
        "parameters, exceptions, types and callables in docstrings; built in",
        {"epochs": 4, "learning_rate": 1e-2},
    ),
    "copa": TaskEntry(
        "copa", True, "the more plausible of two causes or effects (SuperGLUE)", {"epochs": 15, "learning_rate": 1e-2}
    ),
    "wnut17": TaskEntry(
        "wnut17", True, "emerging named entities in social media (WNUT 2017)", {"epochs": 8, "learning_rate": 1e-2}
    ),
}

_FEW_EPOCHS = {"epochs": 20, "learning_rate": 1e-2, "batch_size": 8}
TASKS |= {
    name: TaskEntry("superglue", True, description, {**_FEW_EPOCHS, "max_length": max_length}, named=True)
    for name, description, max_length in (
        ("boolq", "yes or no to a question about a passage (SuperGLUE)", 256),
        ("cb", "whether a premise entails a hypothesis, contradicts it or neither (SuperGLUE)", 128),
        ("rte", "whether a premise entails a hypothesis (SuperGLUE)", 128),
        ("wic", "whether a word has the same meaning in two sentences (SuperGLUE)", 128),
        ("wsc", "whether a pronoun refers to a noun phrase (SuperGLUE)", 128),
    )
}

_FAMILIES = {
    "sequence-classification": ("sentence_classification", "SentenceClassification"),
    "token-classification": ("token_classification", "TokenClassification"),
    "multiple-choice": ("multiple_choice", "MultipleChoice"),
}


def load_task(name: str, data_dir: str | Path | None = None) -> TaskData:
    """The text and labels of a task.

    Args:
        name: a key of ``TASKS``.
        data_dir: folder with the task's files, or with a folder of the task's name; built-in tasks need none.

    Raises:
        AptValueError: if the task is unknown, needs a ``data_dir``, or a file is malformed (file and line named).
        AptFileNotFoundError: if the folder or one of its files does not exist.
    """
    if name not in TASKS:
        raise bad_value("task", name, ", ".join(TASKS))
    entry = TASKS[name]
    load: Callable[..., TaskData] = import_module(f"apt_core.tasks.{entry.module}").load
    if not entry.needs_data:
        return load()
    if data_dir is None:
        raise AptValueError(f"data-dir: task {name} reads files; give --data-dir, the folder that holds {name}/.")
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise AptFileNotFoundError(
            f"data-dir: got {str(data_dir)!r}, which is not a folder; accepted: one with {name}/."
        )
    folder = folder / name if (folder / name).is_dir() else folder
    return load(folder, name) if entry.named else load(folder)


def family_of(task: TaskData) -> Family:
    """The family object of a task; the first call loads what it needs."""
    return _family(task.family)


@cache
def _family(name: str) -> Family:
    module, class_name = _FAMILIES[name]
    return getattr(import_module(f"apt_core.tasks.{module}"), class_name)()
