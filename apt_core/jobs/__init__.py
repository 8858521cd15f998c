"""Trainings in processes of their own: submit, status, cancel, logs. No torch.

The public names are loaded on first use: a supervisor waits for hours, and needs few of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apt_core.jobs.interface import Job, JobReport, Jobs, JobState
    from apt_core.jobs.local import LocalJobs
    from apt_core.jobs.places import place
    from apt_core.jobs.ray_jobs import RayJobs

_HOMES = {
    "Job": "apt_core.jobs.interface",
    "JobReport": "apt_core.jobs.interface",
    "JobState": "apt_core.jobs.interface",
    "Jobs": "apt_core.jobs.interface",
    "LocalJobs": "apt_core.jobs.local",
    "RayJobs": "apt_core.jobs.ray_jobs",
    "place": "apt_core.jobs.places",
}

__all__ = ["Job", "JobReport", "JobState", "Jobs", "LocalJobs", "RayJobs", "place"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
