"""What a sweep has on disk, beside its runs, and how that is read: with bounds, every field checked. No torch.

<out>/sweep.toml          the spec, as it was given
<out>/sweep.json          ``Sweep``: what the spec alone does not say
<out>/sweep.log           what a driver that the dashboard started has printed
<out>/.driver             locked while a driver lives
<out>/.stop               there once somebody asked for the end
<out>/.budgets/<run>.json lengths of a run, as ``python -m analysis budget`` wrote them
<out>/.jobs/              the jobs, see ``jobs.job_files``
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from apt_core.errors import AptFileNotFoundError, AptValueError
from apt_core.files import write_atomic
from apt_core.jobs.places import Executor
from apt_core.json_files import read_model
from apt_core.sweep_plan import Training, expand
from apt_core.sweep_spec import SweepSpec, read_spec

SWEEP_FILE = "sweep.json"
SPEC_FILE = "sweep.toml"
LOG_FILE = "sweep.log"
DRIVER_FILE = ".driver"
STOP_FILE = ".stop"
BUDGETS_FOLDER = ".budgets"
OWN_FILES = (SPEC_FILE, LOG_FILE, DRIVER_FILE, STOP_FILE)
"""that may be there before the sweep is"""
SWEEP_VERSION = 1
MAX_SWEEP_BYTES = 8 * 2**20
MAX_REASON = 1000
"""characters"""

Text = Annotated[str, Field(max_length=MAX_REASON)]


class Sweep(BaseModel):
    """``sweep.json``. Unknown fields are ignored, so that newer writers of version 1 stay readable."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: int = SWEEP_VERSION
    created_at: Text = ""
    """UTC, ISO 8601"""
    updated_at: Text = ""
    """UTC, ISO 8601"""
    executor: Executor = "local"
    """where its jobs run"""
    address: Text | None = None
    """of the cluster's dashboard, for ray; None: ``APT_RAY_ADDRESS``"""
    slots: int | None = Field(None, ge=1, le=1024)
    """jobs at once on the processor; None: as this machine has it"""
    num_layers: dict[Text, Annotated[int, Field(ge=1, le=10_000)]] = Field(default_factory=dict)
    """task -> layers of its backbone that get prefixes"""
    same_lengths: dict[Text, Text] = Field(default_factory=dict)
    """training -> the one of the same total whose run stands for it, because the lengths are the same"""
    problems: dict[Text, Text] = Field(default_factory=dict)
    """training -> why no job could be made for it"""


class Recorded(NamedTuple):
    """A sweep as its folder has it."""

    folder: Path
    spec: SweepSpec
    sweep: Sweep
    plan: list[Training]


def read_sweep(folder: Path) -> Sweep:
    """Reads ``sweep.json``.

    Raises:
        AptFileNotFoundError: if there is none.
        AptValueError: if it is a link, damaged, too large or of a newer version.
    """
    try:
        return read_model(folder / SWEEP_FILE, Sweep, MAX_SWEEP_BYTES, SWEEP_VERSION)
    except FileNotFoundError as problem:
        raise AptFileNotFoundError(f"{folder}: holds no {SWEEP_FILE}.") from problem


def read_recorded(folder: Path) -> Recorded:
    """Reads a sweep's folder.

    Raises:
        AptFileNotFoundError: if it holds no sweep.
        AptValueError: as ``read_sweep``, the same for its spec, or if they do not fit.
    """
    sweep, spec = read_sweep(folder), read_spec(folder / SPEC_FILE)
    unknown = [task for task in spec.tasks if task not in sweep.num_layers]
    if unknown:
        raise AptValueError(f"{folder / SWEEP_FILE}: num_layers: lacks {unknown[0]}, which {SPEC_FILE} has.")
    try:
        plan = expand(spec, sweep.num_layers)
    except AptValueError as problem:
        raise AptValueError(f"{folder / SPEC_FILE}: {problem}") from problem
    return Recorded(folder, spec, sweep, plan)


def write_sweep(folder: Path, sweep: Sweep) -> None:
    """Writes ``sweep.json`` in one go, over an earlier one."""
    write_atomic(folder / SWEEP_FILE, (json.dumps(sweep.model_dump(mode="json"), indent=1) + "\n").encode())


def budget_path(folder: Path, training: Training) -> Path:
    """Where the lengths of a training are, once they are known."""
    return folder / BUDGETS_FOLDER / f"{training.name}.json"
