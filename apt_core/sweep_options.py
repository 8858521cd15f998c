"""The options of ``train`` that a sweep's spec may set, checked as ``train`` itself would. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from apt_core.config import AptConfig, Settings, TrainSettings
from apt_core.errors import AptValueError, bad_value
from apt_core.tasks import TASKS
from apt_core.tasks.source import DataSource

_RATES = {
    "learning_rate": "lr",
    "prefix_learning_rate": "prefix-lr",
    "gate_learning_rate": "gate-lr",
    "head_learning_rate": "head-lr",
}
_NOT_OPTIONS = ("prefix_lengths", "kept_tokens", "modules_to_save", "seed")
"""what the sweep itself decides, and what is no option of ``train``"""
OPTIONS: dict[str, tuple[type[Settings] | None, str]] = {
    _RATES.get(field, field.replace("_", "-")): (kind, field)
    for kind in (AptConfig, TrainSettings, DataSource)
    for field in kind.model_fields
    if field not in _NOT_OPTIONS
} | {"model": (None, "model"), "measure": (None, "measure"), "memory-check": (None, "memory_check")}
"""flag of ``train`` without its dashes -> the settings that it belongs to, and its field"""
_LISTS = ("attention", "snapshot_steps")
"""that the command line takes as one text with commas"""
_SWITCHES = ("measure", "memory-check")
"""options that are no settings of the run"""
DEFAULT_MODEL = "minilm"
_SAID_BY = {"seed": "The key seeds says it.", "prefix-lengths": "The keys budgets and methods say it."}


class TaskOptions(NamedTuple):
    """The options that hold for one task."""

    given: dict[str, Any]
    """flag -> value, as far as the spec says it"""
    model: str
    apt: AptConfig
    training: TrainSettings
    data: DataSource
    measure: bool | None
    """None: not said"""

    @property
    def unchecked(self) -> list[str]:
        """What every training of the task is to be told beside its settings."""
        return ["--no-memory-check"] if self.given.get("memory-check") is False else []

    def words(self) -> list[str]:
        """The settings for the command line, but for the learning rate."""
        words: list[str] = []
        for flag, value in self.given.items():
            if flag in ("lr", *_SWITCHES):
                continue
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                words += [f"--{flag}", ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
        return words


def task_options(given: Mapping[str, Any], task: str, place: str) -> TaskOptions:
    """The options of one task.

    Args:
        given: flag of ``train``, with dashes or underscores in it -> value.
        task: a key of ``TASKS``.
        place: where the spec has them, for messages.

    Raises:
        AptValueError: naming an option that there is not, or whose value is not accepted.
    """
    values = {flag.replace("_", "-"): value for flag, value in given.items()}
    for flag, value in values.items():
        if flag not in OPTIONS or isinstance(value, dict):
            accepted = f"an option of train that a sweep does not vary: {', '.join(OPTIONS)}"
            raise bad_value(f"{place}.{flag}", value, accepted, _SAID_BY.get(flag, ""))
    model = values.get("model", DEFAULT_MODEL)
    if not isinstance(model, str) or not model.strip():
        raise bad_value(f"{place}.model", model, "a folder, a Hub name, or minilm")
    for flag in _SWITCHES:
        if not isinstance(values.get(flag), bool | None):
            raise bad_value(f"{place}.{flag}", values[flag], "true or false")
    fields: dict[type[Settings] | None, dict[str, Any]] = {AptConfig: {}, TrainSettings: {}, DataSource: {}, None: {}}
    for flag, value in values.items():
        kind, field = OPTIONS[flag]
        is_list = field in _LISTS and isinstance(value, str)
        fields[kind][field] = [part.strip() for part in value.split(",")] if is_list else value
    try:
        apt = AptConfig(**fields[AptConfig])
        training = TrainSettings(**{**TASKS[task].training, **fields[TrainSettings]})
        data = DataSource(**fields[DataSource])
    except AptValueError as problem:
        raise AptValueError(f"{place}: {problem}") from problem
    checked = {AptConfig: apt, TrainSettings: training, DataSource: data}
    for flag, (kind, field) in ((flag, OPTIONS[flag]) for flag in values):
        values[flag] = values[flag] if kind is None else getattr(checked[kind], field)
    return TaskOptions(values, model, apt, training, data, values.get("measure"))
