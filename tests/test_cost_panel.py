"""The cost and inference panels in Streamlit's own test runner."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from apt_core.inference_format import INFERENCE_FILE, write_inference
from tests.app_pages import texts
from tests.inferences import make_inference

LENGTHS = (16,) * 6
SHAPES = {
    "layer_shapes": [[12, 32, 32, 384, 12]] * 6,
    "layer_kinds": ["encoder"] * 6,
    "backbone_dtype": "float32",
}
COSTS = """
from analysis.pages import context, cost_panel
cost_panel.show_costs(context.choose_run("Run"), {lengths})
"""
INFERENCE = """
from analysis.pages import context, cost_panel
cost_panel.show_inference(context.choose_run("Run"))
"""


@pytest.fixture
def run(tmp_path, monkeypatch, record_run) -> Path:
    monkeypatch.setattr(sys, "argv", ["app.py", "--runs", str(tmp_path / "runs")])
    return record_run(tmp_path / "runs" / "a", steps=2, **SHAPES)


def shown(script: str, **query: str) -> AppTest:
    app = AppTest.from_string(script, default_timeout=60)
    for key, value in query.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception, [element.value for element in app.exception]
    return app


def test_costs_of_run_uniform_and_budget_stand_side_by_side(run):
    write_inference(run, make_inference(LENGTHS))
    table = shown(COSTS.format(lengths=[20, 0, 0, 10, 10, 8])).dataframe[0].value.set_index("lengths")
    assert table["virtual tokens"].to_dict() == {"this run": 96, "uniform, same total": 48, "this budget": 48}
    assert list(table["trained parameters"]) == [96 * 1152 + 106, 48 * 1152 + 106, 48 * 1152 + 104]
    assert list(table["KV cache per sequence (kB)"]) == [294.912, 147.456, 147.456]
    assert list(table["multiply-adds per query position"]) == [96 * 768, 48 * 768, 48 * 768]
    assert table["added to a pass (ms)"].tolist() == pytest.approx([0.96 + 0.6, 0.48 + 0.6, 0.48 + 0.4])


def test_what_is_not_known_is_said_with_the_command(run):
    app = shown(COSTS.format(lengths=[8] * 6))
    assert "Not known: milliseconds: not measured; 'python -m apt_core bench-inference' does it." in texts(app.caption)
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({name: value for name, value in content.items() if name not in SHAPES}))
    app = shown(COSTS.format(lengths=[8] * 6))
    assert "the KV cache: an older run, which does not say the shapes of its layers" in texts(app.caption)
    assert list(app.dataframe[0].value.columns[:4]) == [
        "lengths",
        "virtual tokens",
        "trained parameters",
        "adapter (kB)",
    ]


@pytest.mark.parametrize("lengths", [[8] * 5, [2000] * 6])
def test_lengths_that_do_not_fit_are_said(run, lengths):
    assert "cannot be counted" in texts(shown(COSTS.format(lengths=lengths)).error)


def test_run_without_measured_inference_names_the_command(run):
    app = shown(INFERENCE)
    assert "has not been measured yet" in texts(app.info)
    assert app.code[0].value == f"python -m apt_core bench-inference {run}"


def test_damaged_inference_is_said(run):
    (run / INFERENCE_FILE).write_text("{")
    assert "cannot be read" in texts(shown(INFERENCE).error)


def test_quality_and_latency_are_drawn_with_their_table_and_notes(run):
    write_inference(run, make_inference(LENGTHS))
    app = shown(INFERENCE)
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    assert [trace["name"] for trace in figure["data"]][:2] == ["frozen backbone", "full run"]
    assert figure["layout"]["yaxis"]["title"]["text"] == "validation accuracy (higher is better)"
    assert list(app.dataframe[0].value["variant"])[2] == "pruned to 48"
    assert "20 repetitions of all in turn" in texts(app.caption)
    assert "50 of 100 examples were drawn." in texts(app.caption)


def test_link_restores_quality_and_reference(run):
    write_inference(run, make_inference(LENGTHS))
    app = shown(INFERENCE, inference_quality="loss", inference_reference="frozen backbone")
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    assert figure["layout"]["yaxis"]["title"]["text"] == "validation loss (nats, lower is better)"
    assert "that of the frozen backbone" in figure["layout"]["xaxis"]["title"]["text"]


def test_text_of_the_file_is_no_markup(run):
    write_inference(run, make_inference(LENGTHS, notes=["[x](http://127.0.0.1:9)"], attention="**bold**"))
    captions = "\n".join(str(element.value) for element in shown(INFERENCE).caption)
    assert "[x](" not in captions
    assert "**bold**" not in captions
