"""Local jobs with real processes: they outlive who submitted them, and end without a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from apt_core.errors import AptError, AptFileExistsError, AptFileNotFoundError
from apt_core.jobs import LocalJobs
from apt_core.jobs.local import STATE_FILE
from apt_core.processes import marked_processes
from apt_core.run_format import RUN_FILE

DEADLINE_SECONDS = 20

TRAINER = """
import os, signal, subprocess, sys, time
what = sys.argv[1]
if what == "succeed":
    print("\\rstep 1 of 2\\rstep 2 of 2")
    print("done")
elif what == "fail":
    print("about to fail")
    raise SystemExit("out of luck")
elif what == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    child += "; print('child ready', flush=True); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
    print("trainer ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def jobs(tmp_path) -> LocalJobs:
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    return LocalJobs(tmp_path / "jobs", program=[sys.executable, str(script)])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def hanging(jobs: LocalJobs, run_folder: Path):
    job = jobs.submit(["hang"], run_folder)
    until(lambda: "trainer ready" in jobs.logs(job.id) and "child ready" in jobs.logs(job.id))
    return job


def test_job_that_ends_well_is_finished_with_its_log(jobs, tmp_path):
    job = jobs.submit(["succeed"], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "finished")
    assert jobs.logs(job.id) == "step 2 of 2\ndone"
    assert jobs.list() == [job]


def test_job_that_fails_is_failed_with_its_last_words(jobs, tmp_path):
    job = jobs.submit(["fail"], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "failed")
    assert jobs.logs(job.id).endswith("out of luck")
    assert json.loads((jobs.folder / job.id / STATE_FILE).read_text())["exit_code"] == 1


def test_logs_keeps_the_last_lines_only(jobs, tmp_path):
    job = jobs.submit(["succeed"], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "finished")
    assert jobs.logs(job.id, last_lines=2) == "done"


def test_cancel_ends_the_whole_tree_even_if_it_ignores_term(jobs, tmp_path):
    job = hanging(jobs, tmp_path / "run")
    assert len(marked_processes(job.id)) == 3  # supervisor, trainer, child in a session of its own
    jobs.cancel(job.id, grace_seconds=0.5)
    assert jobs.status(job.id) == "cancelled"
    assert marked_processes(job.id) == []
    jobs.cancel(job.id)
    assert jobs.status(job.id) == "cancelled"


def test_job_survives_its_submitter_and_is_cancelled_by_another(jobs, tmp_path):
    script = f"""
from apt_core.jobs import LocalJobs
import os, signal
jobs = LocalJobs({str(jobs.folder)!r}, program={jobs._program!r})
jobs.submit(["hang"], {str(tmp_path / "run")!r})
os.killpg(0, signal.SIGKILL)
"""
    submitter = subprocess.run([sys.executable, "-c", script], check=False, start_new_session=True)
    assert submitter.returncode == -signal.SIGKILL
    (job,) = jobs.list()
    assert jobs.status(job.id) == "running"
    jobs.cancel(job.id, grace_seconds=0.5)
    assert marked_processes(job.id) == []


def test_killed_supervisor_leaves_a_lost_job_and_no_process(jobs, tmp_path):
    job = hanging(jobs, tmp_path / "run")
    supervisor = psutil.Process(json.loads((jobs.folder / job.id / STATE_FILE).read_text())["pid"])
    os.kill(supervisor.pid, signal.SIGKILL)
    until(lambda: not supervisor.is_running() or supervisor.status() == psutil.STATUS_ZOMBIE)
    assert jobs.status(job.id) == "lost"
    assert marked_processes(job.id) == []


def test_submit_into_a_run_raises(jobs, tmp_path):
    (tmp_path / RUN_FILE).write_text("{}")
    with pytest.raises(AptFileExistsError, match="already holds a run"):
        jobs.submit(["succeed"], tmp_path)
    assert jobs.list() == []


def test_submit_beside_a_running_job_into_the_same_folder_raises(jobs, tmp_path):
    job = hanging(jobs, tmp_path / "run")
    with pytest.raises(AptError, match=f"which job {job.id} writes"):
        jobs.submit(["succeed"], tmp_path / "run")
    jobs.cancel(job.id, grace_seconds=0.5)


@pytest.mark.parametrize("job_id", ["nope", "../..", "", "a/b"])
def test_unknown_job_raises(jobs, job_id):
    for call in (jobs.status, jobs.cancel, jobs.logs):
        with pytest.raises(AptFileNotFoundError, match="accepted: an id that"):
            call(job_id)


def test_damaged_job_folders_do_not_hide_the_others(jobs, tmp_path):
    job = jobs.submit(["succeed"], tmp_path / "run")
    for name, content in (("a", "{"), ("b", "[]"), ("c", '{"id": 1}')):
        (jobs.folder / name).mkdir()
        (jobs.folder / name / "job.json").write_text(content)
    assert [found.id for found in jobs.list()] == [job.id]
    until(lambda: jobs.status(job.id) == "finished")


def test_jobs_load_no_torch():
    script = "import sys, apt_core.jobs; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )
