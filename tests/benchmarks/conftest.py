"""Small backbones and data as for ``apt_core``, jobs that are done at once, and results that are made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from apt_core.errors import AptError
from apt_core.jobs.interface import Job, JobReport, JobState
from apt_core.run_format import RunInfo
from benchmarks.paper_plan import Training
from benchmarks.paper_results import Measured
from benchmarks.paper_settings import Setting
from tests.apt_core.conftest import backbone_folder, data_folder

__all__ = ["backbone_folder", "data_folder"]

TOKEN_SIZE, GATE_SIZE = 64, 32
LAYERS = 3


class InlineJobs:
    """``Jobs`` that run a command line in this process when it is submitted.

    Args:
        program: is given the words of a command.
    """

    def __init__(self, program: Callable[[list[str]], object]) -> None:
        self._program = program
        self.submitted: list[list[str]] = []
        self._states: dict[str, JobState] = {}
        self._logs: dict[str, str] = {}

    def submit(self, arguments: Sequence[str], run_folder: str | Path) -> Job:
        job = Job(str(len(self.submitted)), list(arguments), str(run_folder), "")
        self.submitted.append(list(arguments))
        try:
            self._program(list(arguments))
            self._states[job.id], self._logs[job.id] = "finished", ""
        except (AptError, RuntimeError) as problem:
            self._states[job.id], self._logs[job.id] = "failed", f"first line\n{problem}"
        return job

    def report(self, job_id: str) -> JobReport:
        return JobReport(self._states[job_id])

    def status(self, job_id: str) -> JobState:
        return self._states[job_id]

    def cancel(self, job_id: str) -> None:
        self._states[job_id] = "cancelled"

    def logs(self, job_id: str, last_lines: int = 200) -> str:
        return "\n".join(self._logs[job_id].splitlines()[-last_lines:])

    def list(self) -> list[Job]:
        return []


def make_setting(**fields: object) -> Setting:
    """A setting of a made-up experiment."""
    plain = {
        "model": "minilm", "task": "copa", "shots": None, "epochs": 2, "batch_size": 16, "max_length": 128,
        "num_virtual_tokens": 4,
    }  # fmt: skip
    return Setting(**{**plain, **fields})


def make_measured(
    training: Training, validation: float | None, test: float | None = None, **fields: object
) -> Measured:
    """What a training could have come to; its gates grow from layer to layer."""
    lengths = list(training.lengths or (training.setting.num_virtual_tokens,) * LAYERS)
    gates = training.method == "apt"
    plain = {
        "method": training.method,
        "learning_rate": training.learning_rate,
        "seed": training.seed,
        "prefix_lengths": lengths,
        "num_parameters": {
            "prefix": TOKEN_SIZE * sum(lengths), "token_gate": GATE_SIZE * sum(lengths) * gates,
            "layer_scale": LAYERS * gates, "head": 10,
        },
        "token_sizes": [TOKEN_SIZE] * LAYERS,
        "seconds": 60.0,
        "device": "cpu",
        "validation": validation,
        "test": test if training.test else None,
        "tested": training.test,
        "gate_mass": [1.0, 2.0, 3.0 + 0.5 * training.seed] if gates else None,
        "gate_spread": [0.01, 0.02, 0.03] if gates else None,
        "gate_saturation": [0.0, 0.5, 1.0] if gates else None,
    }  # fmt: skip
    return Measured(**{**plain, **fields})


def make_info(metric_name: str = "accuracy", train: int = 400, data_hash: str = "d") -> RunInfo:
    """What the run of a made-up training says of its data."""
    return RunInfo(
        metric_name=metric_name, split_sizes={"train": train, "validation": 100, "test": 500}, data_hash=data_hash
    )


@pytest.fixture
def new_setting() -> Callable[..., Setting]:
    return make_setting
