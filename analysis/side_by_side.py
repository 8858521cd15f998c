"""Runs beside each other: which differ only by their seed, what a mean over them says, and which settings differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from analysis.gate_stats import layer_mass, layer_profile
from analysis.run_table import cell, lengths_text
from analysis.runs import Run
from apt_core.estimates import CONFIDENCE, estimate
from apt_core.estimates import Estimate as Estimate
from apt_core.metric_names import lower_is_better as lower_is_better

NOT_SET = "not set"


class Group(NamedTuple):
    """Runs that differ only by their seed; often a single one."""

    name: str
    runs: list[Run]


def folded(runs: Sequence[Run]) -> list[Group]:
    """Puts runs together that have the same settings and different seeds, in the order of their first one.

    A run that repeats a seed of its group says nothing about other seeds: it stays on its own.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        place = json.dumps(_identity(run), sort_keys=True, default=str)
        while any(other.info.seed == run.info.seed for other in groups.get(place, ())):
            place += "+"
        groups.setdefault(place, []).append(run)
    names = dict(zip((run.key for run in runs), short_names(runs), strict=True))
    return [
        Group(names[members[0].key] + (f" ({len(members)} seeds)" if len(members) > 1 else ""), members)
        for members in groups.values()
    ]


def single(runs: Sequence[Run]) -> list[Group]:
    """Every run as a group of its own."""
    return [Group(name, [run]) for name, run in zip(short_names(runs), runs, strict=True)]


def short_names(runs: Sequence[Run]) -> list[str]:
    """Names without the folder of runs, unless two would be the same."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [run.key for run in runs]


def counts_text(counted: Sequence[tuple[str, int]]) -> str:
    """How many measured runs each number rests on, and where there is no interval for that."""
    parts = [f"n = {count} for {name}" + (": no interval" if count < 2 else "") for name, count in counted]
    return f"Means with {CONFIDENCE:.0%} intervals over runs that differ only by seed: {'; '.join(parts)}."


def settings_table(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Setting -> its value in each group, for the settings that differ between any two; seeds listed together."""
    columns = [[_shown(run) for run in group.runs] for group in groups]
    names = list(dict.fromkeys(name for column in columns for settings in column for name in settings))
    table = {
        name: [", ".join(dict.fromkeys(run.get(name, NOT_SET) for run in column)) for column in columns]
        for name in names
    }
    return {name: values for name, values in table.items() if len(set(values)) > 1}


def _identity(run: Run) -> dict[str, Any]:
    """What must be equal for two runs to differ only by seed."""
    info = run.info
    data: object = info.data_hash
    if info.training.get("shots"):  # which examples are the few depends on the seed; what they are drawn from does not
        data = [info.data_dir, info.data, info.split_sizes, info.labels]
    return {
        "settings": {name: value for name, value in _settings(run).items() if name not in ("seed", "parent")},
        "data": data,
    }


def _settings(run: Run) -> dict[str, Any]:
    info = run.info
    settings: dict[str, Any] = {
        "task": info.task,
        "model": info.model,
        "method": run.method,
        "prefix lengths": list(info.prefix_lengths),
        "start": info.init,
        "parent": info.parent,
        "seed": info.seed,
        "device": info.device,
        "processes": info.num_processes,
    }
    settings |= {f"training: {name}": value for name, value in info.training.items() if name not in ("seed", "device")}
    inside = {name: value for name, value in info.apt_config.items() if name not in ("prefix_lengths", "kept_tokens")}
    return settings | {f"method: {name}": value for name, value in inside.items()}


def _shown(run: Run) -> dict[str, str]:
    settings = {name: cell(value) or NOT_SET for name, value in _settings(run).items()}
    return settings | {"prefix lengths": lengths_text(run.info.prefix_lengths)}


class Profile(NamedTuple):
    """A number per layer, over the runs of a group."""

    mean: np.ndarray  # [L]
    half: np.ndarray | None  # [L] half length of each interval; None for one run


def profile(weights: Sequence[np.ndarray], kind: str) -> Profile:
    """A layer profile of runs of the same shape.

    Args:
        weights: one array [L, P] per run, at least one; NaN where a layer has no such virtual token.
        kind: a key of ``PROFILES``.
    """
    rows = [PROFILES[kind](each) for each in weights]
    if len(rows) == 1:
        return Profile(rows[0], None)
    layers = [estimate([float(row[layer]) for row in rows]) for layer in range(len(rows[0]))]
    mean = np.array([np.nan if layer.mean is None else layer.mean for layer in layers])
    return Profile(mean, np.array([np.nan if layer.half is None else layer.half for layer in layers]))


def _share(weights: np.ndarray) -> np.ndarray:
    mass = layer_mass(weights)
    return mass / mass.sum() if mass.sum() else mass


PROFILES = {
    "mean weight": lambda weights: layer_profile(weights, np.zeros_like(weights)).mean,
    "share of gate mass": _share,
}
"""name with its unit -> weights [L, P] to numbers [L]"""
