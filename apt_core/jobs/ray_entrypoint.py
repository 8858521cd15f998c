"""What a node's shell is told to run for a job. No torch, no Ray."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from apt_core.jobs.devices import VISIBLE
from apt_core.jobs.ray_records import Record
from apt_core.processes import MARKER

PROGRAM = ("python", "-P", "-m", "apt_core")
"""-P: no folder of the user's stands for this package"""
FORWARDED = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"""environment variables of the client that its jobs get; no others, as they could be secrets"""
EVERY_SECONDS = 60
"""between copies of a run to storage; so much is lost at most, beside what came after a checkpoint"""


def entrypoint(record: Record, program: Sequence[str] = PROGRAM, environment: Mapping[str, str] = os.environ) -> str:
    """The line for the shell, every word quoted; the shell is replaced, so that signals and exit codes are the job's.

    Args:
        record: the job.
        program: what its arguments are given to; begins with a node's Python.
        environment: of the client; ``FORWARDED`` says what is taken.
    """
    command = [*program, *record.job.arguments]
    enter = shlex.join(["cd", "--", record.job.directory])
    if record.storage:
        name = Path(record.job.run_folder).name
        worker = [program[0], "-P", "-m", "apt_core.jobs.ray_worker"]
        command = [*worker, record.storage, record.place, name, str(EVERY_SECONDS), *command]
        enter += " 2> /dev/null;"  # all that it reads may have absolute paths, or be on the Hub
    else:
        enter += " &&"
    variables = {MARKER: record.job.id, **{name: environment[name] for name in FORWARDED if name in environment}}
    if record.device == "cpu":
        variables[VISIBLE] = ""
    return f"{enter} exec " + shlex.join(["env", *map("=".join, variables.items()), *command])
