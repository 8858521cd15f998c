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
from apt_core.jobs.local import CANCEL_FILE, STATE_FILE
from apt_core.processes import is_alive, marked_processes
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
elif what == "orphan":
    child = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    child += "; print('child pid', os.getpid(), flush=True); time.sleep(600)"
    started = subprocess.Popen([sys.executable, "-c", child], env={}, start_new_session=True, stdout=subprocess.PIPE)
    print(started.stdout.readline().decode(), flush=True)
    if sys.argv[2] == "wait":
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


@pytest.mark.parametrize(("last_lines", "shown"), [(1, "done"), (2, "step 2 of 2\ndone"), (9, "step 2 of 2\ndone")])
def test_logs_keeps_the_last_lines_only(jobs, tmp_path, last_lines, shown):
    job = jobs.submit(["succeed"], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "finished")
    assert jobs.logs(job.id, last_lines) == shown


def test_state_tells_supervisor_and_trainer_apart(jobs, tmp_path):
    job = hanging(jobs, tmp_path / "run")
    state = json.loads((jobs.folder / job.id / STATE_FILE).read_text())
    assert psutil.Process(state["trainer_pid"]).ppid() == state["pid"]
    assert is_alive(state["trainer_pid"], state["trainer_started"])
    jobs.cancel(job.id, grace_seconds=0.5)


def test_program_that_cannot_be_started_is_failed_and_says_so(tmp_path):
    jobs = LocalJobs(tmp_path / "jobs", program=[str(tmp_path / "no-such-program")])
    job = jobs.submit([], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "failed")
    assert "no-such-program could not be started" in jobs.logs(job.id)


def test_supervisor_that_dies_at_once_is_failed_with_its_traceback(jobs, tmp_path, monkeypatch):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ctypes.py").write_text("raise ImportError('broken installation')")
    monkeypatch.setattr("apt_core.__file__", str(tmp_path / "broken" / "apt_core" / "__init__.py"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    job = jobs.submit(["succeed"], tmp_path / "run")
    assert jobs.status(job.id) == "failed"
    assert "broken installation" in jobs.logs(job.id)


def test_cancel_ends_the_whole_tree_even_if_it_ignores_term(jobs, tmp_path):
    job = hanging(jobs, tmp_path / "run")
    assert len(marked_processes(job.id)) == 3  # supervisor, trainer, child in a session of its own
    jobs.cancel(job.id, grace_seconds=0.5)
    assert jobs.status(job.id) == "cancelled"
    assert marked_processes(job.id) == []
    jobs.cancel(job.id)
    assert jobs.status(job.id) == "cancelled"


@pytest.mark.parametrize("ending", ["cancelled", "finished"])
def test_processes_without_the_marker_end_with_the_job(jobs, tmp_path, ending):
    job = jobs.submit(["orphan", "wait" if ending == "cancelled" else "end"], tmp_path / "run")
    until(lambda: "child pid" in jobs.logs(job.id))
    child = int(jobs.logs(job.id).split()[-1])
    if ending == "cancelled":
        jobs.cancel(job.id, grace_seconds=0.5)
    until(lambda: jobs.status(job.id) == ending)
    until(lambda: not psutil.pid_exists(child))


def test_job_submitted_by_a_job_is_not_cancelled_with_it(jobs, tmp_path):
    script = tmp_path / "submitter.py"
    script.write_text(f"""
import time
from apt_core.jobs import LocalJobs
job = LocalJobs({str(jobs.folder)!r}, program={jobs._program!r}).submit(["hang"], {str(tmp_path / "inner")!r})
print("inner", job.id, flush=True)
time.sleep(600)
""")
    outer = LocalJobs(jobs.folder, program=[sys.executable, str(script)])
    job = outer.submit([], tmp_path / "outer")
    until(lambda: "inner" in outer.logs(job.id))
    inner = outer.logs(job.id).split()[-1]
    outer.cancel(job.id, grace_seconds=0.5)
    assert outer.status(job.id) == "cancelled"
    assert jobs.status(inner) == "running"
    jobs.cancel(inner, grace_seconds=0.5)
    assert marked_processes(inner) == []


def test_cancel_that_was_killed_halfway_can_be_repeated(jobs, tmp_path):
    job = hanging(jobs, tmp_path / "run")
    script = f"from apt_core.jobs import LocalJobs; LocalJobs({str(jobs.folder)!r}).cancel({job.id!r}, 600)"
    canceller = subprocess.Popen([sys.executable, "-c", script])
    until(lambda: (jobs.folder / job.id / CANCEL_FILE).exists())
    canceller.kill()
    canceller.wait()
    assert jobs.status(job.id) == "running"
    jobs.cancel(job.id, grace_seconds=0.5)
    assert jobs.status(job.id) == "cancelled"
    assert marked_processes(job.id) == []


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


def test_submit_knows_a_relative_run_folder_from_anywhere(jobs, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    job = hanging(jobs, Path("runs/a"))
    monkeypatch.chdir(tmp_path)
    assert job.run_folder == str(tmp_path / "here" / "runs" / "a")
    with pytest.raises(AptError, match=f"which job {job.id} writes"):
        jobs.submit(["succeed"], "here/runs/a")
    jobs.cancel(job.id, grace_seconds=0.5)


@pytest.mark.parametrize("job_id", ["nope", "../..", "", "a/b"])
def test_unknown_job_raises(jobs, job_id):
    for call in (jobs.status, jobs.cancel, jobs.logs):
        with pytest.raises(AptFileNotFoundError, match="accepted: an id that"):
            call(job_id)


def test_damaged_job_folders_do_not_hide_the_others(jobs, tmp_path):
    job = jobs.submit(["succeed"], tmp_path / "run")
    good = {"id": "x", "arguments": [], "run_folder": "x", "submitted_at": "2026-01-01T00:00:00+00:00"}
    damaged = ["{", "[]", '{"id": 1}', "[" * 100_000, json.dumps(good)]  # the last: not the folder's own id
    damaged += [json.dumps({**good, "id": f"{len(damaged) + n}", field: 7}) for n, field in enumerate(good)]
    for name, content in enumerate(damaged):
        (jobs.folder / str(name)).mkdir()
        (jobs.folder / str(name) / "job.json").write_text(content)
    assert job in jobs.list()
    until(lambda: jobs.status(job.id) == "finished")
    other = jobs.submit(["succeed"], tmp_path / "other")
    until(lambda: jobs.status(other.id) == "finished")


DAMAGED_STATES = ["", "[]", "{", '{"state": "odd"}', '{"state": ["running"]}', '{"state": "running"}']
DAMAGED_STATES += ['{"state": "running", "pid": "x", "started": null}', '{"state": "running", "pid": -1, "started": 1}']


@pytest.mark.parametrize("content", DAMAGED_STATES)
def test_damaged_state_of_a_job_without_processes_is_lost(jobs, tmp_path, content):
    job = jobs.submit(["succeed"], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "finished" and not marked_processes(job.id))
    (jobs.folder / job.id / STATE_FILE).write_text(content)
    assert jobs.status(job.id) == "lost"
    jobs.cancel(job.id)
    assert jobs.status(job.id) == "lost"


def test_damaged_state_of_a_running_job_does_not_end_it(jobs, tmp_path):
    job = hanging(jobs, tmp_path / "run")
    (jobs.folder / job.id / STATE_FILE).write_text("{")
    assert jobs.status(job.id) == "running"
    jobs.cancel(job.id, grace_seconds=0.5)
    assert jobs.status(job.id) == "cancelled"
    assert marked_processes(job.id) == []


def test_jobs_load_no_torch():
    script = "import sys, apt_core.jobs; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )
