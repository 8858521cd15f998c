"""Every control of the Evidence page in Streamlit's own test runner, on measures whose truth is known."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from analysis.figures.deletion_curves import order_name
from apt_core.measure_format import MEASURES_FILE, Measures, write_measures
from apt_core.run_format import ADAPTER_FILE, ADAPTER_FOLDER, update_finished_run
from tests.analysis.simulated_measures import layered_effects, shuffled, simulate
from tests.app_pages import page, rerun, texts


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The app looks at ``tmp_path/runs``."""
    monkeypatch.setattr(sys, "argv", ["app.py", "--runs", str(tmp_path / "runs")])
    return tmp_path / "runs"


def measured(run: Path, measures: Measures, adapter: bytes = b"adapter") -> Path:
    (run / ADAPTER_FOLDER).mkdir()
    (run / ADAPTER_FOLDER / ADAPTER_FILE).write_bytes(adapter)
    measures.adapter_sha256 = hashlib.sha256(adapter).hexdigest()
    write_measures(run, measures)
    return run


@pytest.fixture
def run(folder, record_run) -> Path:
    """Gates that rise with the layer, as ``record_run`` writes them, and are right."""
    return measured(record_run(folder / "a"), simulate(rising_effects()))


def rising_effects() -> list[np.ndarray]:
    """Six layers of 16 tokens, the upper ones worth most."""
    effects = np.arange(1.0, 7)[:, None] + np.random.default_rng(0).uniform(0, 0.5, (6, 16))
    return list(effects / effects.sum())


def figures(app: AppTest) -> dict[str, dict]:
    specs = [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]
    return {spec["layout"]["title"]["text"]: spec for spec in specs}


def test_no_run_and_no_measures_name_the_command(folder, record_run):
    assert "python -m apt_core train" in texts(page("evidence").code)
    record_run(folder / "a b", steps=3)
    app = page("evidence")
    assert "has not been measured" in texts(app.info)
    assert f"python -m apt_core measure '{folder / 'a b'}'" in texts(app.code)
    assert not app.get("plotly_chart")


def test_run_without_virtual_tokens_has_nothing_to_measure(folder, record_run):
    record_run(folder / "a", steps=3, lengths=(0, 0))
    assert "nothing to measure" in texts(page("evidence").info)


def test_verdict_stands_on_top_with_words_for_every_check(run):
    app = page("evidence")
    assert "Follow the gates" in texts(app.success)
    lines = [element.value for element in app.markdown if " · " in element.value]
    assert len(lines) >= 6
    assert all(":material/check_circle: good" in line for line in lines)
    assert "does not say how good a model retrained" in texts(app.caption)
    assert set(app.dataframe[0].value.columns) == {"threshold", "value", "meaning"}


def test_shuffled_gates_are_refused_and_another_importance_is_named(folder, record_run):
    effects = layered_effects(1, num_tokens=16)
    measured(record_run(folder / "a"), simulate(effects, {"gate": shuffled(effects, 5)}))
    said = texts(page("evidence").error)
    assert "Do not follow the gates" in said
    assert "Use norm-weighted gates" in said


def test_curves_show_gates_reverse_and_random_and_switch_to_the_metric(run):
    app = page("evidence")
    figure = figures(app)["Taking virtual tokens away"]
    assert [trace["name"] for trace in figure["data"]] == [
        "range of 5 random orders",
        "random, mean",
        "the gates, least important first",
        "the gates, most important first",
    ]
    assert figure["layout"]["yaxis"]["title"]["text"] == "validation loss (nats)"
    rerun(next(group for group in app.button_group if group.label == "Shown").set_value("metric"))
    figure = figures(app)["Taking virtual tokens away"]
    assert figure["layout"]["yaxis"]["title"]["text"] == "validation accuracy"
    rerun(app.multiselect[0].set_value(["effect"]))
    names = [trace["name"] for trace in figures(app)["Taking virtual tokens away"]["data"]]
    assert names[2:] == ["first-order effect, least important first"]


def test_link_restores_quantity_and_orders(run):
    app = page("evidence", shown="metric", orders=[order_name("norm"), order_name("norm reversed")])
    assert app.multiselect[0].value == ["norm", "norm reversed"]
    assert figures(app)["Taking virtual tokens away"]["layout"]["yaxis"]["title"]["text"] == "validation accuracy"


def test_layers_are_drawn_with_effect_and_intervals(run):
    figure = figures(page("evidence"))["Layers: measured effect and importance"]
    assert [trace["name"] for trace in figure["data"]][:2] == ["measured effect", "the gates"]
    assert figure["data"][0]["error_y"]["symmetric"] is False


def test_tables_say_what_was_not_measured_and_stability_has_help(run):
    app = page("evidence")
    scores, agreement = app.dataframe[1].value, app.dataframe[2].value
    assert list(scores["order"]) == ["the gates", "norm-weighted gates", "attention mass", "first-order effect"]
    assert scores["over_gates"][0] == "-"
    assert set(agreement["over"]) == {"layers"}
    assert all(metric.proto.help for metric in app.metric)
    assert "Other seeds were not trained" in texts(app.markdown)
    assert "--cost 10" in texts(app.code)


def test_seeds_beside_the_run_are_compared(run, record_run):
    other = record_run(run.parent / "b", seed=7)
    update_finished_run(other, seed=2)
    values = {metric.label: metric.value for metric in page("evidence", run="runs/a").metric}
    assert values["seeds"] == "2"
    assert values["layers, over seeds"] == "1.00"


def test_changed_adapter_is_said_without_a_restart(run):
    assert "Follow the gates" in texts(page("evidence").success)
    (run / ADAPTER_FOLDER / ADAPTER_FILE).write_bytes(b"trained further")
    assert "has changed since it was measured" in texts(page("evidence").error)


def test_damaged_measures_are_said(run):
    (run / MEASURES_FILE).write_text("{")
    assert "cannot be used" in texts(page("evidence").error)


def test_hostile_names_are_shown_as_text(folder, record_run):
    measures = simulate(rising_effects())
    measures.metric_name, measures.split = "<b>[x](http://y)", "<i>s"
    measures.notes = ["![](http://z)"]
    measures.curves[0].order, measures.importance["<u>"] = "<u>", measures.importance["gate"]
    measured(record_run(folder / "a"), measures)
    app = page("evidence", shown="loss")
    assert "&lt;i&gt;s loss" in figures(app)["Taking virtual tokens away"]["layout"]["yaxis"]["title"]["text"]
    assert any(r"\!\[\]\(http" in element.value for element in app.markdown)
