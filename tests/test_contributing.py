"""The worked examples of ``docs/contributing.md``: made in a copy of the project as it says there, and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
MOST_LINES = 40
BLOCK = re.compile(r"^```python\n# (?P<path>\S+\.py)(?:, below: (?P<below>[^\n]*))?\n(?P<code>.*?)^```", re.M | re.S)


def blocks() -> list[re.Match[str]]:
    return list(BLOCK.finditer((PROJECT / "docs" / "contributing.md").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> Path:
    """A copy of the project with all three examples."""
    copy = tmp_path_factory.mktemp("contributed")
    for name in ("apt_core", "analysis", "sample_runs"):
        shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks():
        path, code = copy / block["path"], block["code"]
        if block["below"]:
            text = path.read_text(encoding="utf-8")
            line = next(line for line in text.split("\n") if line.strip() == block["below"])
            indent = " " * (len(line) - len(line.lstrip()))
            text = text.replace(line, line + "\n" + textwrap.indent(code.rstrip("\n"), indent))
            imports = (
                "import pandas as pd\n\nfrom analysis.figures.gate_counts import gate_counts, gate_counts_figure\n"
            )
            text = text.replace("import streamlit as st\n", imports + "import streamlit as st\n", 1)
            path.write_text(text, encoding="utf-8")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(code)
    return copy


def run(changed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(changed), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=changed, env=environment, capture_output=True, text=True, timeout=300)


def test_there_are_three_examples_each_a_file_a_registration_and_a_test():
    paths = [block["path"] for block in blocks()]
    assert len(paths) == 9
    assert [path for path in paths if path.startswith("tests/")] == paths[2::3]
    for block in blocks():
        assert block["code"].count("\n") < MOST_LINES, block["path"]


def test_examples_pass_their_own_tests(changed):
    tests = [block["path"] for block in blocks() if block["path"].startswith("tests/")]
    done = run(changed, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_page_shows_the_new_figure(changed):
    script = """
import sys
from streamlit.testing.v1 import AppTest
sys.argv = ["app.py", "--runs", "sample_runs"]
app = AppTest.from_string("from analysis.pages import gates\\ngates.show()", default_timeout=120)
app.session_state["first_figure"] = "drawn"
app.run()
assert not app.exception, [each.value for each in app.exception]
print([each.proto.id for each in app.get("plotly_chart")])
"""
    done = run(changed, "-c", script)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "figure gate counts" in done.stdout


def test_commands_know_the_new_task_and_the_new_method(changed):
    budget = run(changed, "-m", "analysis", "budget", "sample_runs/copa-apt", "--total", "48", "--method", "root-share")
    assert budget.returncode == 0, budget.stderr
    task = run(changed, "-m", "apt_core", "train", "--task", "pydoc-raises", "--data-dir", "x")
    assert task.returncode == 2
    assert "task pydoc-raises is built in and reads no data" in task.stderr
