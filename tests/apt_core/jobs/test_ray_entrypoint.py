"""The line that a node's shell is given, run by a real shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from apt_core.jobs import Job
from apt_core.jobs.ray_entrypoint import entrypoint
from apt_core.jobs.ray_records import Record

ODD = [
    "--model",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "a'b\"c",
    "\\",
    "",
    "*",
    "~",
    "-x",
    "é\nf",
    "&& touch pwned",
]
SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd(), os.getpid(), dict(os.environ)]))"
PROGRAM = [sys.executable, "-c", SHOW]


def record(directory: Path, device: str = "cuda", **storage: str) -> Record:
    return Record(Job("0001-a", ODD, str(directory / "run"), "", str(directory)), device, **storage)


def run(line: str, directory: Path) -> subprocess.CompletedProcess:
    return subprocess.run(line, shell=True, cwd=directory, capture_output=True, text=True, timeout=60)


def test_every_word_arrives_as_it_is_in_the_directory(tmp_path):
    here = tmp_path / "-it's $HOME; here"
    here.mkdir()
    done = run(entrypoint(record(here), PROGRAM, {}), tmp_path)
    words, directory, _, variables = json.loads(done.stdout)
    assert (words, directory, variables["APT_JOB_ID"]) == (ODD, str(here), "0001-a")
    assert not list(here.iterdir()) + list(tmp_path.glob("pwned"))


def test_shell_is_replaced_so_that_the_exit_code_and_the_signal_are_the_jobs(tmp_path):
    started = subprocess.Popen(
        entrypoint(record(tmp_path), PROGRAM, {}), shell=True, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert json.loads(started.communicate(timeout=60)[0])[2] == started.pid
    failing = [sys.executable, "-c", "raise SystemExit(3)"]
    assert run(entrypoint(record(tmp_path), failing, {}), tmp_path).returncode == 3


def test_only_named_variables_are_handed_on_and_gpus_hidden_from_jobs_on_the_processor(tmp_path):
    client = {"HF_TOKEN": "secret", "HF_HUB_OFFLINE": "1", "AWS_SECRET_ACCESS_KEY": "secret", "PATH": "/x"}
    line = entrypoint(record(tmp_path, "cpu"), PROGRAM, client)
    assert "secret" not in line
    *_, variables = json.loads(run(line, tmp_path).stdout)
    assert (variables["HF_HUB_OFFLINE"], variables["CUDA_VISIBLE_DEVICES"]) == ("1", "")
    assert variables["PATH"] == os.environ["PATH"]
    assert "CUDA_VISIBLE_DEVICES=" not in entrypoint(record(tmp_path, "cuda"), PROGRAM, client)


def test_directory_that_a_node_lacks_is_said(tmp_path):
    done = run(entrypoint(record(tmp_path / "missing"), PROGRAM, {}), tmp_path)
    assert (done.returncode, done.stdout) != (0, "")
    assert str(tmp_path / "missing") in done.stderr
    assert done.stdout == ""


def test_with_storage_a_program_on_the_node_copies_the_run_and_the_directory_may_be_missing(tmp_path):
    stored = record(tmp_path / "missing", storage="file:///mnt/a b", place="0001-a-1f")
    line = entrypoint(stored, [str(tmp_path / "python"), "-m", "apt_core"], {})
    (tmp_path / "python").symlink_to("/bin/echo")
    words = run(line, tmp_path).stdout
    assert words.startswith("-P -m apt_core.jobs.ray_worker file:///mnt/a b 0001-a-1f run 60 ")
    assert f"{tmp_path / 'python'} -m apt_core --model $(touch pwned)" in words
