"""The Jobs page, with jobs whose states are told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from apt_core.errors import AptValueError
from apt_core.jobs import Job, locks
from apt_core.memory import RAN_OUT
from apt_core.run_format import this_host, update_finished_run
from tests.app_pages import button, labels, page, rerun, texts
from tests.told_jobs import ToldJobs, names, show_told_jobs

PROJECT = Path(__file__).parents[1]
OUT_OF_MEMORY = f"step 3 of 9\nerror: {RAN_OUT} 16: half of it needs less.\nand what a launcher adds"


@pytest.fixture
def jobs(tmp_path, monkeypatch) -> ToldJobs:
    return show_told_jobs(tmp_path, monkeypatch)


@pytest.fixture
def root(jobs) -> Path:
    """The folder of runs."""
    return jobs.root


def test_folder_without_jobs_says_what_makes_some(jobs, root):
    app = page("jobs")
    assert "There is no job yet" in texts(app.info)
    assert f"python -m apt_core jobs submit --runs {root} train --out {root / 'first'}" in texts(app.code)
    assert "cpu-0: free" in texts(app.markdown)


def test_jobs_of_a_cluster_are_not_said_to_take_this_machines_slots(jobs, monkeypatch):
    jobs.add("far", "running")
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--executor", "ray", "--address", "http://10.0.0.4:8265"])
    app = page("jobs")
    assert "on the cluster http://10.0.0.4:8265" in texts(app.markdown)
    assert "cpu-0" not in texts(app.markdown)
    assert names(app) == ["far"]


def test_cluster_that_does_not_answer_is_said_so_on_the_page(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="ray is an extra")
    words = ["app.py", "--runs", str(tmp_path), "--executor", "ray", "--address", "http://127.0.0.1:9"]
    monkeypatch.setattr(sys, "argv", words)  # the port of 'discard': nobody answers
    app = page("jobs")
    assert "The jobs cannot be listed" in texts(app.error)
    assert "127.0.0.1:9" in texts(app.error)


def test_jobs_are_ordered_and_told_with_slot_place_and_memory(jobs):
    jobs.add("old", "finished", exit_code=0, device="cpu-0")
    jobs.add("runs", "running", device="cpu-1")
    jobs.add("waits", "queued", position=1)
    app = page("jobs")
    assert names(app) == ["runs", "waits", "old"]
    said = texts(app.markdown)
    assert "retrain: running on cpu-1" in said
    assert "retrain: queued, number 1 in line" in said
    assert "cpu-0: free" in said
    assert "cpu-1: runs" in said
    assert "memory available" in texts(app.caption)
    assert "1 running, 1 waiting, 1 ended." in texts(app.caption)
    assert "took 5 min 0 s" in texts(app.caption)
    assert [each.value for each in app.subheader] == ["Running", "Waiting", "Ended"]


def test_running_training_shows_bar_time_left_loss_and_metric(jobs, root, record_run):
    folder = record_run(root / "b", steps=40)
    update_finished_run(folder, status="running", step=20, total_steps=40)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "seconds": 60, "loss": 0.125}\n')
    jobs.add("b", "running", device="cpu-0")
    app = page("jobs")
    (bar,) = app.get("progress")
    assert (bar.proto.value, bar.proto.text) == (50, "step 20 of 40 · about 1 min left")
    metrics = {metric.label: metric.value for metric in app.metric}
    assert metrics == {"training loss (nats)": "0.125", "validation accuracy": "0.500"}


def test_filter_is_in_the_address_and_leaves_its_states(jobs):
    for state in ("finished", "failed", "lost", "cancelled", "running", "queued"):
        jobs.add(state, state)
    assert sorted(names(page("jobs", state="failed or lost"))) == ["failed", "lost"]
    assert names(page("jobs", state="running")) == ["running"]
    assert names(page("jobs", state="waiting")) == ["queued"]
    assert len(names(page("jobs", state="nonsense"))) == 6
    jobs.jobs = [job for job in jobs.jobs if not job.run_folder.endswith("cancelled")]
    assert "No job is in this state" in texts(page("jobs", state="cancelled").info)


def test_hundreds_are_not_cut_silently_and_cost_no_log(jobs):
    for number in range(200):
        jobs.add(f"old-{number}", "finished")
    for number in range(30):
        jobs.add(f"waits-{number}", "queued", position=number + 1)
    app = page("jobs")
    assert len(names(app)) == 20
    assert labels(app).count("Cancel this job") == 10
    assert {"Show 20 more of 20", "Show 20 more of 190"} <= set(labels(app))
    app = rerun(button(app, "Show 20 more of 190").click())
    assert len(names(app)) == 40
    assert "Show 20 more of 170" in labels(app)
    assert jobs.asked_for_logs == []


def test_log_is_read_once_it_is_open_and_keeps_its_end(jobs, root):
    job = jobs.add("b", "running", printed="x" * 30_000 + "\nlast words")
    app = page("jobs")
    assert jobs.asked_for_logs == []
    app.session_state[f"log {job.id}"] = True
    app = rerun(app)
    (log,) = (code.value for code in app.code if "last words" in code.value)
    assert len(log) <= 4_000
    assert log.endswith("last words")
    assert f"python -m apt_core jobs logs {job.id} --follow --runs {root}" in texts(app.code)


def test_failed_job_says_why_and_is_retried_by_one_click(jobs):
    job = jobs.add("b", "failed", printed="step 1\nerror: data-dir: got 'x'; accepted: a folder.", exit_code=2)
    app = page("jobs")
    assert "error: data-dir: got 'x'; accepted: a folder." in texts(app.error)
    assert "Retry with half the batch" not in labels(app)
    app = rerun(button(app, "Retry").click())
    assert jobs.retried == [(job.id, False)]
    assert names(app) == ["b", "b"]
    assert "Retry" not in labels(app)
    assert "Done again as job 0002-a." in texts(app.caption)


def test_failed_job_that_said_nothing_gives_its_exit_code(jobs):
    jobs.add("b", "failed", exit_code=-11)
    assert "It said nothing and ended with exit code -11." in texts(page("jobs").error)


def test_job_that_ran_out_of_memory_is_retried_with_half_the_batch(jobs):
    job = jobs.add("b", "failed", printed=OUT_OF_MEMORY, exit_code=1)
    app = page("jobs")
    assert f"error: {RAN_OUT} 16: half of it needs less." in [error.value.replace("\\", "") for error in app.error]
    rerun(button(app, "Retry with half the batch").click())
    assert jobs.retried == [(job.id, True)]


def test_measuring_that_ran_out_of_memory_has_no_batch_to_halve(jobs):
    jobs.add("b", "failed", "measure", "b", printed=OUT_OF_MEMORY, exit_code=1)
    assert labels(page("jobs")) == ["Retry"]


def test_refused_retry_says_why(jobs, monkeypatch):
    def refuse(job_id: str, halve_batch: bool = False) -> Job:
        raise AptValueError(f"job: got {job_id!r}, whose *run* is finished; accepted: an interrupted run.")

    monkeypatch.setattr(jobs, "retry", refuse)
    jobs.add("b", "lost")
    app = rerun(button(page("jobs"), "Retry").click())
    assert "whose *run* is finished" in texts(app.error)
    assert "\\*run\\*" in app.error[0].value


def test_cancel_is_asked_once_more_and_says_what_follows(jobs):
    job = jobs.add("b", "running")
    app = page("jobs")
    assert "Retry goes on from its last checkpoint" in texts(app.markdown)
    app = rerun(button(app, "Cancel this job").click())
    assert jobs.report(job.id).state == "cancelled"
    assert "retrain: cancelled" in texts(app.markdown)


def test_command_is_there_to_copy_with_what_else_is_known(jobs, root):
    jobs.add("b", "finished", "train", "--data-dir", "my data", exit_code=0, device="cpu-1")
    app = page("jobs")
    assert "python -m apt_core train --data-dir 'my data'" in texts(app.code)
    assert f"run folder: {root / 'b'}" in texts(app.markdown)
    assert "exit code: 0" in texts(app.markdown)


def test_hostile_names_and_logs_are_text(jobs):
    name = "<img src=x onerror=alert(1)> **bold** [a](b)"
    jobs.add(name, "failed", name, printed=name + "\udc80")
    app = page("jobs")
    for element in (*app.markdown, *app.error, *app.caption):
        assert "[a](b)" not in element.value
        assert "<img" not in element.value.replace("\\<", "")


def test_reader_may_neither_cancel_nor_retry(jobs, monkeypatch):
    jobs.add("b", "running")
    jobs.add("c", "failed", printed=OUT_OF_MEMORY)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--read-only"])
    assert labels(page("jobs")) == []


def test_page_that_is_open_when_editing_is_switched_off_does_nothing(jobs, monkeypatch):
    job = jobs.add("b", "running")
    app = page("jobs")
    monkeypatch.setattr("analysis.pages.context.check_may_edit", _refuse)
    app = rerun(button(app, "Cancel this job").click())
    assert jobs.report(job.id).state == "running"
    assert "not any more" in texts(app.error)


def _refuse() -> None:
    raise AptValueError("not any more")


def test_pages_of_jobs_never_load_torch():
    script = "import sys\nfrom analysis.pages import jobs, notices, retrain\nprint('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert answer.stdout == "False\n"


def test_jobs_that_cannot_be_listed_are_said(jobs, monkeypatch):
    def fail() -> list[Job]:
        raise AptValueError("address: the cluster does not *answer*.")

    monkeypatch.setattr(jobs, "list", fail)
    assert "does not *answer*" in texts(page("jobs").error)
    app = page("notices")
    assert not app.toast
    assert not app.error


def test_unusable_number_of_slots_is_said_and_jobs_are_shown(jobs, monkeypatch):
    jobs.add("b", "running", device="cpu-0")
    monkeypatch.setenv("APT_SLOTS", "many")
    app = page("jobs")
    assert "APT_SLOTS" in texts(app.error)
    assert names(app) == ["b"]


def test_slot_that_a_job_of_another_folder_has_is_not_free(jobs, root, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("apt_core.jobs.local.gpu_slots", lambda: ["GPU-0", "GPU-1"])
    gpu = tmp_path / "cache" / "apt-gate-studio" / this_host() / "gpus" / "GPU-0"
    descriptor = locks.take(gpu)
    gpu.write_text(str(tmp_path / "grid" / ".jobs" / "0001-a"))
    said = texts(page("jobs").markdown)
    os.close(descriptor)
    assert "GPU-0: a job of grid" in said
    assert "GPU-1: free" in said


def test_job_that_ended_while_it_measured_offers_to_measure_and_nothing_once_that_is_done(jobs, root, record_run):
    folder = record_run(root / "b", steps=40)
    jobs.add("b", "cancelled", "train", "--out", str(folder))
    app = page("jobs")
    assert "Its run is finished, but was not measured." in texts(app.caption)
    assert "Retry" not in labels(app)
    rerun(button(app, "Measure").click())
    assert jobs.retried == [("0001-a", False)]
    del jobs.jobs[0]
    (folder / "measures.json").write_text("{}")
    app = page("jobs")
    assert "Its run is finished." in texts(app.caption)
    assert not {"Retry", "Measure"} & set(labels(app))


def test_batch_of_one_is_not_offered_to_be_halved(jobs):
    jobs.add("b", "failed", "train", "--batch-size", "1", "--out", "b", printed=OUT_OF_MEMORY)
    app = page("jobs")
    assert "Retry" in labels(app)
    assert "Retry with half the batch" not in labels(app)
