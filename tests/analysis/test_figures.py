"""Figures: what is drawn, and that axes have names and units."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.figures.compared_profiles import ComparedProfile, ComparedProfiles, compared_profiles_figure
from analysis.figures.comparison import ComparedRun, Comparison, comparison_figure, comparisons
from analysis.figures.gate_difference import gate_difference, gate_difference_figure
from analysis.figures.heatmap import Window, heatmap, heatmap_figure
from analysis.figures.layer_profile import ProfileData, layer_profile_figure
from analysis.figures.metric_against_parameters import metric_against_parameters, metric_against_parameters_figure
from analysis.figures.prefix_lengths import PrefixLengths, prefix_lengths_figure
from analysis.figures.settling import UNSETTLED, settling_figure, settling_map
from analysis.figures.theme import as_text, image_config, log_colours
from analysis.figures.token_traces import TokenTraces, token_traces_figure
from analysis.figures.training_curve import training_curve, training_curve_figure
from analysis.gate_stats import LayerProfile
from analysis.settling import Settling
from analysis.side_by_side import Estimate

VALUES = np.array([[0.25, 0.5], [0.75, np.nan]])


def axis_titles(figure) -> set[str]:
    return {axis.title.text for axis in [*figure.select_xaxes(), *figure.select_yaxes()]}


def test_heatmap_draws_layers_by_tokens_as_float32():
    figure = heatmap_figure(heatmap(VALUES, "weight", step=7))
    trace = figure.data[0]
    assert trace.z.shape == (2, 2)
    assert trace.z.dtype == np.float32
    assert (list(trace.x), list(trace.y)) == ([1, 2], [1, 2])
    assert (trace.zmin, trace.zmax) == (0, 0.8)  # rounded up
    assert trace.colorbar.title.text == "mean token gate x |layer scale|"
    assert axis_titles(figure) == {"virtual token", "layer (1: nearest the input)"}
    assert figure.layout.title.text == "Weight at step 7"


@pytest.mark.parametrize(
    ("name", "largest", "end"),
    [("token gate", 9.0, 1.0), ("weight", 9.0, 10.0), ("weight", 1.23, 1.5), ("weight", None, 0.8)],
)
def test_heatmap_colour_scale_ends_where_steps_can_be_compared(name, largest, end):
    assert heatmap(VALUES, name, 1, largest).largest == end


def test_heatmap_ordered_by_value_still_names_the_true_token():
    data = heatmap(np.array([[0.2, 0.9, np.nan], [0.5, 0.1, 0.6]]), "weight", 1, ordered=True)
    np.testing.assert_allclose(data.values, np.array([[0.9, 0.2, np.nan], [0.6, 0.5, 0.1]], dtype=np.float32))
    assert data.tokens.tolist() == [[2, 1, 3], [3, 1, 2]]
    trace = heatmap_figure(data).data[0]
    assert trace.customdata.tolist() == data.tokens.tolist()
    assert "virtual token %{customdata}" in trace.hovertemplate


def test_heatmap_window_keeps_the_true_numbers_on_the_axes():
    data = heatmap(np.arange(12.0).reshape(3, 4), "weight", 1, window=Window((1, 3), (2, 4)))
    assert data.values.tolist() == [[6, 7], [10, 11]]
    trace = heatmap_figure(data).data[0]
    assert (list(trace.x), list(trace.y)) == ([3, 4], [2, 3])


def test_heatmap_with_a_log_scale_keeps_the_values_and_names_the_scale():
    data = heatmap(np.array([[0.001, 0.1], [1.0, 0.0]]), "weight", 1, logarithmic=True)
    assert (data.lowest, data.largest) == (0.001, 1.0)
    cells, scale = heatmap_figure(data).data
    assert cells.z.max() == 1
    assert not cells.showscale
    assert list(scale.marker.colorbar.ticktext) == ["0.001", "0.01", "0.1", "1"]
    assert "log scale" in scale.marker.colorbar.title.text


def test_log_colours_give_equal_ratios_equal_distances():
    places = [place for place, _ in log_colours(0.01, 1.0)]
    assert (places[0], places[1], places[-1]) == (0, 0.01, 1)
    ratios = np.diff(np.log(places[1:]))
    np.testing.assert_allclose(ratios, ratios[0])


def test_heatmap_draws_infinite_gates_as_gaps():
    data = heatmap(np.array([[np.inf, 0.5]]), "weight", 1)
    assert (data.largest, np.isnan(data.values).tolist()) == (0.5, [[True, False]])


def test_layer_profile_draws_bars_with_both_spreads_named():
    profile = LayerProfile(np.array([0.3, 0.5]), np.array([0.1, 0.2]), np.array([0.01, 0.02]))
    figure = layer_profile_figure(ProfileData(profile, "mean token gate", "Layers"))
    bars, tokens, batch = figure.data
    np.testing.assert_allclose(bars.y, [0.3, 0.5])
    np.testing.assert_allclose(tokens.error_y.array, [0.1, 0.2])
    np.testing.assert_allclose(batch.error_y.array, [0.01, 0.02])
    assert [tokens.name, batch.name] == ["± 1 SD over virtual tokens", "± 1 SD over the batch"]
    assert axis_titles(figure) == {"layer (1: nearest the input)", "mean token gate"}


def traces(steps: int, names: list[str], at: np.ndarray | None = None) -> TokenTraces:
    at = np.arange(1, steps + 1) if at is None else at
    return TokenTraces(at, np.ones((steps, len(names))), names, "optimizer step", "gate", "t", 3.0)


def test_token_traces_draw_every_step_of_a_short_run_and_mark_one():
    figure = token_traces_figure(traces(300, ["layer 1.1", "layer 2.4"]))
    assert [trace.name for trace in figure.data] == ["layer 1.1", "layer 2.4"]
    assert all(len(trace.y) == 300 for trace in figure.data)
    assert axis_titles(figure) == {"optimizer step", "gate"}
    assert figure.layout.shapes[0].x0 == 3


def test_token_traces_of_a_long_run_keep_the_peak():
    data = traces(100_000, ["layer 1.1"])
    data.values[54_321] = 9
    (line,) = token_traces_figure(data).data
    assert len(line.y) <= 400
    assert line.y.max() == 9
    assert line.x[line.y.argmax()] == 54_322


def test_settling_tells_settled_from_unsettled():
    step = np.array([[10.0, np.nan, np.nan]])
    found = Settling(step, np.array([[True, False, False]]), np.array([[True, True, False]]), True, 1)
    data = settling_map(found, 40)
    assert data.unsettled.tolist() == [[False, True, False]]
    grey, blue = settling_figure(data).data
    np.testing.assert_array_equal(grey.z, np.array([[np.nan, 1, np.nan]], dtype=np.float32))
    assert grey.colorscale[0][1] == UNSETTLED
    assert (blue.zmin, blue.zmax) == (0, 40)


def test_difference_is_centred_at_zero():
    data = gate_difference(np.array([[-0.5, 0.25, np.inf]]), "token gate", "step 9", "step 1")
    assert (data.reach, data.title) == (0.5, "Token gate: step 9 - step 1")
    (cells,) = gate_difference_figure(data).data
    assert (cells.zmin, cells.zmid, cells.zmax) == (-0.5, 0, 0.5)
    assert cells.colorbar.title.text == "difference of<br>mean token gate"


def test_marked_cells_have_dots_in_their_middle():
    marked = np.array([[False, False], [True, False], [False, True]])
    _, dots = gate_difference_figure(gate_difference(np.ones((3, 2)), "weight", "a", "b")._replace(marked=marked)).data
    assert list(zip(dots.y, dots.x, strict=True)) == [(2, 1), (3, 2)]
    unmarked = gate_difference(np.ones((3, 2)), "weight", "a", "b")._replace(marked=np.zeros((3, 2), bool))
    assert len(gate_difference_figure(unmarked).data) == 1


def test_text_of_files_is_no_markup_in_a_figure():
    assert as_text('<a href="x">&') == '&lt;a href="x"&gt;&amp;'
    data = gate_difference(np.ones((1, 1)), "weight", "<b>a</b>", "b")
    assert "<b>" not in gate_difference_figure(data).layout.title.text


@pytest.mark.parametrize("image_format", ["png", "svg"])
def test_camera_button_saves_under_a_plain_name(image_format):
    options = image_config("../a b/<x>", image_format)["toImageButtonOptions"]
    assert (options["filename"], options["format"]) == ("a-b-x", image_format)


def test_training_curve_picks_loss_and_metric_and_passes_over_the_rest():
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "eval_accuracy": 0.5}, {"loss": 1.0}, {"step": 3, "loss": "nan"}]
    data = training_curve(rows, "accuracy")
    assert (data.loss, data.metric) == ([(1, 2.0)], [(2, 0.5)])
    assert "training loss (nats)" in axis_titles(training_curve_figure(data))


RUNS = [
    ComparedRun("a", Estimate(0.5, 0.1, 3), 100, 96, Estimate(60.0, 2.0, 3)),
    ComparedRun("b", Estimate(None, None, 0), 50, 48, Estimate(30.0, None, 1)),
]


def test_comparisons_draw_each_measure_and_say_what_was_not_measured():
    measures = comparisons(RUNS, "accuracy")
    assert [measure.values for measure in measures] == [[0.5, None], [100, 50], [96, 48], [60.0, 30.0]]
    figures = [comparison_figure(measure) for measure in measures]
    assert list(figures[0].data[0].text) == ["0.500 ± 0.100", "not measured"]
    assert list(figures[0].data[0].error_x.array) == [0.1, None]
    assert figures[1].data[0].error_x.array is None
    assert [figure.layout.xaxis.title.text for figure in figures] == [
        "validation accuracy",
        "trained parameters",
        "virtual tokens",
        "training (seconds)",
    ]


def test_metric_of_which_less_is_better_says_so():
    assert comparisons(RUNS, "perplexity")[0].unit == "validation perplexity (lower is better)"


def test_metric_against_parameters_leaves_out_what_was_not_measured():
    data = metric_against_parameters([RUNS[1], RUNS[0]], "accuracy")
    assert data == (["a"], [100], [0.5], [0.1], [1], "validation accuracy")
    (point,) = metric_against_parameters_figure(data).data
    assert (point.x, point.y, point.error_y.array) == ((100,), (0.5,), (0.1,))


def test_compared_profiles_draw_one_line_each_with_intervals_over_seeds_only():
    lines = [
        ComparedProfile("a", np.array([0.1, 0.2]), None, 0),
        ComparedProfile("b", np.array([0.3, np.nan, 0.4]), np.array([0.1, np.nan, 0.2]), 1),
    ]
    figure = compared_profiles_figure(ComparedProfiles(lines, "mean weight"))
    assert [len(line.x) for line in figure.data] == [2, 3]
    assert figure.data[0].error_y.array is None
    assert figure.data[1].error_y.array[2] == 0.2
    assert len({line.line.dash for line in figure.data}) == 2
    assert axis_titles(figure) == {"layer (1: nearest the input)", "mean weight"}


def test_prefix_lengths_group_runs_by_layer():
    figure = prefix_lengths_figure(PrefixLengths(["a", "b"], [[16, 16], [4, 12]]))
    assert [list(trace.y) for trace in figure.data] == [[16, 16], [4, 12]]


@pytest.mark.parametrize(
    "figure",
    [
        heatmap_figure(heatmap(np.full((2, 1), np.nan), "weight", 1)),
        heatmap_figure(heatmap(np.zeros((2, 0)), "weight", 1)),
        layer_profile_figure(ProfileData(LayerProfile(*[np.full(2, np.nan)] * 3), "", "t")),
        token_traces_figure(traces(3, [])),
        settling_figure(settling_map(Settling(*[np.full((1, 1), x) for x in (np.nan, False, False)], True, 1), 3)),
        gate_difference_figure(gate_difference(np.zeros((2, 0)), "weight", "a", "b")),
        metric_against_parameters_figure(metric_against_parameters([RUNS[1]], "accuracy")),
        compared_profiles_figure(ComparedProfiles([], "mean weight")),
        training_curve_figure(training_curve([], "accuracy")),
        comparison_figure(Comparison([], [], "accuracy", ".3f")),
        prefix_lengths_figure(PrefixLengths([], [])),
    ],
)
def test_empty_input_gives_a_titled_figure_that_says_why(figure):
    assert not figure.data
    assert figure.layout.title.text
    assert figure.layout.annotations[0].text


def test_names_that_look_like_numbers_stay_names():
    bars = [ComparedRun(name, Estimate(0.5, None, 1), 10, 4, Estimate(1.0, None, 1)) for name in ("1", "2", "10")]
    (first, *_) = comparisons(bars, "accuracy")
    assert comparison_figure(first).layout.yaxis.type == "category"
