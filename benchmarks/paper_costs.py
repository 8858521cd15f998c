"""What the experiment will take, from what earlier trainings took or from a short measurement. No torch.

The unit is a forward pass of one example. A training of prefixes takes ``PREFIX_PASSES`` of them per example, one of
all weights ``ALL_PASSES``; validation and test take one.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmarks.paper_methods import METHODS
from benchmarks.paper_plan import Count
from benchmarks.paper_results import Results
from benchmarks.paper_settings import Setting, Sizes, task_words

PREFIX_PASSES = 2.5
ALL_PASSES = 4.0
"""both measured with MiniLM on one core: 2.3 to 2.6, and 3.5 to 4.2"""
START_SECONDS = 15.0
"""of one process that loads libraries, backbone and data: 12 measured, 20 where docstrings are read; a training and its
measurement on test have one each"""
ROOT = Path(__file__).parent.parent


class Speed(NamedTuple):
    """How fast a backbone is on a task."""

    seconds: float
    """of a forward pass of one example"""
    source: str
    """where the number is from"""


class Cost(NamedTuple):
    """What one setting still takes."""

    setting: Setting
    trainings: int
    tests: int
    hours: float
    """of one training after another"""
    speed: Speed


def speed_of(setting: Setting, results: Results, data_dir: str | None, device: str) -> Speed:
    """From trainings of the same task and backbone on that device, or else measured now, which takes some seconds."""
    known = []
    for table in results.tables:
        same = ("model", "task", "max_length")
        if all(getattr(table.setting, name) == getattr(setting, name) for name in same):
            splits = table.split_sizes
            for each in table.trainings:
                if device != "auto" and not each.device.startswith(device):
                    continue
                passes = _passes(table.setting.epochs, splits["train"], splits["validation"], each.method)
                known.append(each.seconds / passes)
    if known:
        return Speed(statistics.median(known), "earlier trainings of this experiment")
    return _measured_now(setting.model, setting.task, setting.max_length, data_dir)


def cost_of(setting: Setting, sizes: Sizes, speed: Speed, left: list[Count]) -> Cost:
    """What is left of one setting.

    Args:
        left: all that is left; that of other settings is passed over.
    """
    mine = [count for count in left if count.setting == setting]
    seconds = 0.0
    for count in mine:
        passes = _passes(setting.epochs, sizes.train, sizes.validation, count.method) + sizes.validation
        seconds += count.trainings * (START_SECONDS + passes * speed.seconds)
        seconds += count.tests * (START_SECONDS + sizes.test * speed.seconds)
    trainings, tests = sum(count.trainings for count in mine), sum(count.tests for count in mine)
    return Cost(setting, trainings, tests, seconds / 3600, speed)


def costs_text(costs: list[Cost], workers: int) -> str:
    """What is told before anything starts."""
    lines = []
    for cost in costs:
        setting = cost.setting
        shots = "all examples" if setting.shots is None else f"{setting.shots} shots"
        lines.append(
            f"{setting.task}, {shots}, epochs: {setting.epochs}: {cost.trainings} trainings, {cost.tests} measurements "
            f"on test, about {cost.hours:.2f} hours one after another ({1000 * cost.speed.seconds:.1f} ms per example "
            f"and pass, from {cost.speed.source})"
        )
    trainings, hours = sum(cost.trainings for cost in costs), sum(cost.hours for cost in costs)
    lines.append(f"in all {trainings} trainings, about {hours / workers:.2f} hours with {workers} at once")
    return "\n".join(lines)


def _passes(epochs: int, train: int, validation: int, method: str) -> float:
    factor = ALL_PASSES if METHODS[method].all_weights else PREFIX_PASSES
    return epochs * (factor * train + validation)


@cache
def _measured_now(model: str, task: str, max_length: int, data_dir: str | None) -> Speed:
    """From a few batches in a process of its own.

    Raises:
        RuntimeError: with the end of what it printed, if it failed.
    """
    command = [sys.executable, "-m", "benchmarks.paper_calibration", "--model", model, *task_words(task, data_dir)]
    search_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": search_path}
    done = subprocess.run([*command, "--max-length", str(max_length)], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"measuring the speed of {task}: {done.stderr[-2000:]}")
    return Speed(float(done.stdout.split()[-1]), "a short measurement now, on the processor")
