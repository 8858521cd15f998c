"""Task name to data, and family name to head, tokenisation and metric. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from apt_core.errors import AptValueError, bad_value
from apt_core.tasks.base import Family, TaskData
from apt_core.tasks.source import COLUMNS, FILES, DataSource


class TaskEntry(NamedTuple):
    """A task that ``--task`` accepts."""

    module: str
    """module under ``apt_core.tasks`` with ``load(source, name)`` or, built in, ``load()``"""
    needs_data: bool
    description: str
    training: dict[str, Any]
    """settings that suit the task with the offline backbone; anything the user gives goes before them"""
    columns: tuple[str, ...] = ()
    """fields of ``DataSource`` that say how one's own data is read; empty for a task that knows its data's form"""


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
    name: TaskEntry("superglue", True, description, {**_FEW_EPOCHS, "max_length": max_length})
    for name, description, max_length in (
        ("boolq", "yes or no to a question about a passage (SuperGLUE)", 256),
        ("cb", "whether a premise entails a hypothesis, contradicts it or neither (SuperGLUE)", 128),
        ("rte", "whether a premise entails a hypothesis (SuperGLUE)", 128),
        ("wic", "whether a word has the same meaning in two sentences (SuperGLUE)", 128),
        ("wsc", "whether a pronoun refers to a noun phrase (SuperGLUE)", 128),
    )
}

TASKS |= {
    name: TaskEntry(module, True, description, {}, (*columns, "validation_fraction"))
    for name, module, description, columns in (
        (
            "text-classification",
            "text_columns",
            "your own texts, or pairs of texts, with a class each",
            ("text_column", "text_pair_column", "label_column"),
        ),
        (
            "token-classification",
            "token_columns",
            "your own tokens with a tag each",
            ("tokens_column", "tags_column", "tag_scheme"),
        ),
        (
            "causal-lm",
            "prompt_columns",
            "your own texts, or prompts and how they go on, for a decoder",
            ("text_column", "prompt_column", "target_column"),
        ),
        (
            "seq2seq-lm",
            "prompt_columns",
            "your own texts and what to write from them, for an encoder-decoder",
            ("prompt_column", "target_column"),
        ),
    )
}

_FAMILIES = {
    "sequence-classification": ("sentence_classification", "SentenceClassification"),
    "token-classification": ("token_classification", "TokenClassification"),
    "multiple-choice": ("multiple_choice", "MultipleChoice"),
    "causal-lm": ("causal_lm", "CausalLM"),
    "seq2seq-lm": ("seq2seq_lm", "Seq2SeqLM"),
}


def load_task(name: str, source: DataSource = DataSource()) -> TaskData:  # noqa: B008  (immutable)
    """The text and labels of a task.

    Args:
        name: a key of ``TASKS``.
        source: where the data is, and for one's own data which columns hold what; built-in tasks need none.

    Raises:
        AptValueError: if the task is unknown, does not read what ``source`` names, or the data is malformed (file and
            line, or row, named).
        AptFileNotFoundError: if the folder or one of its files does not exist.
    """
    if name not in TASKS:
        raise bad_value("task", name, ", ".join(TASKS))
    entry = TASKS[name]
    _check_source(name, entry, source)
    load: Callable[..., TaskData] = import_module(f"apt_core.tasks.{entry.module}").load
    return load(source, name) if entry.needs_data else load()


def infer_task(source: DataSource) -> str | None:
    """The task of one's own data that the columns given belong to; None where they do not say.

    Raises:
        AptValueError: if they say language modelling, but not of which kind.
    """
    if source.label_column or source.text_pair_column:
        return "text-classification"
    if source.tags_column or source.tokens_column:
        return "token-classification"
    if source.prompt_column or source.target_column:
        raise AptValueError(
            "task: prompt and target suit two tasks; give --task causal-lm (decoders such as GPT-2) or "
            "--task seq2seq-lm (encoder-decoders such as T5)."
        )
    return None


def _check_source(name: str, entry: TaskEntry, source: DataSource) -> None:
    """Refuses what the task would silently not read, and a task that reads data without a place."""
    readable = {"data_dir", "dataset_name", "dataset_config_name"} if entry.needs_data else set()
    if entry.columns:
        readable |= {*FILES, *entry.columns}
    unread = [field for field in source.given() if field not in readable]
    if unread:
        flag = f"--{unread[0].replace('_', '-')}"
        if not entry.needs_data:
            raise AptValueError(f"{unread[0]}: task {name} is built in and reads no data; leave {flag} out.")
        accepted = [field for field in COLUMNS if field in entry.columns]
        reads = ", ".join(accepted) if accepted else "data of its own form, from --data-dir or --dataset-name"
        own = ", ".join(other for other in TASKS if TASKS[other].columns)
        hint = "" if accepted else f" Your own data is read by --task {own.replace(', ', ' or ')}."
        raise AptValueError(f"{unread[0]}: task {name} does not read it; it reads {reads}. Leave {flag} out.{hint}")
    if entry.needs_data and source.place is None:
        if entry.columns:
            raise AptValueError(
                f"data-dir: task {name} reads your own data; give --train-file, --data-dir or --dataset-name."
            )
        raise AptValueError(
            f"data-dir: task {name} reads files; give --data-dir, the folder that holds {name}/, or --dataset-name."
        )


def family_of(task: TaskData) -> Family:
    """The family object of a task; the first call loads what it needs."""
    return _family(task.family)


@cache
def _family(name: str) -> Family:
    module, class_name = _FAMILIES[name]
    return getattr(import_module(f"apt_core.tasks.{module}"), class_name)()
