"""Local jobs with real processes: they outlive who submitted them, and end without a trace."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from apt_core.errors import AptError, AptFileExistsError, AptFileNotFoundError, AptWriteError
from apt_core.jobs import Jobs, LocalJobs
from apt_core.jobs.job_files import ALIVE_FILE, CANCEL_FILE, JOB_FILE, LOG_FILE, STATE_FILE
from apt_core.jobs.locks import is_held
from apt_core.processes import marked_processes
from apt_core.run_format import RUN_FILE
from tests.apt_core.jobs.programs import hanging, record_of, until


def test_job_that_ends_well_is_finished_with_its_log(jobs, tmp_path):
    job = jobs.submit(["succeed"], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "finished")
    assert jobs.logs(job.id) == "step 2 of 2\ndone"
    assert jobs.list() == [job]


def test_job_that_fails_is_failed_with_its_last_words(jobs, tmp_path):
    job = jobs.submit(["fail"], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "failed")
    assert jobs.logs(job.id).endswith("out of luck")
    assert jobs.report(job.id).exit_code == 1


@pytest.mark.parametrize(("last_lines", "shown"), [(1, "done"), (2, "step 2 of 2\ndone"), (9, "step 2 of 2\ndone")])
def test_logs_keeps_the_last_lines_only(jobs, tmp_path, last_lines, shown):
    job = jobs.submit(["succeed"], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "finished")
    assert jobs.logs(job.id, last_lines) == shown


def test_record_tells_supervisor_and_trainer_apart(jobs, tmp_path):
    job = hanging(jobs, tmp_path / "run")
    until(lambda: record_of(jobs, job).trainer_pid)
    record = record_of(jobs, job)
    assert psutil.Process(record.trainer_pid).ppid() == record.pid


def test_report_says_when_and_where_a_job_ran(jobs, tmp_path):
    job = jobs.submit(["succeed"], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "finished")
    report = jobs.report(job.id)
    assert (report.position, report.device, report.exit_code) == (None, "cpu-0", 0)
    assert job.submitted_at <= report.started_at <= report.ended_at


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_killed_trainer_is_failed_with_its_last_words_and_the_signal(jobs, tmp_path, number):
    job = jobs.submit(["sleep"], tmp_path / "run")
    until(lambda: "asleep" in jobs.logs(job.id) and record_of(jobs, job).trainer_pid)
    os.kill(record_of(jobs, job).trainer_pid, number)
    until(lambda: jobs.status(job.id) == "failed")
    assert jobs.logs(job.id).startswith(f"asleep\nerror: ended by {number.name}")
    assert jobs.report(job.id).exit_code == -number


def test_program_that_cannot_be_started_is_failed_and_says_so(tmp_path):
    jobs = LocalJobs(tmp_path / "jobs", program=[str(tmp_path / "no-such-program")])
    job = jobs.submit([], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "failed")
    assert "no-such-program could not be started" in jobs.logs(job.id)


def test_supervisor_that_dies_at_once_is_failed_with_its_traceback(jobs, tmp_path, monkeypatch):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "psutil.py").write_text("raise ImportError('broken installation')")
    monkeypatch.setattr("apt_core.__file__", str(tmp_path / "broken" / "apt_core" / "__init__.py"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    job = jobs.submit(["succeed"], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "failed")
    assert "broken installation" in jobs.logs(job.id)


def test_cancel_ends_the_whole_tree_even_if_it_ignores_term(jobs, tmp_path):
    job = hanging(jobs, tmp_path / "run")
    assert len(marked_processes(job.id)) == 3  # supervisor, trainer, child in a session of its own
    jobs.cancel(job.id, grace_seconds=0.5)
    assert jobs.status(job.id) == "cancelled"
    assert marked_processes(job.id) == []
    assert jobs.report(job.id).ended_at
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
from apt_core.jobs import Jobs, LocalJobs
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
    until(lambda: jobs.status(inner) == "running")
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
from apt_core.jobs import Jobs, LocalJobs
import os, signal
jobs = LocalJobs({str(jobs.folder)!r}, program={jobs._program!r})
jobs.submit(["hang"], {str(tmp_path / "run")!r})
os.killpg(0, signal.SIGKILL)
"""
    submitter = subprocess.run([sys.executable, "-c", script], check=False, start_new_session=True)
    assert submitter.returncode == -signal.SIGKILL
    (job,) = jobs.list()
    until(lambda: jobs.status(job.id) == "running")
    jobs.cancel(job.id, grace_seconds=0.5)
    assert marked_processes(job.id) == []


def kill_supervisor(jobs: LocalJobs, job) -> None:
    supervisor = psutil.Process(record_of(jobs, job).pid)
    os.kill(supervisor.pid, signal.SIGKILL)
    until(lambda: not supervisor.is_running() or supervisor.status() == psutil.STATUS_ZOMBIE)


def test_killed_supervisor_leaves_a_lost_job_and_no_process(jobs, tmp_path):
    job = hanging(jobs, tmp_path / "run")
    until(lambda: record_of(jobs, job).trainer_pid)
    kill_supervisor(jobs, job)
    assert is_held(jobs.folder / "queue" / "slots" / "cpu-0")  # the trainer has it too
    assert jobs.status(job.id) == "lost"
    assert not is_held(jobs.folder / "queue" / "slots" / "cpu-0")
    assert marked_processes(job.id) == []
    assert record_of(jobs, job).state == "lost"  # written, so that nobody searches again


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, whoever looks at the job ends its training")
def test_training_ends_with_its_supervisor_without_anybody_looking(jobs, tmp_path):
    job = jobs.submit(["sleep"], tmp_path / "run")
    until(lambda: "asleep" in jobs.logs(job.id) and record_of(jobs, job).trainer_pid)
    trainer = psutil.Process(record_of(jobs, job).trainer_pid)
    kill_supervisor(jobs, job)
    until(lambda: not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE)
    assert record_of(jobs, job).state == "running"  # nobody has looked yet
    assert jobs.status(job.id) == "lost"


def test_nothing_in_the_folder_where_paths_start_stands_for_this_package(jobs, tmp_path, monkeypatch):
    for package in ("apt_core", "json"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('planted')")
    monkeypatch.chdir(tmp_path)
    job = jobs.submit(["succeed"], tmp_path / "run")
    until(lambda: jobs.status(job.id) not in ("queued", "running"))
    assert (jobs.status(job.id), jobs.logs(job.id)) == ("finished", "step 2 of 2\ndone")


def test_log_that_is_a_link_is_not_read(jobs, tmp_path):
    job = jobs.submit(["succeed"], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "finished")
    (tmp_path / "private").write_text("private")
    log = jobs.folder / job.id / LOG_FILE
    log.unlink()
    log.symlink_to(tmp_path / "private")
    assert jobs.logs(job.id) == ""
    with pytest.raises(AptError, match="is a link"):
        list(jobs.follow(job.id))


def test_submit_into_a_run_raises(jobs, tmp_path):
    (tmp_path / RUN_FILE).write_text("{}")
    with pytest.raises(AptFileExistsError, match="already holds a run"):
        jobs.submit(["succeed"], tmp_path)
    assert jobs.list() == []


def test_submit_beside_a_running_job_into_the_same_folder_raises(jobs, tmp_path):
    job = hanging(jobs, tmp_path / "run")
    with pytest.raises(AptError, match=f"Job {job.id} writes it"):
        jobs.submit(["succeed"], tmp_path / "run")


def test_submit_knows_a_relative_run_folder_from_anywhere(jobs, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    job = hanging(jobs, Path("runs/a"))
    monkeypatch.chdir(tmp_path)
    assert job.run_folder == str(tmp_path / "here" / "runs" / "a")
    with pytest.raises(AptError, match=f"Job {job.id} writes it"):
        jobs.submit(["succeed"], "here/runs/a")


@pytest.mark.parametrize("job_id", ["nope", "../..", "", "a/b", "queue", ".", "a\n"])
def test_unknown_job_raises(jobs, job_id):
    for call in (jobs.status, jobs.report, jobs.cancel, jobs.logs, jobs.retry, jobs.follow):
        with pytest.raises(AptFileNotFoundError, match="accepted: an id that"):
            call(job_id)


def test_damaged_job_folders_do_not_hide_the_others(jobs, tmp_path):
    job = jobs.submit(["succeed"], tmp_path / "run")
    good = {"id": "x", "arguments": [], "run_folder": "x", "submitted_at": "2026-01-01T00:00:00+00:00"}
    damaged = ["{", "[]", '{"id": 1}', "[" * 100_000, json.dumps(good)]  # the last: not the folder's own id
    damaged += [json.dumps({**good, "arguments": [1]})]
    damaged += [json.dumps({**good, "id": f"{len(damaged) + n}", field: 7}) for n, field in enumerate(good)]
    for name, content in enumerate(damaged):
        (jobs.folder / str(name)).mkdir()
        (jobs.folder / str(name) / "job.json").write_text(content)
    assert job in jobs.list()
    until(lambda: jobs.status(job.id) == "finished")
    other = jobs.submit(["succeed"], tmp_path / "other")
    until(lambda: jobs.status(other.id) == "finished")


DAMAGED_STATES = ["", "[]", "{", '{"state": "odd"}', '{"state": ["running"]}', '{"state": "running"}', '{"state": 1}']
DAMAGED_STATES += ['{"state": "running", "pid": "x", "device": 7}', '{"state": "queued", "pid": -1}', "[" * 100_000]


@pytest.mark.parametrize("content", DAMAGED_STATES)
def test_damaged_state_of_a_job_without_processes_is_lost(jobs, tmp_path, content):
    job = jobs.submit(["succeed"], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "finished" and not is_held(jobs.folder / job.id / ALIVE_FILE))
    (jobs.folder / job.id / STATE_FILE).write_text(content)
    (jobs.folder / job.id / "log.txt").write_bytes(b"")
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


def test_local_jobs_have_every_method_of_the_interface():
    for name, method in vars(Jobs).items():
        if not name.startswith("_"):
            own = list(inspect.signature(getattr(LocalJobs, name)).parameters.values())
            asked = list(inspect.signature(method).parameters.values())
            assert own[: len(asked)] == asked
            assert all(more.default is not more.empty for more in own[len(asked) :])


def test_crash_of_the_supervisor_before_the_start_is_failed_with_its_traceback(jobs, tmp_path):
    (jobs.folder / "queue").mkdir(parents=True)
    (jobs.folder / "queue" / "slots").write_text("")  # no folder, so that no slot can be taken
    job = jobs.submit(["succeed"], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "failed")
    assert "queue/slots" in jobs.logs(job.id)


def test_list_and_report_do_not_need_the_run_folder(jobs, tmp_path):
    (tmp_path / "run").mkdir()
    job = jobs.submit(["succeed"], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "finished")
    (tmp_path / "run").rename(tmp_path / "renamed")
    assert [jobs.status(listed.id) for listed in jobs.list()] == ["finished"]


def test_followed_log_is_whole_and_ends_with_the_job(jobs, gate, tmp_path):
    job = jobs.submit(gate.arguments, tmp_path / "run")
    parts = jobs.follow(job.id)
    first = next(parts)
    gate.open()
    assert first + "".join(parts) == "started\n"
    assert jobs.status(job.id) == "finished"


def test_folder_that_cannot_be_written_is_said_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AptWriteError, match=r"jobs: nothing was queued: .*file"):
        LocalJobs(tmp_path / "file" / "jobs").submit(["succeed"], tmp_path / "run")


def test_job_whose_supervisor_cannot_be_started_is_not_left_behind(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(AptWriteError, match="no-python"):
        jobs.submit(["succeed"], tmp_path / "run")
    assert list(jobs.folder.glob(f"*/{JOB_FILE}")) == []
    monkeypatch.undo()
    job = LocalJobs(jobs.folder, jobs._program, slots=1).submit(["succeed"], tmp_path / "run")
    until(lambda: jobs.status(job.id) == "finished")


@pytest.mark.parametrize("module", ["apt_core.jobs.local", "analysis.pages.context"])
def test_jobs_load_no_torch(module):
    script = f"import sys, {module}; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_waiting_supervisor_loads_neither_numpy_nor_pydantic():
    script = (
        "import sys, apt_core.jobs.supervisor; print([name for name in ('numpy', 'pydantic') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_looking_at_a_copy_of_the_folder_leaves_the_original_alone(jobs, tmp_path):
    job = hanging(jobs, tmp_path / "run")
    until(lambda: record_of(jobs, job).trainer_pid)
    copied = LocalJobs(shutil.copytree(jobs.folder, tmp_path / "backup"))
    assert copied.status(job.id) == "lost"
    assert jobs.status(job.id) == "running"
    assert len(marked_processes(job.id)) == 3  # supervisor, trainer and its child


def test_running_job_can_be_cancelled_through_its_folder_alone(jobs, tmp_path):
    """As from another machine, which cannot end its processes."""
    job = hanging(jobs, tmp_path / "run")
    (jobs.folder / job.id / CANCEL_FILE).touch()
    until(lambda: record_of(jobs, job).state == "cancelled")
    left = {process.pid for process in marked_processes(job.id)}
    assert left <= {record_of(jobs, job).pid}  # the supervisor, which has just written that, ends now
    until(lambda: not marked_processes(job.id))


def test_slots_name_the_job_that_has_them_also_to_other_folders(jobs, one_slot, tmp_path):
    assert jobs.slots() == {"cpu-0": None, "cpu-1": None}
    job = hanging(one_slot, tmp_path / "run")
    assert jobs.slots() == {"cpu-0": jobs.folder.resolve() / job.id, "cpu-1": None}
