"""Every control of the Compare page in Streamlit's own test runner."""

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
def family(folder, record_run) -> Path:
    """A run, one pruned and one uniform made from it."""
    record_run(folder / "a", steps=5, created_at="2026-01-01T00:00:00+00:00")
    for number, (name, lengths) in enumerate((("a-pruned", (2, 4, 6, 10, 12, 14)), ("a-uniform", (8,) * 6)), start=2):
        record_run(folder / name, steps=5, lengths=lengths, parent="a", created_at=f"2026-01-0{number}T00:00:00+00:00")
    return folder


@pytest.fixture
def seeds(folder, record_run) -> Path:
    """Three runs that differ only by their seed, and one with other lengths."""
    for seed, accuracy in ((1, 0.5), (2, 0.6), (3, 0.7)):
        run = record_run(folder / f"s{seed}", steps=5, seed=seed)
        update_finished_run(run, seed=seed, metrics={"validation": {"accuracy": accuracy}})
    record_run(folder / "other", steps=5, lengths=(8,) * 6)
    return folder


def figures(app: AppTest) -> dict[str, dict]:
    specs = [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]
    return {spec["layout"]["title"]["text"]: spec for spec in specs}


def test_family_is_put_side_by_side(family):
    app = page("compare", run="runs/a-pruned")
    table = app.dataframe[-1].value
    assert list(table["run"]) == ["runs/a", "runs/a-pruned", "runs/a-uniform"]
    assert list(table["method"]) == ["APT", "APT, pruned", "APT, uniform"]
    assert list(table["virtual tokens"]) == [96, 48, 48]
    assert list(table["of which prefix"]) == [768 * 96, 768 * 48, 768 * 48]
    profiles = figures(app)["Layers, at the end of training"]["data"]
    assert [line["name"] for line in profiles] == ["a", "a-pruned", "a-uniform"]


def test_only_settings_that_differ_are_shown(family):
    table = page("compare", run="runs/a").dataframe[0].value
    assert list(table["setting"]) == ["method", "prefix lengths", "parent"]
    assert list(table["a-uniform"]) == ["APT, uniform", "8 x 6", "a"]


def test_link_restores_runs_and_profile(family):
    app = page("compare", run="runs/a", compared=["runs/a", "runs/a-uniform"], profile="share of gate mass")
    assert app.multiselect[0].value == ["runs/a", "runs/a-uniform"]
    profiles = figures(app)["Layers, at the end of training"]
    assert profiles["layout"]["yaxis"]["title"]["text"] == "share of gate mass"


def test_another_run_above_brings_its_own_family(family, record_run):
    record_run(family / "z", steps=5, created_at="2025-01-01T00:00:00+00:00")
    app = page("compare", run="runs/a")
    rerun(app.selectbox[0].set_value("runs/z"))
    assert app.multiselect[0].value == ["runs/z"]
    assert "No run has been made from this one yet" in texts(app.info)


def test_seeds_are_folded_into_mean_and_interval_and_can_be_unfolded(seeds):
    app = page("compare", run="runs/s1", compared=["runs/s1", "runs/s2", "runs/s3", "runs/other"])
    (bars,) = figures(app)["Validation accuracy"]["data"]
    assert bars["y"] == ["s1 (3 seeds)", "other"]
    assert bars["text"] == ["0.600 ± 0.248", "0.500"]  # t(2) = 4.303, s = 0.1
    assert "n = 3 for s1 (3 seeds)" in texts(app.caption)
    assert "n = 1 for other: no interval" in texts(app.caption)
    assert list(app.dataframe[0].value["s1 (3 seeds)"])[-1] == "1, 2, 3"
    rerun(app.toggle[0].set_value(False))
    (bars,) = figures(app)["Validation accuracy"]["data"]
    assert bars["y"] == ["s1", "s2", "s3", "other"]


def test_metric_is_drawn_against_parameters(family):
    app = page("compare", run="runs/a")
    points = figures(app)["Metric against trained parameters"]["data"]
    assert [point["name"] for point in points] == ["a", "a-pruned", "a-uniform"]


def test_runs_of_different_tasks_or_metrics_or_data_are_warned_about(folder, record_run):
    record_run(folder / "a", steps=2)
    record_run(folder / "b", steps=2, task="copa")
    record_run(folder / "c", steps=2, metric_name="f1")
    record_run(folder / "d", steps=2, data_hash="other")
    for other, words in (("b", "different tasks"), ("c", "different metrics"), ("d", "different data")):
        assert words in texts(page("compare", compared=["runs/a", f"runs/{other}"]).warning)


def test_smaller_is_better_where_it_is(folder, record_run):
    run = record_run(folder / "a", steps=2, metric_name="perplexity")
    update_finished_run(run, metrics={"validation": {"perplexity": 12.5}})
    assert "Validation perplexity (lower is better)" in figures(page("compare"))


def test_damaged_gates_leave_the_other_runs_standing(family):
    next((family / "a" / "gates").iterdir()).write_bytes(b"damaged")
    app = page("compare", run="runs/a")
    assert "cannot be read" in texts(app.error)
    profiles = figures(app)["Layers, at the end of training"]["data"]
    assert [line["name"] for line in profiles] == ["a-pruned", "a-uniform"]


def test_nothing_chosen_says_what_to_do(family):
    app = page("compare", run="runs/a")
    rerun(app.multiselect[0].set_value([]))
    assert "Choose at least one run." in texts(app.info)


@pytest.fixture
def large_family(folder, record_run) -> Path:
    """A run and twelve that were made from it, the last of them the newest."""
    record_run(folder / "a", steps=2, created_at="2026-01-01T00:00:00+00:00")
    for number in range(1, 13):
        when = f"2026-02-{number:02}T00:00:00+00:00"
        record_run(folder / f"b{number}", steps=2, lengths=(8,) * 6, parent="a", created_at=when)
    return folder


def test_run_that_is_asked_for_is_among_those_of_a_large_family(large_family):
    app = page("compare", run="runs/b2")
    assert app.multiselect[0].value == ["runs/a", "runs/b2", *(f"runs/b{n}" for n in range(7, 13))]
    assert "5 more of this family can be chosen" in texts(app.caption)
    app = rerun(app.selectbox[0].set_value("runs/b4"))
    assert "runs/b4" in app.multiselect[0].value
    assert len(app.multiselect[0].value) == 8
