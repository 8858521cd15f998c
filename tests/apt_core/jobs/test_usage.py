"""What real processes of jobs use."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from apt_core.jobs import usage
from apt_core.jobs.process_tree import job_processes
from apt_core.jobs.usage import Meter, members
from apt_core.processes import MARKER
from tests.apt_core.jobs.programs import hanging, until

MIB = 2**20


@pytest.fixture
def start():
    """Starts Python with a job's marker, or without; ends it afterwards."""
    started = []

    def run(code: str, marker: str | None) -> subprocess.Popen:
        environment = {**os.environ, **({MARKER: marker} if marker else {})}
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", code], env=environment, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        process.stdout.readline()
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_members_are_those_that_cancelling_would_end(jobs, tmp_path):
    job = hanging(jobs, tmp_path / "run")  # its child is in a session of its own
    orphaned = jobs.submit(["orphan", "wait"], tmp_path / "orphan")  # its child has no marker
    until(lambda: "child pid" in jobs.logs(orphaned.id))
    found = members({job.id, orphaned.id})
    for job_id in (job.id, orphaned.id):
        assert {process.pid for process in found[job_id]} == {process.pid for process in job_processes(job_id)}
        assert len(found[job_id]) == 3
    assert members({"0000-none"}) == {}


def test_job_below_a_job_is_not_counted_with_it(start):
    inner = (
        f"import os, subprocess, sys; os.environ[{MARKER!r}] = 'inner'; subprocess.Popen([sys.executable, '-S', '-c', "
    )
    inner += "'import time; print(1, flush=True); time.sleep(600)']).wait()"
    outer = start(inner, "outer")
    found = members({"inner", "outer"})
    assert [process.pid for process in found["outer"]] == [outer.pid]
    assert [process.ppid() for process in found["inner"]] == [outer.pid]
    for process in found["inner"]:
        process.kill()


def test_memory_is_that_of_all_processes_of_the_job(start):
    start(f"kept = b'x' * (200 * {MIB}); print(1, flush=True); import time; time.sleep(600)", "big")
    start("print(1, flush=True); import time; time.sleep(600)", "big")
    start("print(1, flush=True); import time; time.sleep(600)", "small")
    found = Meter().usages(["big", "small", "none"])
    assert set(found) == {"big", "small"}
    assert found["big"].rss_bytes > 200 * MIB > found["small"].rss_bytes > MIB
    assert (found["big"].num_processes, found["small"].num_processes) == (2, 1)
    assert found["big"].gpu_bytes is None


def test_processor_time_counts_from_the_measurement_before(start, monkeypatch):
    busy = start("print(1, flush=True)\nwhile True: pass", "busy")
    start("print(1, flush=True); import time; time.sleep(600)", "idle")
    meter = Meter()
    first = meter.usages(["busy", "idle"])
    assert first["busy"].cpu_percent is None
    begun = sum(psutil.Process(busy.pid).cpu_times()[:2])
    until(lambda: sum(psutil.Process(busy.pid).cpu_times()[:2]) > begun + 0.3)
    second = meter.usages(["busy", "idle"])
    assert second["busy"].cpu_percent > 1
    assert second["idle"].cpu_percent < second["busy"].cpu_percent
    monkeypatch.setattr(usage, "REMEMBERED_SECONDS", 0)
    meter.usages([])
    assert meter.usages(["busy"])["busy"].cpu_percent is None  # what was not measured meanwhile starts anew


@pytest.fixture
def driver_tool(tmp_path, monkeypatch):
    """Puts a program named nvidia-smi first, which prints what it is given."""

    def put(script: str) -> None:
        tool = tmp_path / "bin" / "nvidia-smi"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")

    return put


def test_gpu_memory_is_that_of_its_processes_on_all_gpus(start, driver_tool):
    process = start("print(1, flush=True); import time; time.sleep(600)", "trains")
    driver_tool(
        f"echo '{process.pid}, 1000'; echo '{process.pid}, 24'; echo '1, 77'; echo '{os.getpid()}, [N/A]'; echo odd"
    )
    assert Meter().usages(["trains"], gpus=True)["trains"].gpu_bytes == 1024 * MIB
    assert Meter().usages(["trains"])["trains"].gpu_bytes is None


@pytest.mark.parametrize("script", ["exit 9", "echo 'No devices were found'", "echo '1, 77'", "exec sleep 600"])
def test_driver_that_does_not_know_the_processes_says_nothing(start, driver_tool, script, monkeypatch):
    monkeypatch.setattr(usage, "SMI_SECONDS", 0.2)
    start("print(1, flush=True); import time; time.sleep(600)", "trains")
    driver_tool(script)
    assert Meter().usages(["trains"], gpus=True)["trains"].gpu_bytes is None


def test_usage_loads_no_torch():
    script = "import sys, apt_core.jobs.usage; print('torch' in sys.modules)"
    project = Path(usage.__file__).parents[2]
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=project)
    assert answer.stdout == "False\n"


def test_two_who_ask_for_different_jobs_both_get_their_processor_time(start):
    for name in ("first", "second"):
        start("print(1, flush=True)\nwhile True: pass", name)
    meter = Meter()
    for _ in range(2):
        found = {name: meter.usages([name])[name].cpu_percent for name in ("first", "second")}
    assert all(percent is not None for percent in found.values())
