"""Every control of the Investment page in Streamlit's own test runner."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from apt_core.run_format import update_finished_run
from tests.app_pages import page, rerun, texts


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The app looks at ``tmp_path/runs``."""
    monkeypatch.setattr(sys, "argv", ["app.py", "--runs", str(tmp_path / "runs")])
    return tmp_path / "runs"


@pytest.fixture
def task(folder, record_run) -> Path:
    """Three lengths with two seeds each, one more that is beaten, and a run of another task."""
    points = {4: (0.40, 0.42), 8: (0.60, 0.62), 16: (0.63, 0.67), 12: (0.5, 0.5)}
    for length, values in points.items():
        for seed, value in enumerate(values, start=1):
            run = record_run(folder / f"l{length}-{seed}", steps=1, lengths=(length,) * 6)
            metrics = {"validation": {"accuracy": value}, **({"test": {"accuracy": value - 0.1}} if length < 9 else {})}
            update_finished_run(run, seed=seed, metrics=metrics)
    record_run(folder / "other", steps=1, task="copa")
    return folder


def figure(app: AppTest) -> dict[str, dict]:
    """Name of a trace -> trace."""
    (chart,) = app.get("plotly_chart")
    return {trace["name"]: trace for trace in json.loads(chart.proto.spec)["data"]}


def test_without_runs_the_page_says_what_makes_one(folder):
    assert "python -m apt_core train" in texts(page("investment").code)


def test_one_point_is_too_few_and_the_commands_are_named(folder, record_run):
    record_run(folder / "only", steps=1)
    app = page("investment")
    assert "There is one point to draw here; it takes 2" in texts(app.info)
    assert f"python -m analysis budget {folder}/only --total 48" in texts(app.code)
    assert "retrain" in texts(app.code)
    assert "--seed 2" in texts(app.code)
    assert not app.get("plotly_chart")


def test_front_knee_and_reading_are_shown(task):
    app = page("investment")
    assert "8 runs; 1 of other tasks, backbones or data is not mixed in." in texts(app.caption)
    drawn = figure(app)
    assert set(drawn) == {"not on the front", "Pareto front", "knee"}
    assert drawn["knee"]["y"] == [pytest.approx(0.61)]
    said = texts(app.markdown)
    assert "The last 55,296 parameters bought 4.00 points, 95% interval " in said
    assert "not distinguishable from nothing" in said
    assert "The knee is at l8-" in said
    points = app.dataframe[1].value
    assert list(points["on_front"]) == [True, True, False, True]
    steps = app.dataframe[0].value
    assert list(steps["gain per thousand parameters"]) == [
        pytest.approx(20 / (24 * 1.152)),
        pytest.approx(4 / (48 * 1.152)),
    ]


def test_link_restores_axis_split_and_head(task):
    app = page("investment", cost="virtual tokens", split="test", head="false")
    assert figure(app)["Pareto front"]["x"] == [24, 48]
    assert "Choosing a budget by the test metric is wrong" in texts(app.warning)
    assert app.toggle[0].value is False
    assert "its test metric was not measured" in texts(app.markdown)


def test_head_can_be_left_out_of_the_count(task):
    app = page("investment")
    with_head = figure(app)["Pareto front"]["x"]
    rerun(app.toggle[0].set_value(False))
    assert [before - after for before, after in zip(with_head, figure(app)["Pareto front"]["x"], strict=True)] == [
        100
    ] * 3


def test_another_task_is_chosen_in_the_address(task):
    app = page("investment", pool="copa, all-MiniLM-L6-v2, data not named")
    assert app.selectbox[0].value.startswith("copa")
    assert "it takes 2" in texts(app.info)


def test_text_of_files_is_not_read_as_formatting(folder, record_run):
    for seed in (1, 2):
        record_run(folder / f"**x{seed}**", steps=1, lengths=(seed,) * 6)
    said = "\n".join(str(element.value) for element in page("investment").markdown)
    assert "**x" not in said
