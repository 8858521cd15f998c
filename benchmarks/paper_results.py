"""What has been measured of the experiment: one JSON file, replaced after every training. No torch.

Axes: L layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from apt_core.errors import AptValueError, bad_value
from apt_core.files import write_atomic
from apt_core.gate_log import GateLog
from apt_core.json_files import read_model
from apt_core.metric_names import lower_is_better
from apt_core.run_format import GATES_FOLDER, PREDICTIONS_FILE, RunInfo, read_json_lines, read_run_info
from apt_core.settled import is_saturated, settled_mass
from benchmarks.paper_methods import APT, METHODS, star_lengths
from benchmarks.paper_settings import Setting

VERSION = 1
MAX_BYTES = 32 * 2**20
DIGITS = 6


class Measured(BaseModel):
    """One training that is finished."""

    model_config = ConfigDict(extra="ignore")

    method: str
    learning_rate: float
    seed: int
    prefix_lengths: list[int]
    """virtual tokens per layer [L]"""
    num_parameters: dict[str, int]
    """trained ones by part: prefix, token_gate, layer_scale, head"""
    token_sizes: list[int]
    """parameters of a virtual token of each layer, without gates [L]"""
    seconds: float
    """training, with the evaluation after each epoch"""
    device: str
    validation: float | None
    """the task's metric; None where it is not finite"""
    test: float | None = None
    """None: not finite, or not measured: it is only with the learning rate that was chosen"""
    tested: bool = False
    gate_mass: list[float] | None = None
    """final weights of each layer's gates, summed over its virtual tokens [L]; None if there are none or it diverged"""
    gate_spread: list[float] | None = None
    """standard deviation over the validation examples of each layer's mean token gate [L]; None likewise"""
    gate_saturation: list[float] | None = None
    """part of each layer's virtual tokens whose gate is saturated at the last step [L]; None likewise"""

    @property
    def parameters(self) -> int:
        """All that were trained."""
        return sum(self.num_parameters.values())

    def star(self) -> list[int]:
        """Of APT: the lengths that PT-2* has with this run's gates [L]; the same as here if it diverged."""
        if self.gate_mass is None:
            return self.prefix_lengths
        return list(star_lengths(self.gate_mass, sum(self.prefix_lengths)))


class Grid(NamedTuple):
    """What a learning rate was chosen from."""

    rates: tuple[float, ...]
    """as they are for prefixes"""
    seeds: int
    """that were trained with each"""


class Table(BaseModel):
    """What was measured with one setting."""

    model_config = ConfigDict(extra="ignore")

    setting: Setting
    metric_name: str
    split_sizes: dict[str, int]
    data_hash: str
    """of the data of seed 1; few-shot examples differ from seed to seed"""
    chosen: dict[str, float] = Field(default_factory=dict)
    """method -> learning rate that was best on validation"""
    grids: dict[str, Grid] = Field(default_factory=dict)
    """method -> what it was chosen from"""
    trainings: list[Measured] = Field(default_factory=list)

    @property
    def sign(self) -> int:
        """1 where larger values of the metric are better, else -1."""
        return -1 if lower_is_better(self.metric_name) else 1

    def find(self, method: str, rate: float, seed: int, lengths: Sequence[int] | None = None) -> Measured | None:
        """A training, if it was measured; with these lengths, if any are given."""
        for each in self.trainings:
            if (each.method, each.learning_rate, each.seed) == (method, rate, seed):
                return each if lengths is None or each.prefix_lengths == list(lengths) else None
        return None

    def final(self, method: str) -> dict[int, Measured]:
        """Seed to training, of those with the chosen learning rate that were measured on test.

        Of PT-2* only those with the lengths of APT's final run of their seed: APT may have been measured anew since.
        """
        rate = self.chosen.get(method)
        found = [each for each in self.trainings if (each.method, each.learning_rate) == (method, rate) and each.tested]
        if METHODS[method].lengths == "gates":
            sources = self.final(APT)
            found = [
                each for each in found if each.seed in sources and each.prefix_lengths == sources[each.seed].star()
            ]
        return {each.seed: each for each in sorted(found, key=lambda each: each.seed)}


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore")

    schema_version: int = VERSION
    tables: list[Table] = Field(default_factory=list)


class Results:
    """The results file.

    Args:
        path: what is there already stays.

    Raises:
        AptValueError: if it is damaged, or of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = read_model(path, _File, MAX_BYTES, VERSION) if path.exists() else _File()

    @property
    def tables(self) -> list[Table]:
        """In the order in which they were begun."""
        return self._file.tables

    def table(self, setting: Setting) -> Table | None:
        """What was measured with a setting; None: nothing yet."""
        return next((table for table in self.tables if table.setting == setting), None)

    def add(self, setting: Setting, measured: Measured, info: RunInfo) -> None:
        """Takes a training in, in place of an earlier one of the same method, learning rate and seed, and saves.

        Raises:
            AptValueError: if the run was trained on other data than the others of its table.
            OSError: if the file cannot be written.
        """
        table = self.table(setting)
        facts = (info.metric_name, info.split_sizes)
        if table is None:
            table = Table(setting=setting, metric_name=facts[0], split_sizes=facts[1], data_hash="")
            self.tables.append(table)
        same_draw = setting.per_class is None or measured.seed == 1
        if facts != (table.metric_name, table.split_sizes) or (
            same_draw and table.data_hash and table.data_hash != info.data_hash
        ):
            raise AptValueError(
                f"results: {self.path} holds trainings of {setting.task} on other data; accepted: the same data. Give "
                "another file with --results."
            )
        if same_draw:
            table.data_hash = info.data_hash
        key = (measured.method, measured.learning_rate, measured.seed)
        others = [each for each in table.trainings if (each.method, each.learning_rate, each.seed) != key]
        table.trainings = [*others, measured]
        self.save()

    def choose(self, setting: Setting, method: str, rate: float, grid: Grid) -> None:
        """Notes the learning rate that a method is measured with, if it is another than before, and saves."""
        table = self.table(setting)
        if table is not None and (table.chosen.get(method), table.grids.get(method)) != (rate, grid):
            table.chosen[method], table.grids[method] = rate, grid
            self.save()

    def check_grids(self, settings: Iterable[Setting], methods: Sequence[str], grid: Grid) -> None:
        """Refuses to choose some methods of a table from other learning rates than the rest of it.

        Raises:
            AptValueError: naming a method that would be left with its own grid.
        """
        for setting in settings:
            table = self.table(setting)
            for method, other in table.grids.items() if table is not None else ():
                if method not in methods and other != grid:
                    rates = ",".join(f"{rate:g}" for rate in other.rates)
                    raise bad_value(
                        "learning-rates",
                        f"{','.join(f'{rate:g}' for rate in grid.rates)} on {grid.seeds} seeds",
                        f"{rates} on {other.seeds} seeds, which {method} of {setting.task} was chosen from",
                        f"Or name {method}, too, in --methods, or another file in --results.",
                    )

    def save(self) -> None:
        """Writes the file in one step.

        Raises:
            OSError: if that is not possible.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, (self._file.model_dump_json(indent=1) + "\n").encode())


def measured_of(folder: Path, method: str, rate: float) -> tuple[Measured, RunInfo]:
    """What is kept of a finished run.

    Raises:
        AptError: if it cannot be read.
    """
    info = read_run_info(folder)
    gates = _gates(folder) if METHODS[method].has_token_gates else {}
    trained = {part: count for part, count in info.num_parameters.items() if part != "frozen"}
    measured = Measured(
        method=method,
        learning_rate=rate,
        seed=info.seed,
        prefix_lengths=info.prefix_lengths,
        num_parameters=trained,
        token_sizes=[heads * (key + value) for heads, key, value, *_ in info.layer_shapes],
        seconds=round(info.seconds, 1),
        device=info.device,
        validation=_metric(info, "validation"),
        test=_metric(info, "test"),
        tested="test" in info.metrics,
        **gates,
    )
    return measured, info


def _metric(info: RunInfo, split: str) -> float | None:
    value = info.metrics.get(split, {}).get(info.metric_name)
    return round(value, DIGITS) if value is not None and np.isfinite(value) else None


def _gates(folder: Path) -> dict[str, list[float] | None]:
    """What ``Measured`` keeps of them; nothing where the training diverged."""
    log = GateLog(folder / GATES_FOLDER)
    try:
        mass = settled_mass(log)
    except AptValueError:
        return {}
    rows = read_json_lines(folder / PREDICTIONS_FILE)
    spread = np.std([row["layer_gates"] for row in rows], axis=0)  # [L]
    last = log.at(int(log.steps[-1])).token_gate  # [L, P]
    saturated = is_saturated(last).sum(axis=1) / np.maximum(1, log.prefix_lengths)
    return {
        "gate_mass": _rounded(mass),
        "gate_spread": _rounded(spread) if np.isfinite(spread).all() else None,
        "gate_saturation": _rounded(saturated),
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), DIGITS) for value in values]
