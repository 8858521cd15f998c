"""A real sweep whose drivers are killed: small trainings in processes of their own, none of them started twice."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from apt_core.jobs import LocalJobs
from apt_core.run_format import read_run_info
from apt_core.sweep_format import read_recorded
from apt_core.sweep_process import is_driven, start_driver
from tests.apt_core.conftest import WORDS

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 1200
"""far more than anything here takes on a busy machine"""
SEED = 7
"""of the moments at which drivers are killed"""


@pytest.fixture
def spec(tmp_path, backbone_folder) -> Path:
    """2 tasks x 3 seeds x 3 budgets on a few lines of text."""
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=5)) for _ in range(40)]
    (tmp_path / "texts.csv").write_text("text,label\n" + "".join(f"{text},{'ab'['tree' in text]}\n" for text in texts))
    tags = "\n\n".join("\n".join(f"{w}\t{'B-x' if w == 'tree' else 'O'}" for w in text.split()) for text in texts)
    (tmp_path / "tags.conll").write_text(tags + "\n")
    path = tmp_path / "spec.toml"
    path.write_text(f"""
        tasks = ["text-classification", "token-classification"]
        seeds = 3
        budgets = [1.0, 0.5, 0.25]
        [train]
        model = {json.dumps(str(backbone_folder))}
        num-virtual-tokens = 4
        epochs = 1
        device = "cpu"
        [train.text-classification]
        train-file = {json.dumps(str(tmp_path / "texts.csv"))}
        [train.token-classification]
        train-file = {json.dumps(str(tmp_path / "tags.conll"))}
        """)
    return path


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def command(spec: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "apt_core", "sweep", str(spec), "--out", str(out), "--slots", "2", "--json"]


def created(out: Path) -> dict[str, str]:
    """Run -> when its training was started."""
    return {path.parent.name: read_run_info(path.parent).created_at for path in out.glob("*/run.json")}


def test_sweep_killed_twice_ends_complete_with_no_run_twice(spec, tmp_path):
    out, draw = tmp_path / "sweep", random.Random(SEED)
    jobs = LocalJobs(out / ".jobs")

    def kill_at_random(driver: psutil.Process, fewest: int, most: int) -> None:
        """At some moment after a number of jobs has been submitted."""
        number = draw.randint(fewest, most)
        until(lambda: len(jobs.list()) >= number or not driver.is_running())
        time.sleep(draw.uniform(0, 2))
        driver.kill()
        driver.wait(60)
        assert not is_driven(out)

    with (tmp_path / "first.log").open("w") as log:
        first = psutil.Popen(command(spec, out), stdout=log, stderr=log)
        kill_at_random(first, 1, 6)
    before = created(out)
    start_driver(out, read_recorded(out).sweep)
    second = next(child for child in psutil.Process().children() if "sweep" in child.cmdline())
    assert is_driven(out)
    refused = subprocess.run(command(spec, out), capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert refused.returncode == 2
    assert "accepted: a folder that no other driver works on" in refused.stderr
    kill_at_random(second, 8, 13)
    before |= created(out)
    third = subprocess.run(command(spec, out), capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert third.returncode == 0, third.stderr[-2000:]

    result = json.loads(third.stdout)
    assert result["complete"]
    assert {training["state"] for training in result["trainings"]} == {"finished"}
    assert len(result["trainings"]) == 18
    assert [cell["seeds"] for cell in result["cells"]] == [[1, 2, 3]] * 6
    names = {training["name"] for training in result["trainings"]}
    started = Counter(Path(job.run_folder).name for job in jobs.list())
    assert started == dict.fromkeys(names, 1)
    assert {jobs.status(job.id) for job in jobs.list()} == {"finished"}
    after = created(out)
    assert after.keys() == names
    assert before.items() <= after.items()
    assert len(before) < len(names)
    for training in result["trainings"]:
        info = read_run_info(out / training["name"])
        assert (info.total_tokens, info.seed, info.parent) == (training["total"], training["seed"], training["parent"])
