"""A queue of its own for every test, on a machine without GPUs, and no process left when the test has ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from apt_core.jobs import LocalJobs
from tests.apt_core.jobs.programs import Gate, program
from tests.apt_core.jobs.ray_cluster import RayCluster


@pytest.fixture(autouse=True)
def _apart_from_other_jobs(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("APT_SLOTS", raising=False)


@pytest.fixture
def jobs(tmp_path) -> Iterator[LocalJobs]:
    """Two slots; ``jobs.submit([what, ...], folder)`` runs the programs of ``TRAINER``."""
    made = LocalJobs(tmp_path / "jobs", program=program(tmp_path), slots=2)
    yield made
    for job in made.list():
        made.cancel(job.id, grace_seconds=0)


@pytest.fixture
def one_slot(jobs) -> LocalJobs:
    """The same jobs, of which one runs at a time."""
    return LocalJobs(jobs.folder, program=jobs._program, slots=1)


@pytest.fixture
def gate(tmp_path) -> Iterator[Gate]:
    made = Gate(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """Two nodes of Ray, for all tests that need them."""
    cluster = RayCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
