"""Where jobs run: the one place that knows this machine from a cluster. No torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, get_args

from apt_core.errors import bad_value
from apt_core.jobs.interface import Jobs

JOBS_FOLDER = ".jobs"
"""inside the folder of the runs that the jobs make"""
STORAGE_VARIABLE = "APT_RAY_STORAGE"
Executor = Literal["local", "ray"]


def place(
    runs: Path,
    *,
    executor: Executor = "local",
    address: str | None = None,
    slots: int | None = None,
    storage: str | None = None,
) -> Jobs:
    """What takes jobs and knows them.

    Args:
        runs: the folder of the runs that jobs make here; jobs of this machine are kept in it.
        executor: local: this machine; ray: a Ray cluster.
        address: of the cluster's dashboard, such as http://10.0.0.4:8265; None: the environment variable
            ``APT_RAY_ADDRESS``.
        slots: of this machine, see ``LocalJobs``.
        storage: to which the cluster's nodes copy their runs, see ``RayJobs``; None: ``APT_RAY_STORAGE``.

    Raises:
        AptValueError: if an argument is not usable or not one of this executor's.
    """
    if executor == "ray":
        from apt_core.jobs.ray_jobs import RayJobs

        if slots is not None:
            raise bad_value("slots", slots, "nothing with --executor ray", "The cluster's resources say how many run.")
        return RayJobs(address, os.environ.get(STORAGE_VARIABLE) if storage is None else storage)
    if executor != "local":
        raise bad_value("executor", executor, " or ".join(get_args(Executor)))
    for name, value in (("address", address), ("storage", storage)):
        if value is not None:
            raise bad_value(name, value, "nothing with --executor local", "Add --executor ray.")
    from apt_core.jobs.local import LocalJobs

    return LocalJobs(runs / JOBS_FOLDER, slots=slots)
