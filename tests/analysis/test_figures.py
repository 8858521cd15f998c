"""Figures: what is drawn, and that axes have names and units."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.figures.comparison import ComparedRun, Comparison, comparison_figure, comparisons
from analysis.figures.heatmap import heatmap, heatmap_figure
from analysis.figures.layer_profile import ProfileData, layer_profile_figure
from analysis.figures.prefix_lengths import PrefixLengths, prefix_lengths_figure
from analysis.figures.token_traces import TokenTraces, token_traces_figure
from analysis.figures.training_curve import training_curve, training_curve_figure

VALUES = np.array([[0.25, 0.5], [0.75, np.nan]])


def axis_titles(figure) -> set[str]:
    return {axis.title.text for axis in [*figure.select_xaxes(), *figure.select_yaxes()]}


def test_heatmap_draws_layers_by_tokens_as_float32():
    figure = heatmap_figure(heatmap(VALUES, "weight", step=7))
    trace = figure.data[0]
    assert trace.z.shape == (2, 2)
    assert trace.z.dtype == np.float32
    assert (list(trace.x), list(trace.y)) == ([1, 2], [1, 2])
    assert (trace.zmin, trace.zmax) == (0, 0.75)
    assert trace.colorbar.title.text == "mean token gate x |layer scale|"
    assert axis_titles(figure) == {"virtual token", "layer (1: nearest the input)"}
    assert figure.layout.title.text == "Weight at step 7"


@pytest.mark.parametrize(
    ("name", "largest", "end"), [("token gate", 9.0, 1.0), ("weight", 9.0, 9.0), ("weight", None, 0.75)]
)
def test_heatmap_colour_scale_ends_where_steps_can_be_compared(name, largest, end):
    assert heatmap(VALUES, name, 1, largest).largest == end


def test_layer_profile_draws_bars_with_spread():
    data = ProfileData(np.array([0.3, 0.5]), np.array([0.1, 0.2]), "over batch", "mean token gate", "Layers")
    figure = layer_profile_figure(data)
    assert list(figure.data[0].y) == [0.3, 0.5]
    assert list(figure.data[0].error_y.array) == [0.1, 0.2]
    assert axis_titles(figure) == {"layer", "mean token gate"}


def test_token_traces_draw_every_step():
    steps = np.arange(1, 5_001)
    figure = token_traces_figure(TokenTraces(steps, np.ones((2, 5_000)), ["layer 1.1", "layer 2.4"], "gate", "t", 70))
    assert [trace.name for trace in figure.data] == ["layer 1.1", "layer 2.4"]
    assert all(len(trace.y) == 5_000 for trace in figure.data)
    assert axis_titles(figure) == {"optimizer step", "gate"}


def test_training_curve_picks_loss_and_metric_and_passes_over_the_rest():
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "eval_accuracy": 0.5}, {"loss": 1.0}, {"step": 3, "loss": "nan"}]
    data = training_curve(rows, "accuracy")
    assert (data.loss, data.metric) == ([(1, 2.0)], [(2, 0.5)])
    assert "training loss (nats)" in axis_titles(training_curve_figure(data))


def test_comparisons_draw_each_measure_and_say_what_was_not_measured():
    runs = [ComparedRun("a", 0.5, 100, 96, 60.0), ComparedRun("b", None, 50, 48, 30.0)]
    measures = comparisons(runs, "accuracy")
    assert [measure.values for measure in measures] == [[0.5, None], [100, 50], [96, 48], [60.0, 30.0]]
    figures = [comparison_figure(measure) for measure in measures]
    assert list(figures[0].data[0].text) == ["0.500", "not measured"]
    assert [figure.layout.xaxis.title.text for figure in figures] == [
        "validation accuracy",
        "trained parameters",
        "virtual tokens",
        "training (seconds)",
    ]


def test_prefix_lengths_group_runs_by_layer():
    figure = prefix_lengths_figure(PrefixLengths(["a", "b"], [[16, 16], [4, 12]]))
    assert [list(trace.y) for trace in figure.data] == [[16, 16], [4, 12]]


@pytest.mark.parametrize(
    "figure",
    [
        heatmap_figure(heatmap(np.full((2, 1), np.nan), "weight", 1)),
        heatmap_figure(heatmap(np.zeros((2, 0)), "weight", 1)),
        layer_profile_figure(ProfileData(np.full(2, np.nan), np.full(2, np.nan), "", "", "t")),
        token_traces_figure(TokenTraces(np.arange(3), np.zeros((0, 3)), [], "", "t", 1)),
        training_curve_figure(training_curve([], "accuracy")),
        comparison_figure(Comparison([], [], "accuracy", ".3f")),
        prefix_lengths_figure(PrefixLengths([], [])),
    ],
)
def test_empty_input_gives_a_titled_figure_that_says_why(figure):
    assert not figure.data
    assert figure.layout.title.text
    assert figure.layout.annotations[0].text
