"""Finds runs in folders by their metadata alone; lists the folders that cannot be read, with the reason."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from apt_core.errors import AptError, bad_value
from apt_core.gate_log import GateLog
from apt_core.run_format import (
    GATES_FOLDER,
    METRICS_FILE,
    RUN_FILE,
    RunInfo,
    Status,
    read_json_lines,
    read_run_info,
    status_of,
)


class Run:
    """One run folder. The metadata is read at once, everything else when asked for.

    Args:
        folder: the run folder.
        info: its metadata, if read already.

    Raises:
        AptError: if ``run.json`` is missing or damaged.
    """

    def __init__(self, folder: Path, info: RunInfo | None = None) -> None:
        self.folder = folder
        self.info = info or read_run_info(folder)

    @property
    def name(self) -> str:
        """The folder's name; unique within one folder of runs."""
        return self.folder.name

    @property
    def key(self) -> str:
        """The folder's name with that of the folder it is in: unique across folders of runs."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def status(self) -> Status:
        """What is true now, decided from process and heartbeat."""
        return status_of(self.info)

    @property
    def method(self) -> str:
        """APT, its ablations, or PT-2 (no gates), and whether the lengths differ from layer to layer."""
        config = self.info.apt_config
        gate, scale = config.get("token_gate", "hidden"), config.get("layer_scale", True)
        if gate == "none" and not scale:
            name = "PT-2"
        else:
            lacking = {"static": " without h", "none": " without alpha"}.get(gate, "")
            name = f"APT{lacking}{'' if scale else ' without lambda'}"
        if self.info.parent is None:
            return name
        return f"{name}, {'uniform' if len(set(self.info.prefix_lengths)) == 1 else 'pruned'}"

    def metric(self, split: str = "validation") -> float | None:
        """The task's metric on a split; None where it was not measured."""
        return self.info.metrics.get(split, {}).get(self.info.metric_name)

    @cached_property
    def gates(self) -> GateLog:
        """The gate log as it is on disk at the first look."""
        return GateLog(self.folder / GATES_FOLDER)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``."""
        return read_json_lines(self.folder / METRICS_FILE)


class Rejected(NamedTuple):
    """A folder that looks like a run but cannot be read."""

    folder: Path
    reason: str


class Found(NamedTuple):
    """What is in the folders of runs."""

    runs: list[Run]
    """newest first"""
    rejected: list[Rejected]


def find_runs(roots: Iterable[Path]) -> Found:
    """All runs directly inside ``roots``; hidden folders and links are passed over, missing roots are empty."""
    runs, rejected = [], []
    for root in roots:
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            if folder.name.startswith(".") or folder.is_symlink() or not folder.is_dir():
                continue
            if not (folder / RUN_FILE).is_file():
                rejected.append(Rejected(folder, f"it has no {RUN_FILE}"))
                continue
            try:
                runs.append(Run(folder))
            except (AptError, OSError) as problem:
                rejected.append(Rejected(folder, str(problem)))
    runs.sort(key=lambda run: (run.info.created_at, run.name), reverse=True)
    return Found(runs, rejected)


def open_run(folder: Path) -> Run:
    """A run whose gates can be looked at.

    Raises:
        AptError: if the folder is no run, or has no gates recorded yet.
    """
    run = Run(folder)
    if not len(run.gates):
        raise bad_value("run", str(folder), "a run with at least one recorded step")
    return run


def family_of(parent: Run, runs: Iterable[Run]) -> list[Run]:
    """``parent`` and the runs that were made from it, oldest first."""
    children = [run for run in runs if run.info.parent == parent.name and run.info.task == parent.info.task]
    return [parent, *sorted(children, key=lambda run: run.info.created_at)]
