"""What one table of the experiment is: a task, how much of its data, a backbone and how long is trained. No torch."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from apt_core.config import TrainSettings
from apt_core.errors import bad_value
from apt_core.tasks import TASKS, load_task
from apt_core.tasks.base import TaskData
from apt_core.tasks.checks import check_task
from apt_core.tasks.shots import take_shots
from apt_core.tasks.source import DataSource

FEW_STEPS = 120
"""optimizer steps that a few-shot training has at least"""
FEW_EXAMPLES = 64
"""training examples up to which batches are of ``FEW_BATCH``"""
FEW_BATCH = 4


class Setting(BaseModel):
    """All methods of one table share it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    """as the user gave it"""
    task: str
    """a name of ``TASKS``, or NAME:HUB-NAME or NAME:HUB-NAME:CONFIGURATION"""
    shots: int | None
    """training examples per class, or in all where there are no classes; None: all"""
    epochs: int
    batch_size: int
    max_length: int
    num_virtual_tokens: int
    """in every layer, of all methods but PT-2* and PT-2+"""
    max_steps: int | None = None
    """of a rehearsal: one epoch on so few examples; None: the real experiment"""
    per_class: int | None = None
    """what ``--shots`` is given: ``shots``, or fewer for a rehearsal"""

    @property
    def size(self) -> str:
        """How much data, in a file name or a table."""
        return "all" if self.shots is None else str(self.shots)

    @property
    def slug(self) -> str:
        """A folder name that no other setting has."""
        parts = [self.model, self.task, self.size, f"e{self.epochs}", f"b{self.batch_size}", f"l{self.max_length}"]
        parts += [f"t{self.num_virtual_tokens}", *([f"m{self.max_steps}"] if self.max_steps else [])]
        parts.append(f"{zlib.crc32(f'{self.model} {self.task}'.encode()):08x}")  # what the next line makes alike
        return "-".join(re.sub(r"[^\w.]+", "_", part).strip("_.") for part in parts)


class Sizes(NamedTuple):
    """Examples of each split as a training sees them."""

    train: int
    validation: int
    test: int


class Options(NamedTuple):
    """What the user chose for all settings."""

    max_length: int | None
    num_virtual_tokens: int
    max_steps: int | None
    epochs: Mapping[str, int]
    """by task, or by task/shots"""
    data_dir: str | None


def task_source(task: str, data_dir: str | None) -> tuple[str, DataSource]:
    """The name for ``--task`` and where its data is.

    Raises:
        AptValueError: if there is no such task.
    """
    name, *hub = task.split(":")
    if name not in TASKS or len(hub) > 2 or not all(hub):
        raise bad_value("tasks", task, f"{', '.join(TASKS)}; or one of them with :HUB-NAME or :HUB-NAME:CONFIGURATION")
    if hub:
        return name, DataSource(dataset_name=hub[0], dataset_config_name=hub[1] if len(hub) == 2 else None)
    return name, DataSource(data_dir=data_dir if TASKS[name].needs_data else None)


def make_setting(model: str, task: str, shots: int | None, options: Options) -> tuple[Setting, Sizes]:
    """Reads and checks the data, and decides what was not chosen.

    Raises:
        AptError: if the task, its files or their content are not usable, or it has no test split.
    """
    name, _ = task_source(task, options.data_dir)
    data = _checked(task, options.data_dir)
    defaults = TrainSettings(**TASKS[name].training)
    per_class, batch_size = shots, defaults.batch_size
    if options.max_steps is not None:
        per_class = _cut(data, options.max_steps * batch_size, shots)
    if per_class is not None:
        data = take_shots(data, per_class, seed=1)
    train = len(data.splits["train"])
    if options.max_steps is None and train <= FEW_EXAMPLES:
        batch_size = min(batch_size, FEW_BATCH)
    epochs = 1 if options.max_steps is not None else _epochs(task, shots, options, defaults.epochs, train, batch_size)
    setting = Setting(
        model=model,
        task=task,
        shots=shots,
        epochs=epochs,
        batch_size=batch_size,
        max_length=options.max_length or defaults.max_length,
        num_virtual_tokens=options.num_virtual_tokens,
        max_steps=options.max_steps,
        per_class=per_class,
    )
    return setting, Sizes(train, len(data.splits["validation"]), len(data.splits["test"]))


def check_epochs(settings: Iterable[Setting], epochs: Mapping[str, int]) -> None:
    """Refuses a number of epochs for what is not trained.

    Raises:
        AptValueError: naming it.
    """
    names = list(dict.fromkeys(_epochs_name(setting.task, setting.shots) for setting in settings))
    for name, number in epochs.items():
        if name not in names:
            raise bad_value("epochs", f"{name}={number}", f"a number for {', '.join(names)}")


def _epochs_name(task: str, shots: int | None) -> str:
    return task if shots is None else f"{task}/{shots}"


def words_of(setting: Setting, data_dir: str | None) -> list[str]:
    """Options of ``train`` that all methods of a table share."""
    words = ["--model", setting.model, *task_words(setting.task, data_dir)]
    words += ["--epochs", str(setting.epochs), "--batch-size", str(setting.batch_size)]
    words += ["--max-length", str(setting.max_length)]
    return words if setting.per_class is None else [*words, "--shots", str(setting.per_class)]


def task_words(task: str, data_dir: str | None) -> list[str]:
    """Options of ``train`` that say the task and where its data is."""
    return ["--task", task_source(task, data_dir)[0], *place_words(task, data_dir)]


def place_words(task: str, data_dir: str | None) -> list[str]:
    """Options of any command that say where a task's data is."""
    _, source = task_source(task, data_dir)
    places = ("data_dir", "dataset_name", "dataset_config_name")
    given = [(name, getattr(source, name)) for name in places if getattr(source, name)]
    return [word for name, value in given for word in (f"--{name.replace('_', '-')}", value)]


@cache
def _checked(task: str, data_dir: str | None) -> TaskData:
    """A task's data, read once for all settings."""
    data = load_task(*task_source(task, data_dir))
    check_task(data)
    if not data.splits.get("test"):
        raise bad_value("tasks", task, "a task with a test split")
    return data


def _epochs(task: str, shots: int | None, options: Options, default: int, train: int, batch_size: int) -> int:
    chosen = options.epochs.get(_epochs_name(task, shots))
    if chosen is not None:
        return chosen
    return default if shots is None else max(default, math.ceil(FEW_STEPS / math.ceil(train / batch_size)))


def _cut(data: TaskData, examples: int, shots: int | None) -> int | None:
    """Examples per class such that there are at most ``examples`` in all; None where there are no more anyway."""
    train = data.splits["train"]
    labels = [row["label"] for row in train] if data.family == "sequence-classification" else [0] * len(train)
    smallest = min(map(labels.count, set(labels)))
    fewest = min(max(1, examples // len(set(labels))), smallest if shots is None else shots)
    return fewest if shots is not None or len(train) > examples else None
