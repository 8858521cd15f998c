"""The dashboard's pages in Streamlit's own test runner."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.app_pages import TIMEOUT, page, texts

APP = Path(__file__).parent.parent / "app.py"
PROJECT = Path(__file__).parents[1]
PAGES_OF_A_RUN = ("gates", "budget", "compare", "evidence", "errors")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The app looks at ``tmp_path/runs``."""
    monkeypatch.setattr(sys, "argv", ["app.py", "--runs", str(tmp_path / "runs")])
    return tmp_path / "runs"


def front_page() -> AppTest:
    app = AppTest.from_file(str(APP), default_timeout=TIMEOUT).run()
    assert not app.exception
    return app


def test_dashboard_process_never_loads_torch():
    script = (
        "import sys\n"
        "from analysis.pages import budget, compare, errors, evidence, gates, investment, jobs, notices, pilot, runs\n"
        "from analysis.pages import sweeps, tasks\n"
        "import analysis.__main__\n"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=APP.parent)
    assert result.stdout == "[]\n"


def test_runs_page_without_runs_says_what_makes_one(folder):
    assert "python -m apt_core train" in texts(front_page().code)


def test_runs_page_lists_runs_and_damaged_folders(folder, record_run):
    record_run(folder / "good", steps=5)
    (folder / "broken").mkdir()
    (folder / "broken" / "run.json").write_text("{")
    app = front_page()
    good, bad = (table.value for table in app.dataframe)
    assert list(good["run"]) == ["runs/good"]
    assert list(good["status"]) == ["finished"]
    assert "damaged" in bad["reason"][0]


def test_hostile_names_are_shown_as_text(folder, record_run):
    name = "<img src=x onerror=alert(1)> **bold** [a](b)"
    record_run(folder / name, steps=3)
    app = front_page()
    label = app.button[0].label
    assert "\\<img" in label
    assert "\\*\\*bold" in label
    assert "\\[a\\]\\(b\\)" in label
    assert not app.exception


@pytest.mark.parametrize("quantity", ["weight", "token gate", "layer scale"])
def test_gates_page_shows_each_quantity(folder, record_run, quantity):
    record_run(folder / "a", steps=3)
    app = page("gates", show=quantity)
    (heatmap, *_) = app.get("plotly_chart")
    assert json.loads(heatmap.proto.spec)["layout"]["title"]["text"] == f"{quantity.capitalize()} at step 3"


def test_gates_page_opens_the_run_of_the_link(folder, record_run):
    record_run(folder / "a", steps=3, created_at="2026-02-01T00:00:00+00:00")
    record_run(folder / "b", steps=3, created_at="2026-01-01T00:00:00+00:00")
    assert page("gates").selectbox[0].value == "runs/a"
    assert page("gates", run="runs/b").selectbox[0].value == "runs/b"
    app = page("gates", run="runs/nonsense")
    assert app.selectbox[0].value == "runs/a"
    assert "runs/nonsense is not in the chosen folders" in texts(app.warning)
    assert not page("gates", run="runs/a").warning


@pytest.mark.parametrize(
    ("lengths", "steps"), [((16,) * 6, 1), ((4, 0, 7), 20), ((0, 0), 3), ((1,), 300), ((2,) * 60, 3)]
)
def test_gates_page_draws_runs_of_any_shape(folder, record_run, lengths, steps):
    record_run(folder / "a", lengths=lengths, steps=steps)
    for name in PAGES_OF_A_RUN:
        page(name)
    page("investment")
    page("tasks")


@pytest.mark.parametrize("name", ["gates", "budget"])
def test_damaged_gates_are_said_with_the_reason(folder, record_run, name):
    shard = next((record_run(folder / "a", steps=3) / "gates").iterdir())
    shard.write_bytes(b"damaged")
    assert "cannot be read" in texts(page(name).error)


def test_gates_page_of_a_run_without_steps_says_so(folder, record_run):
    record_run(folder / "a", steps=0)
    assert "No step of runs/a has been recorded yet" in texts(page("gates").info)


@pytest.mark.parametrize("name", PAGES_OF_A_RUN)
def test_pages_without_runs_say_what_makes_one(folder, name):
    command = f"python -m apt_core train --out {folder / 'first'}"
    assert command in texts(page(name).code)


@pytest.mark.parametrize("name", PAGES_OF_A_RUN)
def test_address_names_the_run_also_where_it_is_the_newest(folder, record_run, name):
    record_run(folder / "first", steps=2, created_at="2026-01-01T00:00:00+00:00")
    record_run(folder / "second", steps=2, created_at="2026-01-02T00:00:00+00:00")
    app = page(name)
    assert app.selectbox(key="run").value == "runs/second"
    assert "runs/second" in app.query_params["run"]
    gone = page(name, run="runs/gone")
    assert gone.selectbox(key="run").value == "runs/second"
    assert "runs/gone is not in the chosen folders" in texts(gone.warning)


def command_of(app: AppTest) -> str:
    return next(code.value for code in app.code if "retrain" in code.value)


def test_budget_page_suggests_half_the_tokens_and_the_command_for_it(folder, record_run):
    record_run(folder / "a", steps=20)
    app = page("budget")
    assert app.number_input[0].value == 48
    words = command_of(app).split()
    lengths = [int(length) for length in words[words.index("--prefix-lengths") + 1].split(",")]
    assert sum(lengths) == 48
    assert lengths == sorted(lengths)  # the recorded gates rise with the layer
    assert words[words.index("--out") + 1] == str(folder / "a-pruned48-1")


@pytest.mark.parametrize("method", ["share", "threshold", "topk"])
def test_budget_page_offers_every_method(folder, record_run, method):
    record_run(folder / "a", steps=20)
    app = page("budget", method=method)
    app.number_input[0].set_value(30).run()
    assert "a-pruned30-1" in command_of(app)


def test_budget_page_with_an_impossible_total_says_what_is_possible(folder, record_run):
    record_run(folder / "a", steps=20)
    app = page("budget", method="topk")
    app.number_input[0].set_value(97).run()
    assert "accepted: 0 to 96" in texts(app.error).replace("\\", "")


def test_budget_page_of_a_task_with_files_asks_where_they_are(folder, record_run, tmp_path):
    record_run(folder / "a", steps=5, task="copa", data_dir="not/here")
    app = page("budget")
    assert "There is no such folder" in texts(app.warning)
    app.text_input[0].set_value(str(tmp_path)).run()
    assert f"--data-dir {tmp_path}" in command_of(app)


def test_budget_page_of_a_run_on_files_of_its_own_asks_for_no_folder(folder, record_run):
    record_run(folder / "a", steps=5, task="text-classification", data={"train_file": "mine.csv"})
    assert "--data-dir" not in command_of(page("budget"))


def test_budget_page_offers_the_early_steps_that_a_run_kept(folder, record_run):
    run = record_run(folder / "a", steps=5)
    (run / "snapshots").mkdir()
    (run / "snapshots" / "step-00000002.safetensors").touch()
    app = page("budget")
    start = next(box for box in app.selectbox if box.label == "Start from")
    assert start.options == ["scratch", "warm", "rewind:2"]
    start.set_value("rewind:2").run()
    assert "--init rewind:2" in command_of(app)


def test_read_only_budget_page_shows_the_command_and_starts_nothing(folder, record_run, monkeypatch):
    record_run(folder / "a", steps=5)
    assert any("Retrain" in button.label for button in page("budget").button)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--read-only"])
    app = page("budget")
    assert "retrain" in command_of(app)
    assert not any("Retrain" in button.label for button in app.button)


def test_budget_page_of_a_run_from_the_api_does_not_offer_retraining(folder, record_run):
    record_run(folder / "a", steps=5, task="")
    assert "through the Python API" in texts(page("budget").info)


def test_no_control_of_one_page_has_the_name_of_anothers():
    """The value of a control that is in the address goes along to the next page, whose control may not take it."""
    places: dict[str, set[str]] = {}
    for path in (PROJECT / "analysis" / "pages").glob("*.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)):
            named = {word.arg: word.value for word in call.keywords}
            key = named.get("key")
            if isinstance(key, ast.Constant) and {"bind", None} & set(named):
                places.setdefault(key.value, set()).add(path.stem)
            chooses = isinstance(call.func, ast.Attribute) and call.func.attr == "choose"
            if chooses and isinstance(call.args[2], ast.Constant):
                places.setdefault(call.args[2].value, set()).add(path.stem)
    assert len(places) > 20
    assert {key: pages for key, pages in places.items() if len(pages) > 1} == {}


def test_wide_run_is_shown_after_the_page_of_runs(folder, record_run):
    record_run(folder / "wide", steps=2, lengths=(70,) * 30)
    script = """
import streamlit as st
from analysis.pages import gates, runs
st.session_state["pages"] = None
(runs if st.query_params.get("at") == "runs" else gates).show()
"""
    app = AppTest.from_string(script, default_timeout=TIMEOUT)
    for place in ("runs", "gates", "runs", "gates"):
        app.query_params["at"] = place
        for _ in range(2):
            app.run()
            assert not app.exception, [each.value for each in app.exception]
    assert app.get("plotly_chart")
