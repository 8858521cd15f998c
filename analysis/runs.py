"""Finds runs in folders by their metadata alone; lists the folders that cannot be read, with the reason."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from analysis.run_checks import implausible, part_problem, time_of, unusable
from apt_core.errors import AptError, AptValueError, bad_value
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
from apt_core.sweep_format import SWEEP_FILE

MAX_REASON = 600
"""characters of a reason that are kept"""
_CACHED_RUNS = 4096
LINK = "it is a link; links are not followed"
"""why a folder is not read"""


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
        self.key = f"{folder.parent.name}/{folder.name}"
        """what pages and their addresses call the run; ``find_runs`` makes it unique"""

    @property
    def name(self) -> str:
        """The folder's name; unique within one folder of runs."""
        return self.folder.name

    @property
    def status(self) -> Status:
        """What is true now, decided from process and heartbeat."""
        return status_of(self.info)

    @property
    def started(self) -> datetime | None:
        """When it was made, in UTC; None where the run does not say."""
        return time_of(self.info.created_at)

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
        """The lines of ``metrics.jsonl``; none where there is no such file yet.

        Raises:
            AptValueError: if it is damaged, no regular file or too large.
        """
        path = self.folder / METRICS_FILE
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return []
        if not stat.S_ISREG(found.st_mode):
            raise AptValueError(f"{path}: not a regular file; links and devices are not read.")
        try:
            rows = read_json_lines(path)
        except RecursionError as problem:
            raise AptValueError(f"{path}: damaged, nested too deeply.") from problem
        for row in rows:
            problem = next((said for value in row.values() if (said := unusable(value))), None)
            if problem:
                raise AptValueError(f"{path}: damaged, {problem}.")
        return rows


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
    """All runs directly inside ``roots`` and the sweeps there; hidden folders are passed over, missing roots are empty.

    Only ``run.json`` is opened, and only where it changed since the last time. Links are listed, never followed.
    """
    runs, rejected = [], []
    given = list(dict.fromkeys(roots))
    folders = list(given)
    for root in folders:  # which grows by the sweeps that are found
        try:
            entries = sorted(os.scandir(root), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as problem:
            rejected.append(Rejected(root, f"it cannot be listed ({problem.strerror})"))
            continue
        for entry in entries:
            if entry.name.startswith(".") or not (entry.is_symlink() or entry.is_dir()):
                continue
            folder = root / entry.name
            found = LINK if entry.is_symlink() else _look(folder)
            if isinstance(found, str) and root in given and not entry.is_symlink() and is_sweep(folder):
                folders += [folder] if folder not in folders else []
            elif isinstance(found, str):
                rejected.append(Rejected(folder, found))
            else:
                runs.append(Run(folder, found))
    times = Counter(run.key for run in runs)
    for run in runs:
        if times[run.key] > 1:  # two folders of runs have the same name
            run.key = run.folder.as_posix()
    runs.sort(key=lambda run: (run.started.timestamp() if run.started else 0.0, run.name), reverse=True)
    return Found(runs, rejected)


def folders_holding(roots: Iterable[Path], *names: str) -> list[Path]:
    """``roots`` themselves and folders directly inside that hold a file of one of the names; links are not followed."""
    found = []
    for root in dict.fromkeys(roots):
        try:
            entries = sorted(os.scandir(root), key=lambda entry: entry.name)
        except OSError:
            continue
        inside = [
            root / entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        ]
        found += [folder for folder in (root, *inside) if any(os.path.lexists(folder / name) for name in names)]
    return found


def is_sweep(folder: Path) -> bool:
    """Whether it holds the runs of a sweep, and is none itself."""
    return (folder / SWEEP_FILE).is_file() and not (folder / RUN_FILE).exists()


def look_at(folder: Path) -> Run | Rejected:
    """One run, with the checks of ``find_runs``, or why it is not shown."""
    found = LINK if folder.is_symlink() else _look(folder)
    return Rejected(folder, found) if isinstance(found, str) else Run(folder, found)


def _look(folder: Path) -> RunInfo | str:
    """A run's metadata, or why there is none."""
    try:
        problem = part_problem(folder)
        if problem:
            return problem
        now = os.lstat(folder / RUN_FILE)
    except OSError as problem:
        return f"it cannot be listed ({problem.strerror})"
    return _read(str(folder), now.st_mtime_ns, now.st_size, now.st_ino)


@lru_cache(maxsize=_CACHED_RUNS)
def _read(folder: str, *stamp: int) -> RunInfo | str:
    try:
        info = read_run_info(Path(folder))
    except (AptError, OSError, RecursionError) as problem:
        return shown(problem)
    problem = implausible(info)
    return shown(f"{RUN_FILE}: {problem}") if problem else info


def shown(text: object, limit: int = MAX_REASON) -> str:
    """Text from a file or a file's name, shortened, and without what cannot be sent to a browser."""
    words = str(text)
    kept = words if len(words) <= limit else words[: limit - 3] + "..."
    return kept.encode("utf-8", "backslashreplace").decode()


def open_run(folder: Path) -> Run:
    """A run whose gates can be looked at.

    Raises:
        AptError: if the folder is no run, or has no gates recorded yet.
    """
    run = Run(folder)
    if not len(run.gates):
        raise bad_value("run", str(folder), "a run with at least one recorded step")
    return run


def family_of(parent: Run, runs: Sequence[Run]) -> list[Run]:
    """``parent`` and the runs that were made from it, oldest first.

    Those beside it, and in other folders those of its task that can mean no other run of that name.
    """
    namesakes = any(run.name == parent.name and run.folder.parent != parent.folder.parent for run in runs)
    children = [
        run
        for run in runs
        if run.info.parent == parent.name
        and run.info.task == parent.info.task
        and (run.folder.parent == parent.folder.parent or not namesakes)
    ]
    return [parent, *sorted(children, key=lambda run: run.info.created_at)]


def parent_of(run: Run, runs: Sequence[Run]) -> Run | None:
    """The run that one was made from; None if it was made from none, or that cannot be told."""
    named = [other for other in runs if other.name == run.info.parent and other.info.task == run.info.task]
    beside = [other for other in named if other.folder.parent == run.folder.parent]
    return next(iter(beside or (named if len(named) == 1 else [])), None)
