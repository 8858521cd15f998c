"""What a sweep is to try, as a TOML file says it: a grid, and options of ``train`` that hold for all of it. No torch.

tasks = ["copa", "pydoc-topic"]
seeds = 3                            # 1, 2, 3; or a list
budgets = [1.0, 0.5, 48]             # fractions of the full run's virtual tokens (1.0: that run), or totals
methods = ["share", "uniform"]
learning_rates = [0.005, 0.01]       # each task's own where left out
test = true

[train]                              # any option of train, by its flag
epochs = 2
num-virtual-tokens = 16

[train.copa]                         # and what differs for one task
data-dir = "data"
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from apt_core.config import Settings
from apt_core.errors import AptFileNotFoundError, AptValueError, bad_value
from apt_core.files import read_bounded
from apt_core.sweep_options import OPTIONS, TaskOptions, task_options
from apt_core.tasks import TASKS

MAX_SPEC_BYTES = 64 * 2**10
MAX_SEEDS, MAX_VALUES = 100, 50
"""of seeds, and of every other list"""
LARGEST_TOTAL = 10**7

Method = Literal["share", "threshold", "topk", "coverage", "greedy", "pareto", "uniform", "random"]
METHODS: tuple[Method, ...] = get_args(Method)
BLIND: tuple[Method, ...] = ("uniform", "random")
"""lengths that look at no run"""
MEASURED: tuple[Method, ...] = ("greedy", "pareto")
"""rest on what was measured on the full run, not on its gates"""


class SweepSpec(Settings):
    """A grid. Made by ``parse_spec``, which also checks ``train``.

    Raises:
        AptValueError: with one sentence per wrong field.
    """

    tasks: tuple[str, ...]
    """keys of ``TASKS``"""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...]
    budgets: tuple[int | float, ...]
    """whole numbers: virtual tokens over all layers; others: a fraction of those of the full run, 1.0 for itself"""
    methods: tuple[Method, ...] = ("share",)
    """how a budget is shared out over the layers"""
    learning_rates: tuple[Annotated[float, Field(gt=0, le=1)], ...] | None = None
    """None: that of ``train``, or the task's own"""
    test: bool = False
    """measure every finished run on the test split"""
    train: dict[str, Any] = Field(default_factory=dict)
    """flag of ``train`` -> value; a task's name -> the same for this task alone"""

    @field_validator("tasks", mode="before")
    @classmethod
    def _known_tasks(cls, value: Any) -> Any:
        names = f"a list of different tasks, of: {', '.join(TASKS)}"
        _check_list(value, names, lambda task: task in TASKS)
        return value

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_or_seeds(cls, value: Any) -> Any:
        accepted = f"a number of seeds from 1 to {MAX_SEEDS}, or as many different whole numbers from 0"
        if type(value) is int:
            if not 1 <= value <= MAX_SEEDS:
                raise _refused(accepted)
            return tuple(range(1, value + 1))
        _check_list(value, accepted, lambda seed: type(seed) is int and 0 <= seed < 2**32, MAX_SEEDS)
        return value

    @field_validator("budgets", mode="before")
    @classmethod
    def _totals_or_fractions(cls, value: Any) -> Any:
        accepted = (
            "a list of different totals of virtual tokens such as 48, and fractions of the full run over 0 up to 1.0"
        )
        _check_list(value, accepted, _is_budget)
        return value

    @field_validator("methods", mode="before")
    @classmethod
    def _known_methods(cls, value: Any) -> Any:
        _check_list(value, f"a list of different methods, of: {', '.join(METHODS)}", lambda name: name in METHODS)
        return value

    @field_validator("learning_rates", mode="before")
    @classmethod
    def _usable_rates(cls, value: Any) -> Any:
        if value is not None:
            accepted = "a list of different numbers over 0, up to 1"
            _check_list(value, accepted, lambda rate: type(rate) in (int, float) and 0 < rate <= 1)
        return value

    @property
    def prunes(self) -> bool:
        """Whether there is any budget but the full one."""
        return any(not is_full(budget) for budget in self.budgets)

    @property
    def measures(self) -> bool:
        """Whether a method needs measured full runs."""
        return self.prunes and any(method in MEASURED for method in self.methods)

    @property
    def needs_full(self) -> bool:
        """Whether full runs are trained: they are asked for, or lengths follow from them."""
        return any(map(is_full, self.budgets)) or any(method not in BLIND for method in self.methods)

    def options(self, task: str) -> TaskOptions:
        """What ``train`` says for a task.

        Raises:
            AptValueError: naming an option that there is not, or whose value is not accepted.
        """
        common = {flag: value for flag, value in self.train.items() if not isinstance(value, dict)}
        own = self.train.get(task, {})
        place = f"train.{task}" if own else "train"
        options = task_options({**common, **own}, task, place)
        if "lr" in options.given and self.learning_rates is not None:
            raise bad_value(f"{place}.lr", options.given["lr"], "nothing beside learning_rates, which says the same")
        if options.measure is False and self.measures:
            accepted = f"true, because {' and '.join(MEASURED)} rest on what is measured"
            raise bad_value(f"{place}.measure", False, accepted)
        return options

    def rates(self, task: str) -> tuple[float, ...]:
        """The learning rates that a task is trained with."""
        return self.learning_rates or (self.options(task).training.learning_rate,)


def is_full(budget: float) -> bool:
    """Whether a budget is the full run."""
    return isinstance(budget, float) and budget == 1.0


def read_spec(path: Path) -> SweepSpec:
    """Reads and checks a spec.

    Raises:
        AptFileNotFoundError: if there is none.
        AptValueError: if it is a link, too large, no TOML, or asks for what there is not: one line that names the key.
    """
    return parse_spec(spec_bytes(path), str(path))


def spec_bytes(path: Path) -> bytes:
    """The content of a spec.

    Raises:
        AptFileNotFoundError: if there is none.
        AptValueError: if it is a link, too large or cannot be read.
    """
    try:
        return read_bounded(path, MAX_SPEC_BYTES)
    except FileNotFoundError as problem:
        raise AptFileNotFoundError(f"{path}: no such file; accepted: a TOML file that says what to try.") from problem
    except AptValueError:
        raise
    except OSError as problem:
        raise AptValueError(f"{path}: cannot be read ({problem.strerror}).") from problem


def parse_spec(content: bytes, name: str) -> SweepSpec:
    """Checks the content of a spec, from anywhere.

    Args:
        content: TOML.
        name: what messages call it.

    Raises:
        AptValueError: if it is no TOML, or asks for what there is not: one line that names the key.
    """
    try:
        found = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as problem:
        raise AptValueError(f"{name}: not readable as TOML ({problem}).") from problem
    for key, value in found.items():
        if key not in SweepSpec.model_fields:
            hint = "Options of train go below [train]." if key.replace("_", "-") in OPTIONS else ""
            raise bad_value(f"{name}: {key}", value, f"only the keys {', '.join(SweepSpec.model_fields)}", hint)
    try:
        spec = SweepSpec(**found)
        for task, own in spec.train.items():
            if isinstance(own, dict) and task not in spec.tasks:
                raise bad_value(f"train.{task}", own, f"a table for one of its tasks: {', '.join(spec.tasks)}")
        for task in spec.tasks:
            spec.options(task)
    except AptValueError as problem:
        raise AptValueError(f"{name}: {problem}") from problem
    return spec


def spec_text(fields: dict[str, Any]) -> str:
    """A spec as TOML: the keys of ``SweepSpec`` -> plain values, lists of them, and for ``train`` tables."""
    train = fields.get("train", {})
    lines = [_line(key, value) for key, value in fields.items() if key != "train"]
    for name, table in (
        ("train", {flag: value for flag, value in train.items() if not isinstance(value, dict)}),
        *((f"train.{task}", own) for task, own in train.items() if isinstance(own, dict)),
    ):
        if table:
            lines += ["", f"[{name}]", *(_line(key, value) for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any) -> str:
    return f"{key} = {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _is_budget(value: Any) -> bool:
    return (type(value) is int and 1 <= value <= LARGEST_TOTAL) or (type(value) is float and 0 < value <= 1)


def _check_list(value: Any, accepted: str, fits: Callable[[Any], bool], most: int = MAX_VALUES) -> None:
    """Refuses what is no list of 1 to ``most`` different values that fit."""
    usable = isinstance(value, list | tuple) and 1 <= len(value) <= most
    if not usable or not all(isinstance(each, int | float | str) and fits(each) for each in value):
        raise _refused(accepted)
    if len({repr(each) for each in value}) < len(value):
        raise _refused(accepted)


def _refused(accepted: str) -> PydanticCustomError:
    return PydanticCustomError("accepted", "accepted: {words}", {"words": accepted})
