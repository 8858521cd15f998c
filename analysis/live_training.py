"""What a training that runs has logged so far: its pace, its loss, its metric; out of ``metrics.jsonl``, bounded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from analysis.job_progress import Pace
from analysis.run_checks import is_finite_number
from analysis.run_curves import Curves, curves_of
from apt_core.errors import AptError
from apt_core.files import open_regular
from apt_core.run_format import METRICS_FILE

TAIL_BYTES = 16 * 1024


class Logged(NamedTuple):
    """What a training has logged."""

    pace: Pace | None
    curves: Curves
    """loss in nats, metric in its own unit; the last value of each is the newest"""


def logged_by(folder: Path, metric_name: str) -> Logged:
    """What the run in ``folder`` has logged; nothing where the file is missing, damaged or a link."""
    return Logged(pace_of(folder), curves_of(folder, metric_name))


def pace_of(folder: Path) -> Pace | None:
    """Step and seconds of the last line that has both; None where there is none."""
    try:
        with open_regular(folder / METRICS_FILE) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read(TAIL_BYTES).split(b"\n")
    except (OSError, AptError):
        return None
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and type(row.get("step")) is int and is_finite_number(row.get("seconds")):
            return Pace(row["step"], float(row["seconds"]))
    return None
