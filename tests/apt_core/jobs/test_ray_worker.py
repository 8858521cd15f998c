"""What runs a training on a node and copies it to storage, as a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.apt_core.jobs.programs import DEADLINE_SECONDS, until

PROGRAM = """
import os, pathlib, signal, sys, time
out, what = pathlib.Path(sys.argv[-1]), sys.argv[1]
out.mkdir(exist_ok=True)
(out / "seen").write_text(",".join(sorted(path.name for path in out.iterdir())))
if what == "wait":
    time.sleep(600)
elif what == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (out / "ready").write_text("")
    time.sleep(600)
elif what == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
raise SystemExit(int(what))
"""


@pytest.fixture
def work(tmp_path) -> Callable[..., subprocess.Popen]:
    """Starts a worker whose training does what is said, and which looks for changes all the time."""
    for folder in ("scratch", "storage/place"):
        (tmp_path / folder).mkdir(parents=True)
    started = []

    def start(what: str) -> subprocess.Popen:
        storage = (tmp_path / "storage").as_uri()
        command = [sys.executable, "-m", "apt_core.jobs.ray_worker", storage, "place", "my run", "0.1"]
        environment = {**os.environ, "APT_JOB_ID": f"0001-{os.urandom(6).hex()}", "TMPDIR": str(tmp_path / "scratch")}
        started.append(
            subprocess.Popen(
                [*command, sys.executable, "-S", "-c", PROGRAM, what],
                env=environment,
                cwd=Path(__file__).parents[3],
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen) -> tuple[int, str]:
    errors = process.communicate(timeout=DEADLINE_SECONDS)[1]
    return process.returncode, errors


def test_run_is_copied_at_the_end_and_gone_on_with_next_time(work, tmp_path):
    assert ended(work("0")) == (0, "")
    seen = tmp_path / "storage" / "place" / "seen"
    assert seen.read_text() == ""
    assert ended(work("3")) == (3, "")
    assert seen.read_text() == "seen"
    assert not list((tmp_path / "scratch").iterdir())


def test_run_is_copied_while_it_is_written_and_after_the_end_that_was_asked_for(work, tmp_path):
    process = work("stubborn")
    until(lambda: (tmp_path / "storage" / "place" / "ready").exists())
    (run,) = (tmp_path / "scratch").glob("*/my run")
    (run / "late").write_text("late")
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (128 + signal.SIGKILL, "")
    assert (tmp_path / "storage" / "place" / "late").read_text() == "late"


def test_training_that_ends_by_sigterm_is_copied(work, tmp_path):
    process = work("wait")
    until(lambda: (tmp_path / "storage" / "place" / "seen").exists())
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (128 + signal.SIGTERM, "")


def test_killed_training_says_so(work):
    code, errors = ended(work("killed"))
    assert code == 128 + signal.SIGKILL
    assert errors.startswith("\nerror: ended by SIGKILL, as the system does when memory runs out")


def test_run_that_cannot_be_copied_is_left_on_the_node(work, tmp_path):
    process = work("wait")
    until(lambda: (tmp_path / "storage" / "place" / "seen").exists())
    shutil.rmtree(tmp_path / "storage")
    (tmp_path / "storage").write_text("")
    (run,) = (tmp_path / "scratch").glob("*/my run")
    (run / "new").write_text("")
    process.send_signal(signal.SIGTERM)
    code, errors = ended(process)
    assert (code, (run / "seen").read_text()) == (1, "")
    assert "warning: the run was not copied" in errors
    assert f"error: the run is in {run} on node " in errors


def test_storage_that_the_node_does_not_see_is_said_before_anything_is_started(work, tmp_path):
    (tmp_path / "storage" / "place").rmdir()
    code, errors = ended(work("0"))
    assert code == 1
    assert errors.startswith("error: storage: node ")
    assert not list((tmp_path / "scratch").iterdir())
