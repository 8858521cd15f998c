"""Every control of the Gates page in Streamlit's own test runner."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from analysis.gate_sample import sample_gates
from apt_core.run_format import RunInfo
from apt_core.run_writer import RunWriter
from tests.app_pages import TIMEOUT, rerun, texts


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The app looks at ``tmp_path/runs``."""
    monkeypatch.setattr(sys, "argv", ["app.py", "--runs", str(tmp_path / "runs")])
    return tmp_path / "runs"


def gates(**query: str | list[str]) -> AppTest:
    app = AppTest.from_string("from analysis.pages import gates\ngates.show()", default_timeout=TIMEOUT)
    for key, value in query.items():
        app.query_params[key] = value
    return rerun(rerun(app))  # a browser asks for the rest once the heatmap is drawn


def figures(app: AppTest) -> dict[str, dict]:
    """Title -> figure of all that is drawn."""
    specs = [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]
    return {spec["layout"]["title"]["text"]: spec for spec in specs}


def widget(elements, key: str):
    return next(element for element in elements if element.key == key)


def test_slider_reaches_every_recorded_step_and_moves_all_panels(folder, record_run):
    record_run(folder / "a", steps=40)
    app = gates()
    slider = widget(app.slider, "step_slider")
    assert (slider.min, slider.max, slider.step, slider.value) == (1, 40, 1, 40)
    rerun(slider.set_value(17))
    assert list(figures(app))[:2] == ["Weight at step 17", "Layers at step 17"]
    assert figures(app)["Over training"]["layout"]["shapes"][0]["x0"] == 17
    assert widget(app.number_input, "step").value == 17
    rerun(widget(app.slider, "step_slider").set_value(40))
    assert widget(app.number_input, "step").value is None  # the newest, so that a link stays short


def test_first_page_of_a_session_is_sent_the_heatmap_before_all_other_figures(folder, record_run):
    record_run(folder / "a", steps=20)
    app = AppTest.from_string("from analysis.pages import gates\ngates.show()", default_timeout=TIMEOUT)
    assert list(figures(rerun(app))) == ["Weight at step 20"]
    assert {"Layers at step 20", "Over training"} < set(figures(rerun(app)))
    rerun(widget(app.slider, "step_slider").set_value(7))
    assert {"Weight at step 7", "Layers at step 7", "Over training"} < set(figures(app))


def test_go_to_step_takes_the_nearest_recorded_one_and_says_so(folder, record_run):
    record_run(folder / "a", steps=12)
    app = gates(step="99")
    assert "Weight at step 12" in figures(app)
    assert "Step 99 was not recorded; this is step 12, the nearest." in texts(app.caption)
    rerun(widget(app.number_input, "step").set_value(5))
    assert "Weight at step 5" in figures(app)
    assert widget(app.slider, "step_slider").value == 5


def test_link_restores_the_whole_view(folder, record_run):
    record_run(folder / "a", steps=40)
    record_run(folder / "b", steps=40, seed=3, created_at="2020-01-01T00:00:00+00:00")
    app = gates(
        run="runs/a",
        step="7",
        show="token gate",
        scale="log",
        order="heaviest first",
        tokens=["1.1", "6.16"],
        axis="step",
        smoothing="10 steps",
        difference="true",
        minus="runs/b",
        minus_step="3",
        panel="Loss and metric",
    )
    shown = figures(app)
    assert list(shown) == [
        "Token gate at step 7",
        "Layers at step 7",
        "Over training, mean over 10 steps",
        "Token gate: step 7 - runs/b step 3",
        "Training",
    ]
    heatmap = shown["Token gate at step 7"]
    assert heatmap["layout"]["xaxis"]["title"]["text"] == "virtual tokens of each layer, heaviest first"
    assert "log scale" in heatmap["data"][1]["marker"]["colorbar"]["title"]["text"]
    assert [line["name"] for line in shown["Over training, mean over 10 steps"]["data"]] == ["layer 1.1", "layer 6.16"]


def test_large_runs_have_range_sliders_that_cut_the_heatmap(folder, record_run):
    record_run(folder / "a", steps=2, lengths=(70,) * 30)
    app = gates(layers_shown=["3", "4"], tokens_shown=["65", "70"])
    cells = figures(app)["Weight at step 2"]["data"][0]
    assert cells["z"]["shape"] == "2, 6"
    assert figures(app)["Weight at step 2"]["layout"]["xaxis"]["range"] == [64.5, 70.5]


def test_tokens_can_be_typed_and_wrong_ones_are_named(folder, record_run):
    record_run(folder / "a", steps=4)
    app = gates(tokens=["2.7", "9.1", "<b>"])
    assert [line["name"] for line in figures(app)["Over training"]["data"]] == ["layer 2.7"]
    assert "Not a virtual token of this run: 9.1, <b>" in texts(app.warning)


def test_traces_of_a_long_run_say_what_is_drawn_and_can_be_narrowed(folder, record_run):
    record_run(folder / "a", steps=500)
    assert "Of 500 recorded steps, 400 points a line" in texts(gates().caption)
    app = gates(**{"from": "100", "to": "199"})
    assert "Every one of the 100 recorded steps." in texts(app.caption)


def test_axis_of_epochs_is_offered_where_the_metrics_have_them(folder, record_run):
    run = record_run(folder / "a", steps=20)
    assert widget(gates().selectbox, "axis").options == ["step"]
    (run / "metrics.jsonl").write_text('{"step": 10, "epoch": 0.5}\n{"step": 20, "epoch": 1.0}\n')
    app = gates(axis="epoch")
    assert widget(app.selectbox, "axis").options == ["step", "epoch"]
    assert figures(app)["Over training"]["layout"]["xaxis"]["title"]["text"] == "epoch"


def test_difference_of_two_steps_and_refusal_of_another_shape(folder, record_run):
    record_run(folder / "a", steps=20)
    record_run(folder / "small", steps=20, lengths=(4,) * 6, created_at="2020-01-01T00:00:00+00:00")
    assert "Weight: step 20 - step 1" in figures(gates(run="runs/a", difference="true"))
    app = gates(run="runs/a", difference="true", minus="runs/small")
    assert "cannot be subtracted" in texts(app.warning)
    assert "[6, 4]" in texts(app.warning)


def test_reading_rests_on_stated_steps_and_explains_each_sentence(folder, record_run):
    record_run(folder / "a", steps=40)
    found = [markdown for markdown in gates().markdown if markdown.value.startswith("- ")]
    assert "from all 40 recorded steps" in texts(gates().markdown)
    assert any("Upper layers 4 to 6 carry" in markdown.value for markdown in found)
    assert all(markdown.help for markdown in found)


def test_thinned_run_says_so_everywhere(folder, record_run, monkeypatch):
    record_run(folder / "a", steps=60)
    few = partial(sample_gates, at_most_bytes=10 * 4 * 6 * 17)
    monkeypatch.setattr("analysis.pages.gate_data.sample_gates", few)
    app = gates()
    assert "from 10 of 60 recorded steps, evenly spaced" in texts(app.markdown)
    assert "from 10 of 60 recorded steps" in texts(app.caption)


def test_play_goes_through_the_steps_and_stops(folder, record_run, monkeypatch):
    record_run(folder / "a", steps=9)
    clock = [100.0]
    monkeypatch.setattr("analysis.pages.step_control.time.monotonic", lambda: clock[0])
    app = gates()
    rerun(widget(app.button, "play").click())
    assert "Weight at step 1" in figures(app)
    clock[0] += 1.0  # four pictures later
    rerun(app)
    assert "Weight at step 5" in figures(app)
    rerun(widget(app.button, "play").click())
    assert widget(app.button, "play").label == "Play"
    assert "Weight at step 5" in figures(app)
    rerun(widget(app.button, "play").click())
    clock[0] += 60.0
    rerun(app)
    assert "Weight at step 9" in figures(app)
    assert widget(app.button, "play").label == "Play"


def test_running_run_follows_the_newest_step_until_told_otherwise(folder):
    writer = RunWriter(folder / "live", RunInfo(num_layers=2, prefix_lengths=[2, 2], total_steps=100))
    try:
        append(writer, 1, 8)
        app = gates()
        assert "Weight at step 8" in figures(app)
        assert widget(app.slider, "step_slider").max == 100
        append(writer, 9, 16)
        rerun(app)
        assert "Weight at step 16" in figures(app)
        rerun(widget(app.toggle, "follow").set_value(False))
        append(writer, 17, 24)
        rerun(app)
        assert "Weight at step 16" in figures(app)
        rerun(widget(app.toggle, "follow").set_value(True))
        assert "Weight at step 24" in figures(app)
    finally:
        writer.finish()
    app = gates()
    assert not app.toggle
    assert widget(app.slider, "step_slider").max == 24


def test_diverged_gates_are_said_in_words(folder):
    writer = RunWriter(folder / "a", RunInfo(num_layers=2, prefix_lengths=[2, 2]))
    append(writer, 1, 8)
    writer.append_gates(9, np.array([[np.nan, 0.5], [np.inf, 0.5]]), np.zeros((2, 2)), np.ones(2))
    writer.finish()
    app = gates()
    assert "2 values of this step are NaN or infinite" in texts(app.warning)
    assert "2 of 4 weights are NaN or infinite (layers 1 to 2)" in texts(app.markdown)


@pytest.mark.parametrize(("chosen", "ending"), [("PNG", "png"), ("SVG", "svg")])
def test_figures_are_saved_in_the_format_of_the_sidebar(folder, record_run, chosen, ending):
    record_run(folder / "a", steps=3)
    app = gates()
    rerun(widget(app.button_group, "image_format").set_value(chosen))
    config = json.loads(app.get("plotly_chart")[0].proto.config)
    assert config["toImageButtonOptions"]["format"] == ending


def append(writer: RunWriter, first: int, last: int) -> None:
    for step in range(first, last + 1):
        gate = np.full((2, 2), 0.2 + 0.5 * step / 100)
        writer.append_gates(step, gate, np.full((2, 2), 0.01), np.ones(2))
    writer.flush_gates()


def test_traces_of_another_run_are_its_own_unless_a_person_chose_them(folder, record_run):
    record_run(folder / "long", steps=20, lengths=(16,) * 6, created_at="2026-02-01T00:00:00+00:00")
    record_run(folder / "short", steps=20, lengths=(2, 2, 2, 2, 2, 2), created_at="2026-01-01T00:00:00+00:00", seed=7)
    app = gates()
    first = widget(app.multiselect, "tokens").value
    rerun(widget(app.selectbox, "run").set_value("runs/short"))
    second = widget(app.multiselect, "tokens").value
    assert not app.warning
    assert second != first
    assert all(int(label.partition(".")[2]) <= 2 for label in second)
    rerun(widget(app.multiselect, "tokens").set_value(["1.1", "2.2"]))
    rerun(widget(app.selectbox, "run").set_value("runs/long"))
    assert widget(app.multiselect, "tokens").value == ["1.1", "2.2"]


def test_step_of_another_run_is_forgotten(folder, record_run):
    for name, day in (("a", 1), ("b", 2)):
        record_run(folder / name, steps=40, created_at=f"2026-01-0{day}T00:00:00+00:00")
    app = gates(run="runs/a", step="7")
    assert widget(app.number_input, "step").value == 7
    rerun(widget(app.selectbox, "run").set_value("runs/b"))
    assert widget(app.number_input, "step").value is None
    assert next(iter(figures(app))) == "Weight at step 40"
