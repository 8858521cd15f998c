"""What a sweep found: mean and interval of every cell over its seeds, and the gain over uniform lengths. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import NamedTuple

from apt_core.estimates import CONFIDENCE, Difference, Estimate, estimate, paired
from apt_core.metric_names import lower_is_better, reading_unit
from apt_core.run_format import RunInfo
from apt_core.sweep_plan import FULL, Training

SPLITS = ("validation", "test")
UNIFORM = "uniform"
Key = tuple[str, float, int, str]
"""``Training.cell``"""


class Cell(NamedTuple):
    """Trainings that differ only by their seed."""

    task: str
    learning_rate: float
    total: int
    """virtual tokens over all layers"""
    method: str
    runs: dict[int, RunInfo]
    """seed -> its finished run"""
    names: dict[int, str]
    """seed -> name of that training"""
    seeds: int
    """that were asked for"""
    metric_name: str
    """empty where no run is finished"""
    metric: dict[str, Estimate]
    """split -> over the finished runs"""
    parameters: float | None
    """trained ones, mean over the runs; None where there is none"""
    against_uniform: dict[str, Difference | None]
    """split -> this minus uniform lengths of the same total, paired by seed, turned so that above 0 is better; None
    where there is nothing to hold it against"""
    same_as_uniform: bool
    """whether all its runs have uniform lengths anyway"""
    diverged: int
    """of its finished runs, those whose validation metric is not finite: they are in no mean"""


def summarise(plan: Sequence[Training], runs: Mapping[str, RunInfo]) -> list[Cell]:
    """Every cell of a sweep, by task and learning rate; the full run first, then the totals, the largest first.

    Args:
        plan: all trainings.
        runs: training -> its finished run, as far as there is one.
    """
    cells: dict[Key, list[Training]] = {}
    for training in plan:
        cells.setdefault(training.cell, []).append(training)
    tasks = list(dict.fromkeys(training.task for training in plan))
    methods = list(dict.fromkeys(training.method for training in plan))
    order = sorted(cells, key=lambda key: (tasks.index(key[0]), key[1], key[3] != FULL, -key[2], methods.index(key[3])))
    finished = {key: {each.seed: runs[each.name] for each in cell if each.name in runs} for key, cell in cells.items()}
    return [_cell(key, cells[key], finished[key], finished.get((*key[:3], UNIFORM), {})) for key in order]


def difference_text(cell: Cell, split: str) -> str:
    """What a cell gained over uniform, in the unit that differences are read in; empty where that is not known."""
    if cell.same_as_uniform:
        return "the same lengths"
    difference = cell.against_uniform.get(split)
    if difference is None:
        return ""
    factor, unit = reading_unit(cell.metric_name)
    mean = f"{factor * difference.mean:+.2f}"
    if difference.low is None or difference.high is None:
        return f"{mean} {unit}, no interval"
    return f"{mean} ({factor * difference.low:+.2f} to {factor * difference.high:+.2f}) {unit}"


def table_text(cells: Sequence[Cell], splits: Sequence[str]) -> str:
    """The cells as a table of plain text, one part for each task and learning rate."""
    parts = []
    for task, rate in dict.fromkeys((cell.task, cell.learning_rate) for cell in cells):
        mine = [cell for cell in cells if (cell.task, cell.learning_rate) == (task, rate)]
        metric = next((cell.metric_name for cell in mine if cell.metric_name), "metric")
        head = ("tokens", "lengths", "seeds", "parameters", *splits, f"minus uniform, {splits[-1]}")
        rows = [head, *(_row(cell, splits) for cell in mine)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        title = f"{task}, learning rate {rate!r}: {metric}, mean and {CONFIDENCE:.0%} interval over seeds"
        parts.append("\n".join([title, *lines]))
    return "\n\n".join(parts)


def estimate_text(value: Estimate) -> str:
    """A mean with its interval."""
    if value.mean is None:
        return "-"
    return f"{value.mean:.3f}" + (f" ± {value.half:.3f}" if value.half else "")


def _row(cell: Cell, splits: Sequence[str]) -> tuple[str, ...]:
    parameters = "-" if cell.parameters is None else f"{cell.parameters:,.0f}"
    measured = (estimate_text(cell.metric[split]) for split in splits)
    last = difference_text(cell, splits[-1])
    seeds = f"{len(cell.runs)}/{cell.seeds}" + (f", {cell.diverged} diverged" if cell.diverged else "")
    return (str(cell.total), cell.method, seeds, parameters, *measured, last)


def _cell(key: Key, trainings: Sequence[Training], runs: Mapping[int, RunInfo], uniform: Mapping[int, RunInfo]) -> Cell:
    task, rate, total, method = key
    metric_name = next((info.metric_name for info in runs.values()), "")
    numbers = [info.num_trained_parameters for info in runs.values()]
    even = [
        tuple(info.prefix_lengths) == tuple(uniform[seed].prefix_lengths)
        for seed, info in runs.items()
        if seed in uniform
    ]
    compares = method not in (FULL, UNIFORM)
    return Cell(
        task,
        rate,
        total,
        method,
        dict(sorted(runs.items())),
        {each.seed: each.name for each in trainings if each.seed in runs},
        len(trainings),
        metric_name,
        {split: estimate([_value(info, split) for info in runs.values()]) for split in SPLITS},
        sum(numbers) / len(numbers) if numbers else None,
        {split: _against(runs, uniform, split, metric_name) if compares else None for split in SPLITS},
        compares and bool(even) and all(even),
        sum(not isfinite(value) for info in runs.values() if (value := _value(info, SPLITS[0])) is not None),
    )


def _against(
    runs: Mapping[int, RunInfo], uniform: Mapping[int, RunInfo], split: str, metric_name: str
) -> Difference | None:
    both = sorted(runs.keys() & uniform.keys())
    found = paired([_value(runs[seed], split) for seed in both], [_value(uniform[seed], split) for seed in both])
    if found is not None and lower_is_better(metric_name):
        return found._replace(mean=-found.mean)
    return found


def _value(info: RunInfo, split: str) -> float | None:
    return info.metrics.get(split, {}).get(info.metric_name)
