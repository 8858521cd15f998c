"""Everything that is checked before the first job of a sweep, and its folder made ready. No torch in this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from apt_core.errors import AptError, AptFileExistsError, AptFileNotFoundError, AptValueError, AptWriteError
from apt_core.files import write_atomic
from apt_core.jobs.devices import check_device
from apt_core.jobs.places import Executor
from apt_core.model_name import check_model_name
from apt_core.run_format import check_new_folder, read_run_info, utc_now
from apt_core.sweep_format import (
    OWN_FILES,
    SPEC_FILE,
    SWEEP_FILE,
    Sweep,
    read_sweep,
    write_sweep,
)
from apt_core.sweep_layers import Asked, count_layers
from apt_core.sweep_plan import Training, check_extends, expand
from apt_core.sweep_spec import SweepSpec, parse_spec, read_spec
from apt_core.tasks import load_task
from apt_core.tasks.base import TaskData
from apt_core.tasks.checks import check_task
from apt_core.tasks.shots import take_shots
from apt_core.tasks.source import DataSource


class Place(NamedTuple):
    """Where the jobs of a sweep run."""

    executor: Executor = "local"
    address: str | None = None
    slots: int | None = None


class Checked(NamedTuple):
    """A sweep that can begin."""

    spec: SweepSpec
    content: bytes
    """of the spec"""
    sweep: Sweep
    plan: list[Training]


def check_sweep(content: bytes, name: str, out: Path, place: Place) -> Checked:
    """Refuses what cannot be done, before anything is written or started.

    Args:
        content: of the spec.
        name: what messages call it.
        out: the sweep's folder, new or of a sweep that the spec goes on with.
        place: where its jobs are to run.

    Raises:
        AptError: in one line, naming the key, the file or the folder.
    """
    spec = parse_spec(content, name)
    there = _sweep_there(out, spec)
    for task in spec.tasks:
        check_model_name(spec.options(task).model)
    if place.executor == "local":
        check_devices(spec)
    known = dict(there.num_layers) if there is not None else {}
    left = _tasks_left(out, spec, known, there.same_lengths if there is not None else {})
    data = {task: check_data(spec, task) for task in left}
    num_layers = {**known, **_layers(spec, {task: data[task] for task in left if task not in known})}
    fields = {"num_layers": num_layers, "updated_at": utc_now(), **place._asdict()}
    sweep = (there or Sweep(created_at=utc_now())).model_copy(update=fields)
    return Checked(spec, content, sweep, expand(spec, num_layers))


def check_devices(spec: SweepSpec) -> None:
    """Refuses a GPU where there is none.

    Raises:
        AptValueError: naming the task.
    """
    for task in spec.tasks:
        try:
            check_device(spec.options(task).training.device)
        except AptValueError as problem:
            raise AptValueError(f"train of {task}: {problem}") from problem


def begin(out: Path, checked: Checked) -> None:
    """Writes what a driver and the dashboard need to know into the sweep's folder, while ``only_driver`` is held.

    Raises:
        AptWriteError: if the folder does not take it.
    """
    try:
        if (out / SWEEP_FILE).exists():
            write_sweep(out, checked.sweep)
            write_atomic(out / SPEC_FILE, checked.content)  # second: what is there fits the earlier spec as well
        else:
            write_atomic(out / SPEC_FILE, checked.content)
            write_sweep(out, checked.sweep)
    except OSError as problem:
        raise AptWriteError(f"out: {out} cannot be written to ({problem.strerror}).") from problem


def check_data(spec: SweepSpec, task: str) -> TaskData:
    """Reads and checks the data of a task as its trainings would; returns it without examples.

    Raises:
        AptError: in one line, naming file and line where it can.
    """
    options = spec.options(task)
    data = _load(task, options.data)
    check_task(data)
    if spec.test and "test" not in data.splits:
        raise AptValueError(f"test: got true, but the data of {task} has no test split; accepted: false.")
    if options.training.shots is not None:
        for seed in spec.seeds:
            check_task(take_shots(data, options.training.shots, seed), few=True)
    return replace(data, splits={})


def _load(task: str, source: DataSource) -> TaskData:
    try:
        return load_task(task, source)
    except AptError:
        raise
    except (OSError, ValueError, RecursionError) as problem:  # whatever a file of unknown origin brings
        raise AptValueError(f"data of {task}: cannot be read ({problem}).") from problem


def _sweep_there(out: Path, spec: SweepSpec) -> Sweep | None:
    """What an earlier driver has left in ``out``; None where the sweep is new.

    Raises:
        AptError: if the folder holds something else, or a sweep that ``spec`` does not go on with.
    """
    if not (out / SWEEP_FILE).exists():
        _check_new(out)
        return None
    sweep = read_sweep(out)
    try:
        old = read_spec(out / SPEC_FILE)
    except AptFileNotFoundError as problem:
        raise AptValueError(f"out: {out} has lost its {SPEC_FILE}; accepted: a new folder.") from problem
    try:
        check_extends(old, spec)
    except AptValueError as problem:
        raise AptFileExistsError(f"out: {out} holds another sweep: {problem}") from problem
    return sweep


def _check_new(out: Path) -> None:
    """Refuses a folder that holds anything but what a sweep puts there before it begins."""
    if out.is_dir() and all(path.name in OWN_FILES for path in out.iterdir()):
        return
    check_new_folder(out)


def _tasks_left(out: Path, spec: SweepSpec, known: Mapping[str, int], same: Mapping[str, str]) -> list[str]:
    """Tasks of which something is to be trained or evaluated; the data of the others need not be there any more.

    Args:
        out: the sweep's folder.
        spec: what is to be done.
        known: layers of tasks.
        same: trainings for which another one of the same lengths stands.

    Raises:
        AptValueError: as ``expand``, if the layers of all tasks are known.
    """
    if not set(known) >= set(spec.tasks):
        return list(spec.tasks)
    left = {each.task for each in expand(spec, known) if not _is_done(out / same.get(each.name, each.name), spec)}
    return [task for task in spec.tasks if task in left]


def _is_done(run: Path, spec: SweepSpec) -> bool:
    try:
        info = read_run_info(run)
    except AptError:
        return False
    return info.status == "finished" and ("test" in info.metrics or not spec.test)


def _layers(spec: SweepSpec, data: Mapping[str, TaskData]) -> dict[str, int]:
    """Layers that get prefixes, each backbone loaded once for each kind of head."""
    if not data:
        return {}
    asked = {}
    for task, without_examples in data.items():
        options = spec.options(task)
        key = (options.model, without_examples.family, options.apt.model_dump_json())
        asked[task] = (key, Asked(options.model, without_examples, options.apt))
    once = dict(asked.values())
    counted = dict(zip(once, count_layers(list(once.values())), strict=True))
    return {task: counted[key] for task, (key, _) in asked.items()}
