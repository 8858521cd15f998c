"""The figure of a pilot's arms: what is drawn, and that its axis has a name and a unit."""

from __future__ import annotations

import pytest

from analysis.figures.arms import arms_by_metric, arms_figure
from analysis.pilot_decision import ArmResult
from apt_core.estimates import estimate


def result(arm: str, *values: float | None) -> ArmResult:
    return ArmResult(arm, list(values), estimate(values), 48, 1000, estimate([1.0]))


def test_every_seed_and_the_mean_with_its_interval_are_drawn():
    data = arms_by_metric([result("full", 0.5, 0.6, 0.7), result("pruned", 0.5, None, None)], "accuracy", "test")
    assert [arm.name for arm in data.arms] == ["full, 48 virtual tokens", "pruned, 48 virtual tokens"]
    assert data.arms[0].half == pytest.approx(0.248, abs=1e-3)  # t(2) = 4.303, s = 0.1
    figure = arms_figure(data)
    seeds, means = figure.data
    assert list(seeds.y) == [0.5, 0.6, 0.7, 0.5]
    assert list(means.y) == pytest.approx([0.6, 0.5])
    assert list(means.error_y.array) == pytest.approx([data.arms[0].half, 0.0])
    assert figure.layout.yaxis.title.text == "test accuracy"
    assert figure.layout.title.text == "Test accuracy"


def test_direction_is_said_where_less_is_better():
    data = arms_by_metric([result("full", 10.0)], "perplexity", "validation")
    assert data.unit == "validation perplexity (lower is better)"


def test_nothing_measured_is_a_titled_empty_figure():
    figure = arms_figure(arms_by_metric([result("full", None)], "accuracy", "validation"))
    assert not figure.data
    assert figure.layout.title.text == "Validation accuracy"
