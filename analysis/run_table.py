"""The rows of the Runs page: what a run is in a table, which runs a filter leaves, and groups by a setting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from analysis.run_curves import curves_of
from analysis.run_notes import NONE, Notes, read_notes
from analysis.runs import Run, shown
from apt_core.errors import AptValueError
from apt_core.run_format import Status

MAX_CELL = 200
"""characters"""
MAX_SETTINGS = 100
"""names of settings that are offered"""
FIRST_SETTINGS = ("task", "model", "method", "virtual tokens", "prefix lengths", "seed", "parent", "status")
SEVERAL = "several"

COLUMNS = {
    "run": "Folder of runs, then the run's own.",
    "status": "Decided from the process and its heartbeat, not from a file alone.",
    "task": "",
    "validation": "The task's metric on the validation split; it chose the checkpoint. 'metric' says which.",
    "metric": "Name of the metric.",
    "curve": "The metric at each evaluation on the validation split, over training: at most 40 values, each run on "
    "its own scale.",
    "method": "APT, its ablations, or PT-2 (no gates); then whether all layers have the same length.",
    "virtual tokens": "Over all layers.",
    "prefix lengths": "Virtual tokens per layer, first layer first.",
    "trained parameters": "Prefix, gates, scales and task head.",
    "age": "Since the run was started.",
    "model": "The backbone, without the folder or organisation before its name.",
    "tags": "",
    "loss curve": "Training loss over training: at most 40 values, each run on its own scale.",
    "test": "The metric on the test split, where `apt_core evaluate` measured it.",
    "step": "Optimizer steps done, of all.",
    "time (s)": "Spent training.",
    "seed": "",
    "parent": "The run whose lengths or prefix this one started from.",
    "device": "",
    "notes": "",
    "started (UTC)": "",
}
"""name -> help text"""
DEFAULT_COLUMNS = tuple(name for name in list(COLUMNS)[1 : list(COLUMNS).index("tags") + 1])


class Entry(NamedTuple):
    """A run with what is decided when looking: its status now, and a person's notes."""

    run: Run
    status: Status
    notes: Notes
    problem: str
    """why the notes cannot be read; empty if they can"""


class Filter(NamedTuple):
    """Which runs are shown. Empty parts leave every run."""

    text: str = ""
    """every word must be in name, task, model, method, parent or tags; case does not matter"""
    statuses: Sequence[str] = ()
    tasks: Sequence[str] = ()
    tags: Sequence[str] = ()
    """all of them"""
    hidden: bool = False
    """show hidden runs too"""


class Group(NamedTuple):
    """Runs that have a setting in common."""

    value: str
    count: int
    metric: str
    """name of the metric; ``SEVERAL`` where they differ in task or metric, and nothing is averaged then"""
    measured: int
    """runs with a value of the metric"""
    mean: float | None
    low: float | None
    high: float | None


def entries_of(runs: Iterable[Run]) -> list[Entry]:
    """Looks up status and notes of each run."""
    entries = []
    for run in runs:
        try:
            notes, problem = read_notes(run.folder), ""
        except (AptValueError, OSError) as failure:
            notes, problem = NONE, shown(failure)
        entries.append(Entry(run, run.status, notes, problem))
    return entries


def matching(entries: Iterable[Entry], wanted: Filter) -> list[Entry]:
    """The entries that a filter leaves, in their order."""
    words = wanted.text.casefold().split()
    return [entry for entry in entries if _matches(entry, wanted, words)]


def _matches(entry: Entry, wanted: Filter, words: list[str]) -> bool:
    info = entry.run.info
    if entry.notes.hidden and not wanted.hidden:
        return False
    if wanted.statuses and entry.status not in wanted.statuses:
        return False
    if wanted.tasks and task_of(entry) not in wanted.tasks:
        return False
    if not set(wanted.tags) <= set(entry.notes.tags):
        return False
    text = " ".join(
        (entry.run.key, info.task, info.model, entry.run.method, info.parent or "", *entry.notes.tags)
    ).casefold()
    return all(word in text for word in words)


def task_of(entry: Entry) -> str:
    """The task's name as it is shown."""
    return cell(entry.run.info.task) or "not said"


def cell(value: Any) -> str:
    """Any value as the text of one cell."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return shown(" ".join(str(item) for item in value), MAX_CELL)
    return shown(value, MAX_CELL)


def settings_of(entry: Entry) -> dict[str, Any]:
    """Everything runs can be grouped by: setting -> value."""
    run, info = entry.run, entry.run.info
    first = (
        task_of(entry),
        info.model,
        run.method,
        info.total_tokens,
        lengths_text(info.prefix_lengths),
        info.seed,
        info.parent,
        entry.status,
    )
    settings = dict(zip(FIRST_SETTINGS, first, strict=True))
    for part in ("training", "apt_config"):
        settings |= {cell(f"{part}.{name}"): value for name, value in getattr(info, part).items()}
    return settings


def setting_names(entries: Iterable[Entry]) -> list[str]:
    """Every setting that a run has, those that most people look for first."""
    names = dict.fromkeys(name for entry in entries for name in settings_of(entry))
    return [*FIRST_SETTINGS, *sorted(name for name in names if name not in FIRST_SETTINGS)[:MAX_SETTINGS]]


def grouped(entries: Iterable[Entry], setting: str) -> dict[str, list[Entry]]:
    """value of the setting as text -> its runs; values in order, numbers as numbers, runs without it last."""
    groups: dict[str, list[Entry]] = {}
    order: dict[str, tuple] = {}
    for entry in entries:
        value = settings_of(entry).get(setting)
        text = cell(value) or "none"
        groups.setdefault(text, []).append(entry)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        order[text] = (text == "none", not is_number, value if is_number else 0, text)
    return {text: groups[text] for text in sorted(groups, key=order.__getitem__)}


def group_of(value: str, entries: Sequence[Entry]) -> Group:
    """Count, and mean, minimum and maximum of the validation metric."""
    kinds = {(entry.run.info.task, entry.run.info.metric_name) for entry in entries}
    if len(kinds) > 1:
        return Group(value, len(entries), SEVERAL, 0, None, None, None)
    values = [measured for entry in entries if (measured := entry.run.metric()) is not None]
    name = cell(entries[0].run.info.metric_name)
    if not values:
        return Group(value, len(entries), name, 0, None, None, None)
    return Group(value, len(entries), name, len(values), sum(values) / len(values), min(values), max(values))


def lengths_text(lengths: Sequence[int]) -> str:
    """``16 x 6`` for the same length in six layers, else all lengths."""
    if len(set(lengths)) == 1 and len(lengths) > 1:
        return f"{lengths[0]} x {len(lengths)}"
    return cell(lengths)


def rows_of(entries: Sequence[Entry], columns: Sequence[str]) -> list[dict[str, Any]]:
    """One row per run: name of ``COLUMNS`` or of a setting -> cell. A setting with any text in it is text in all."""
    settings = [] if all(name in CELLS for name in columns) else [settings_of(entry) for entry in entries]
    cells: dict[str, list[Any]] = {}
    for name in columns:
        if name in CELLS:
            cells[name] = [CELLS[name](entry) for entry in entries]
        else:
            values = [each.get(name) for each in settings]
            numbers = all(value is None or (type(value) in (int, float)) for value in values)
            cells[name] = values if numbers else [cell(value) for value in values]
    return [{name: cells[name][place] for name in columns} for place in range(len(entries))]


def _step(entry: Entry) -> str:
    info = entry.run.info
    return f"{info.step} / {info.total_steps}" if info.total_steps else str(info.step)


CELLS = {
    "run": lambda entry: cell(entry.run.key),
    "status": lambda entry: entry.status,
    "task": task_of,
    "method": lambda entry: entry.run.method,
    "validation": lambda entry: entry.run.metric(),
    "metric": lambda entry: cell(entry.run.info.metric_name),
    "curve": lambda entry: list(curves_of(entry.run.folder, entry.run.info.metric_name).metric),
    "virtual tokens": lambda entry: entry.run.info.total_tokens,
    "prefix lengths": lambda entry: lengths_text(entry.run.info.prefix_lengths),
    "trained parameters": lambda entry: entry.run.info.num_trained_parameters,
    "age": lambda entry: entry.run.started,
    "tags": lambda entry: list(entry.notes.tags),
    "loss curve": lambda entry: list(curves_of(entry.run.folder, entry.run.info.metric_name).loss),
    "test": lambda entry: entry.run.metric("test"),
    "step": _step,
    "time (s)": lambda entry: entry.run.info.seconds,
    "model": lambda entry: cell(entry.run.info.model.rstrip("/").rsplit("/", 1)[-1]),
    "seed": lambda entry: entry.run.info.seed,
    "parent": lambda entry: cell(entry.run.info.parent),
    "device": lambda entry: cell(entry.run.info.device),
    "notes": lambda entry: entry.problem or cell(entry.notes.notes),
    "started (UTC)": lambda entry: entry.run.started,
}
"""column -> what a run has in it"""
