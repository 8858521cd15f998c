"""Sweeps in the folders of runs: found, checked, and as tables. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis.run_table import lengths_text
from analysis.runs import Rejected, folders_holding, shown
from apt_core.errors import AptError
from apt_core.sweep_format import SPEC_FILE, SWEEP_FILE, Recorded, read_recorded
from apt_core.sweep_look import Standing, counts_of
from apt_core.sweep_process import is_driven
from apt_core.sweep_summary import Cell, difference_text

MAX_SWEEPS = 200


class FoundSweeps(NamedTuple):
    """What is in the folders of runs."""

    sweeps: dict[str, Recorded | None]
    """folder -> sweep, the latest first; None where there is a spec that no driver has begun"""
    rejected: list[Rejected]


def find_sweeps(roots: Iterable[Path]) -> FoundSweeps:
    """Sweeps in ``roots`` themselves and in folders directly inside; links are never followed.

    Only the first ``MAX_SWEEPS`` are read; the rest are listed as rejected.
    """
    found: dict[str, Recorded | None] = {}
    rejected = []
    for folder in folders_holding(roots, SWEEP_FILE, SPEC_FILE):
        if len(found) == MAX_SWEEPS:
            rejected.append(Rejected(folder, f"only the first {MAX_SWEEPS} sweeps are read"))
            continue
        try:
            begun = os.path.lexists(folder / SWEEP_FILE)
            found[folder.as_posix()] = read_recorded(folder) if begun else None
        except (AptError, OSError) as problem:
            rejected.append(Rejected(folder, shown(problem)))
    latest = sorted(found.items(), key=lambda item: (_created(item[1]), item[0]), reverse=True)
    return FoundSweeps(dict(latest), rejected)


def driven_sweeps(roots: Iterable[Path]) -> list[Path]:
    """Folders of the sweeps whose driver lives; nothing of them is read."""
    return [folder for folder in folders_holding(roots, SPEC_FILE) if is_driven(folder)]


def ended_words(name: str, standings: Sequence[Standing]) -> tuple[bool, str]:
    """What to tell of a sweep whose driver has just ended: whether it is complete, and words."""
    counts = counts_of(standings)
    if counts["done"] == len(standings):
        return True, f"{name}: the sweep is complete. The Sweeps page has its table."
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    done = f"{counts['done']} of {len(standings)} trainings done{failed}"
    return False, f"{name}: the sweep has ended, {done}. The Sweeps page says why, and has Go on."


def _created(recorded: Recorded | None) -> str:
    return "~" if recorded is None else recorded.sweep.created_at  # what has not begun was made just now


def cells_table(cells: Sequence[Cell], splits: Sequence[str]) -> pd.DataFrame:
    """One row per cell: its settings, how many seeds are done, mean and half length of the interval, and the gain."""
    return pd.DataFrame(
        {
            "task": cell.task,
            "learning rate": cell.learning_rate,
            "virtual tokens": cell.total,
            "lengths": cell.method,
            "seeds": f"{len(cell.runs)} of {cell.seeds}" + (f", {cell.diverged} diverged" if cell.diverged else ""),
            "trained parameters": cell.parameters,
            "metric": shown(cell.metric_name),
            **{
                column: value
                for split in splits
                for column, value in (
                    (split, cell.metric[split].mean),
                    (f"{split} ±", cell.metric[split].half),
                )
            },
            f"minus uniform ({splits[-1]})": difference_text(cell, splits[-1]),
        }
        for cell in cells
    )


def trainings_table(standings: Sequence[Standing]) -> pd.DataFrame:
    """One row per training, with everything that is drawn, for download."""
    rows = []
    for each in standings:
        training, info = each.training, each.info if each.trained else None
        metrics = info.metrics if info else {}
        name = info.metric_name if info else ""
        rows.append(
            {
                "run": training.name,
                "task": training.task,
                "learning_rate": training.learning_rate,
                "seed": training.seed,
                "virtual_tokens": training.total,
                "lengths": training.method,
                "state": each.state,
                "prefix_lengths": lengths_text(info.prefix_lengths) if info else "",
                "trained_parameters": info.num_trained_parameters if info else None,
                "metric_name": shown(name),
                "validation": metrics.get("validation", {}).get(name),
                "test": metrics.get("test", {}).get(name),
                "seconds": info.seconds if info else None,
                "reason": shown(each.reason),
            }
        )
    return pd.DataFrame(rows)
