"""Quality against latency: what is drawn."""

from __future__ import annotations

import pytest

from analysis.figures.quality_latency import quality_against_latency, quality_against_latency_figure
from tests.inferences import make_inference


def data_of(reference: str = "full run", **fields):
    inference = make_inference((4, 4), **fields)
    return quality_against_latency(inference, reference, lambda variant: variant.quality.loss, "loss (nats)")


def test_trained_variants_are_drawn_by_kind_and_untrained_left_out():
    data = data_of()
    assert [series.names for series in data.series] == [
        ["frozen backbone"],
        ["full run"],
        ["pruned to 4"],
        ["gates under 0.5 off"],
    ]
    assert [series.quality for series in data.series] == [[1.2], [0.8], [0.85], [0.81]]
    assert data.series[3].tokens == [8 / 3]


@pytest.mark.parametrize(("reference", "ratio"), [("full run", 0.95), ("frozen backbone", 0.95 / 0.9)])
def test_ratio_and_interval_are_those_to_the_reference(reference, ratio):
    data = data_of(reference)
    assert data.series[2].ratios[0].median == pytest.approx(ratio)
    figure = quality_against_latency_figure(data)
    trace = figure.data[2]
    assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(data.series[2].ratios[0].low)
    assert trace.x[0] + trace.error_x.array[0] == pytest.approx(data.series[2].ratios[0].high)
    assert reference in figure.layout.xaxis.title.text
    assert figure.layout.yaxis.title.text == "loss (nats)"


def test_variants_of_a_kind_are_joined_in_the_order_of_their_tokens():
    pruned = make_inference((4, 4)).variants[2]
    more = pruned.model_copy(update={"name": "pruned to 2", "tokens": 2.0})
    data = data_of(variants=[*make_inference((4, 4)).variants, more])
    assert data.series[2].names == ["pruned to 2", "pruned to 4"]
    assert quality_against_latency_figure(data).data[2].mode == "lines+markers"


def test_names_from_a_file_are_no_markup():
    full = make_inference((4, 4)).full.model_copy(update={"name": '<a href="x">'})
    figure = quality_against_latency_figure(data_of(variants=[full]))
    assert "<a" not in figure.data[0].customdata[0][0]


def test_nothing_measured_says_so():
    figure = quality_against_latency_figure(
        quality_against_latency(make_inference((4, 4)), "full run", lambda _: None, "accuracy")
    )
    assert not figure.data
    assert figure.layout.annotations[0].text == "no quality was measured"
