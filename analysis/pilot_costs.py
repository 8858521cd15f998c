"""What a pilot will cost in time, before it starts, and whether its data can be read. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from analysis.pilot import Pilot
from analysis.runs import Run
from apt_core.config import canonical_name
from apt_core.errors import AptError, AptValueError
from apt_core.jobs.devices import cpu_slots, gpu_slots
from apt_core.tasks import load_task
from apt_core.tasks.checks import check_task
from apt_core.tasks.shots import take_shots
from apt_core.tasks.source import DataSource

BACKWARD = 2
"""a backward pass takes about as long as so many forward passes"""
START_SECONDS = 15
"""loading libraries, backbone and data, on two processor cores"""


class CheckedData(NamedTuple):
    """Data that a training can read."""

    split_sizes: dict[str, int]
    """examples, few-shot selection done"""
    labels: int
    notes: list[str]
    """what a person should know, a sentence each"""


def check_data(task: str, source: DataSource, shots: int | None, seed: int) -> CheckedData:
    """Reads and checks the data of a task as a training would.

    Raises:
        AptError: in one line, naming file and line where it can.
    """
    try:
        data = load_task(task, source)
        notes = check_task(data)
        if shots is not None:
            data = take_shots(data, shots, seed)
            check_task(data, few=True)
    except AptError:
        raise
    except (OSError, ValueError, RecursionError) as problem:  # whatever a file of unknown origin brings
        raise AptValueError(f"data: cannot be read ({problem}).") from problem
    return CheckedData({split: len(rows) for split, rows in data.splits.items()}, len(data.labels), notes)


def forward_passes(epochs: int, split_sizes: Mapping[str, int]) -> int:
    """Passes of an example through the model in a training: forward and backward, and validation each epoch."""
    return epochs * ((1 + BACKWARD) * split_sizes.get("train", 0) + split_sizes.get("validation", 0))


def training_seconds(pilot: Pilot, runs: Iterable[Run]) -> float | None:
    """How long one training takes, from the newest finished run on the same backbone, the same task preferred.

    Args:
        pilot: with the sizes of its data.
        runs: to learn from, the newest first.

    Returns:
        None where no run says so.
    """
    wanted = forward_passes(pilot.epochs, pilot.split_sizes)
    known: dict[bool, float] = {}
    for run in runs:
        info = run.info
        epochs = info.training.get("epochs")
        if info.status != "finished" or info.model != canonical_name(pilot.model) or not isinstance(epochs, int):
            continue
        passes = forward_passes(epochs, info.split_sizes)
        if passes > 0 and info.seconds > 0:
            known.setdefault(info.task == pilot.task, info.seconds / passes)
    rate = known.get(True, known.get(False))
    return None if rate is None or not wanted else START_SECONDS + rate * wanted


def duration(seconds: float) -> str:
    """A time in words, as exact as an estimate is: under a minute, minutes, hours."""
    if seconds < 55:
        return "less than a minute"
    minutes = seconds / 60
    if minutes < 1.5:
        return "about a minute"
    return f"about {minutes:.0f} minutes" if minutes < 90 else f"about {minutes / 60:.1f} hours"


def slots_for(device: str) -> int:
    """How many trainings run at once on this machine: one per GPU, or as ``APT_SLOTS`` or its cores allow.

    Raises:
        AptValueError: if ``APT_SLOTS`` is no usable number.
    """
    gpus = gpu_slots() if device != "cpu" else []
    return len(gpus or cpu_slots())
