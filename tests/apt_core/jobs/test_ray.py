"""Jobs on a real Ray cluster of two nodes on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from apt_core.__main__ import app
from apt_core.errors import AptError, AptValueError
from apt_core.jobs import Job, LocalJobs, RayJobs
from apt_core.jobs.interface import WAITING
from apt_core.jobs.job_files import number_of
from apt_core.processes import MARKER, marked_processes
from apt_core.run_format import read_run_info, update_finished_run
from tests.apt_core.jobs.programs import DEADLINE_SECONDS, program, until

pytest.importorskip("ray", reason="ray is an extra")
pytestmark = pytest.mark.slow

CPU = ["--device", "cpu"]
WORKER = "_ray_pkg_"
"""in the folder that Ray unpacks this package to, on a node"""
SHOW = """
import json, os, sys
names = ("APT_JOB_ID", "CUDA_VISIBLE_DEVICES", "HF_TOKEN", "HF_DATASETS_OFFLINE", "PYTHONPATH")
print("shown", json.dumps([sys.argv[1:], os.getcwd(), {name: os.environ.get(name) for name in names}]))
"""
STORED = """
import json, pathlib, shutil, sys
out, earlier = pathlib.Path(sys.argv[-1]), pathlib.Path(sys.argv[1])
if "--resume" not in sys.argv:
    shutil.copytree(earlier, out)
    raise SystemExit("cut off")
run = json.loads((out / "run.json").read_text())
(out / "run.json").write_text(json.dumps({**run, "status": "finished", "updated_at": "2031-01-01T00:00:00+00:00"}))
(out / "node").write_text(str(out))
"""


@pytest.fixture
def on_ray(ray_cluster, tmp_path) -> Iterator[Callable[..., RayJobs]]:
    """Makes clients; jobs that a test leaves are cancelled."""

    def client(command: list[str] | None = None, **options: str) -> RayJobs:
        return RayJobs(ray_cluster.address, program=command or program(tmp_path), **options)

    yield client
    jobs = client()
    for job in jobs.list():
        if Path(job.run_folder).is_relative_to(tmp_path):
            jobs.cancel(job.id)


def node_of(jobs: RayJobs, job: Job) -> str | None:
    return jobs._cluster.details(job.id).driver_node_id


def rays_own_state(jobs: RayJobs, job: Job) -> str:
    return jobs._cluster.details(job.id).status.value


def lines_of(log: str) -> list[str]:
    """Without empty ones: Ray makes two line ends of a carriage return and a line feed that it reads one by one."""
    return [line for line in log.splitlines() if line]


async def followed_in_a_notebook(jobs: RayJobs, job_id: str) -> str:
    """Where an event loop runs already."""
    return "".join(jobs.follow(job_id))


def test_jobs_run_on_both_nodes_and_wait_and_are_cancelled_by_another_client(on_ray, gate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs, other = on_ray(), on_ray()
    gated = jobs.submit([*gate.arguments, *CPU], "gated")
    stubborn = jobs.submit(["hang", *CPU], "stubborn")
    until(lambda: gate.started() == [gated.id] and "child ready" in jobs.logs(stubborn.id))
    assert {node_of(jobs, gated), node_of(jobs, stubborn)} == {node["node_id"] for node in nodes(jobs)}
    assert len(marked_processes(stubborn.id)) >= 2

    waiting = RayJobs(jobs.address).submit(["train", "--out", "waiting", *CPU], "waiting")
    report = other.report(waiting.id)
    assert (report.state, report.device, report.exit_code) == ("queued", None, None)
    assert "waiting for resources" in other.logs(waiting.id)
    other.cancel(waiting.id)
    assert (other.status(waiting.id), jobs.report(waiting.id).state) == ("cancelled", "cancelled")
    assert list(other.follow(waiting.id))
    assert rays_own_state(jobs, waiting) == "PENDING"

    other.cancel(stubborn.id)
    assert jobs.status(stubborn.id) == "cancelled"
    until(lambda: not marked_processes(stubborn.id))
    until(lambda: rays_own_state(jobs, waiting) == "STOPPED")
    assert not (tmp_path / "waiting").exists()
    gate.open()
    until(lambda: jobs.status(gated.id) == "finished")
    report = jobs.report(gated.id)
    assert (report.exit_code, report.device[:4], report.started_at) == (0, "cpu@", None)
    assert gated.submitted_at < report.ended_at
    assert [job.id for job in other.list()[:3]] == [waiting.id, stubborn.id, gated.id]
    assert other.list()[2] == gated
    assert gate.started() == [gated.id]


def nodes(jobs: RayJobs) -> list[dict]:
    return jobs._cluster._client._do_request("GET", "/api/v0/nodes?detail=1").json()["data"]["result"]["result"]


def test_words_arrive_as_they_are_with_a_device_and_no_secrets(on_ray, tmp_path, monkeypatch):
    odd = "$(touch pwned) `touch pwned` ; touch pwned\n'\" \\ * ~ {} é"
    here = tmp_path / "it's $HERE; here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    jobs = on_ray([sys.executable, "-c", SHOW])
    shown = {}
    submitted = {
        device: jobs.submit(["--model", odd, "--device", device], device) for device in ("cpu", "cuda", "auto")
    }
    for device, job in submitted.items():
        until(lambda job=job: jobs.status(job.id) == "finished")
        log = jobs.logs(job.id)
        shown[device] = json.loads(log.partition("shown ")[2])
        assert "hf_secret" not in str(jobs._cluster.details(job.id)) + log
    for device, (words, directory, variables) in shown.items():
        assert (words, directory) == (["--model", odd, "--device", device], str(here))
        assert (variables[MARKER], variables["HF_TOKEN"]) == (submitted[device].id, None)
        assert variables["HF_DATASETS_OFFLINE"] == "1"
        assert WORKER in variables["PYTHONPATH"]
    assert {device: variables["CUDA_VISIBLE_DEVICES"] for device, (*_, variables) in shown.items()} == {
        "cpu": "",
        "cuda": "0",
        "auto": "0",
    }
    assert jobs.report(submitted["auto"].id).device.startswith("cuda@")
    assert not list(here.iterdir())


def test_of_two_clients_that_submit_one_folder_at_once_one_is_told_which_job_writes_it(on_ray, tmp_path):
    both_know_the_id = threading.Barrier(2, timeout=DEADLINE_SECONDS)

    class Late(RayJobs):
        def _free_id(self, *arguments) -> str:
            job_id = super()._free_id(*arguments)
            both_know_the_id.wait()
            return job_id

    jobs = on_ray()
    clients = [Late(jobs.address, program=jobs._program) for _ in range(2)]
    outcomes: list[Job | AptError] = []

    def submit(client: RayJobs) -> None:
        try:
            outcomes.append(client.submit(["sleep", *CPU], tmp_path / "run"))
        except AptError as problem:
            outcomes.append(problem)

    threads = [threading.Thread(target=submit, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (job,) = (outcome for outcome in outcomes if isinstance(outcome, Job))
    (refused,) = (outcome for outcome in outcomes if isinstance(outcome, AptError))
    assert f"Job {job.id} writes it" in str(refused)
    assert [other.id for other in jobs.list() if other.run_folder == job.run_folder] == [job.id]
    with pytest.raises(AptValueError, match=f"a folder that no job writes. Job {job.id} writes it"):
        jobs.submit(["sleep", *CPU], tmp_path / "run")
    jobs.cancel(job.id)
    again = jobs.submit(["succeed", *CPU], tmp_path / "run")
    assert (number_of(job.id), number_of(again.id)) == (1, 2)


def test_job_whose_supervisor_dies_is_lost_and_one_that_is_killed_failed(on_ray, tmp_path):
    jobs = on_ray()
    lost, killed = (jobs.submit(["sleep", *CPU], tmp_path / name) for name in ("lost", "killed"))
    until(lambda: all("asleep" in jobs.logs(job.id) for job in (lost, killed)))
    (trainer,) = marked_processes(lost.id)
    trainer.parent().kill()
    (trainer,) = marked_processes(killed.id)
    trainer.kill()
    until(lambda: jobs.status(lost.id) == "lost")
    assert "Job supervisor actor died" in jobs.logs(lost.id)
    until(lambda: not marked_processes(lost.id))
    until(lambda: jobs.status(killed.id) == "failed")
    assert jobs.report(killed.id).exit_code == -signal.SIGKILL
    assert jobs.logs(killed.id, 2).startswith(
        "asleep\nerror: ended by SIGKILL, as the system does when memory runs out"
    )
    again = jobs.retry(lost.id)
    assert (again.arguments, again.run_folder) == (lost.arguments, lost.run_folder)
    assert number_of(again.id) == number_of(lost.id) + 1
    with pytest.raises(AptError, match=r"which is (queued|running).*Cancel it first"):
        jobs.retry(again.id)


def test_run_is_copied_to_storage_fetched_and_gone_on_with(on_ray, record_run, tmp_path):
    earlier = record_run(tmp_path / "earlier", steps=2)
    update_finished_run(earlier, status="interrupted")
    command = [sys.executable, "-c", STORED, str(earlier)]
    jobs = on_ray(command, storage=(tmp_path / "storage").as_uri())
    with pytest.raises(AptError, match="command: got 'measure'; accepted: train or retrain"):
        jobs.submit(["measure", str(earlier)], earlier)
    job = jobs.submit(["train", *CPU, "--out", "here"], tmp_path / "here")
    with pytest.raises(AptError, match="has not copied anything yet"):
        jobs.fetch(job.id)
    until(lambda: jobs.status(job.id) == "failed")
    assert "cut off" in jobs.logs(job.id)
    other = on_ray(command)
    assert other.fetch(job.id) == tmp_path / "here"
    assert read_run_info(tmp_path / "here") == read_run_info(earlier)
    again = other.retry(job.id)
    assert again.arguments == ["train", "--out", str(tmp_path / "here"), "--resume"]
    until(lambda: other.status(again.id) not in WAITING)
    assert other.status(again.id) == "finished", other.logs(again.id)
    assert read_run_info(other.fetch(again.id)).status == "finished"
    scratch = Path((tmp_path / "here" / "node").read_text())
    assert scratch.name == "here"
    assert not scratch.exists()
    assert len(list((tmp_path / "storage").iterdir())) == 2


@pytest.fixture
def files(tmp_path) -> list[str]:
    """A task of four short texts."""
    options = []
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.csv").write_text("text,label\ngood,a\nbad,b\nfine,a\npoor,b\n")
        options += [f"--{split}-file", f"{split}.csv"]
    return options


def test_same_training_here_and_on_ray_gives_the_same_metrics_and_outlives_its_client(
    on_ray, files, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings = ["--task", "text-classification", *files, "--batch-size", "2", "--epochs", "2", "--no-measure", *CPU]
    train = ["train", *settings, "--num-virtual-tokens", "2", "--out"]
    client = subprocess.run(
        [sys.executable, "-m", "apt_core", "jobs", "submit", *train, "run-on-ray", "--executor", "ray"],
        env={**os.environ, "APT_RAY_ADDRESS": on_ray().address, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert client.returncode == 0, client.stderr
    assert client.stderr == ""
    (job_id,) = client.stdout.split()
    here = LocalJobs(tmp_path / "queue")
    local = here.submit([*train, "run-here"], "run-here")

    ray = on_ray()
    followed = "".join(ray.follow(job_id))
    assert ray.status(job_id) == "finished", followed
    until(lambda: here.status(local.id) not in WAITING)
    one, other = (read_run_info(tmp_path / name) for name in ("run-here", "run-on-ray"))
    assert (one.metrics, one.best_step, one.step) == (other.metrics, other.best_step, other.step)
    assert lines_of(followed) == lines_of(ray._cluster.logs(job_id))
    assert lines_of(asyncio.run(followed_in_a_notebook(ray, job_id))) == lines_of(followed)
    said = [line for line in here.logs(local.id).splitlines() if line.startswith(("note: ", "text-cl", "  python "))]
    assert {line.partition(" steps in ")[0].replace("run-here", "run-on-ray") for line in said} <= {
        line.partition(" steps in ")[0] for line in followed.splitlines()
    }

    def typed(*words: str) -> str:
        done = CliRunner().invoke(app, ["jobs", *words, "--address", ray.address])
        return done.stdout or str(done.exception)

    table = typed("list", "--executor", "ray").splitlines()
    (row,) = (line.split() for line in table if line.startswith(job_id))
    assert (row[1], row[2][:4], row[-2:]) == ("finished", "cpu@", ["train", f"{tmp_path}/run-on-ray"])
    assert lines_of(typed("logs", job_id, "--executor", "ray", "--follow")) == lines_of(followed)
    assert typed("logs", job_id, "--executor", "ray", "--lines", "1") == followed.splitlines()[-1] + "\n"
    assert typed("cancel", job_id, "--executor", "ray") == f"{job_id}  finished\n"
    assert "which is finished" in typed("retry", job_id, "--executor", "ray")
    assert "accepted: one that was submitted with --storage" in typed("fetch", job_id)
