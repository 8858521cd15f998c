"""Series over training: choice of tokens, smoothing, thinning, x axes; and positions of the step slider."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.steps import frames, moved, nearest, slider_range
from analysis.traces import (
    axes_of,
    chosen_tokens,
    drawn_points,
    points_per_line,
    positions,
    smoothed,
    step_window,
    token_label,
)

ROWS = [
    {"step": 10, "epoch": 0.5, "seconds": 5.0},
    {"step": 20, "epoch": 1.0, "seconds": "soon"},
    {"step": 20, "epoch": 1.0},
    {"loss": 3},
]


def test_labels_become_tokens_and_what_is_none_is_refused():
    found = chosen_tokens(["2.3", " 1 . 1", "2.3", "0.1", "2.4", "x", "3.1", "-1.1"], (1, 3))
    assert found.tokens == [(1, 2), (0, 0)]
    assert found.refused == ["0.1", "2.4", "x", "3.1", "-1.1"]
    assert token_label(1, 2) == "2.3"


def test_smoothing_is_a_centred_mean_cut_off_at_the_ends():
    values = np.array([[1.0], [2.0], [6.0], [np.nan], [3.0]])
    assert smoothed(values, 3)[:, 0].tolist() == [1.5, 3.0, 4.0, 4.5, 3.0]
    assert smoothed(values, 1) is values
    assert np.isnan(smoothed(np.full((3, 1), np.nan), 3)).all()


@given(st.lists(st.floats(-1e6, 1e6) | st.just(np.nan), min_size=1, max_size=400), st.integers(4, 50))
def test_thinning_keeps_ends_and_extremes(series, at_most):
    values = np.array(series)
    kept = drawn_points(values, at_most)
    assert (kept[0], kept[-1]) == (0, len(values) - 1)
    assert (np.diff(kept) > 0).all()
    assert len(kept) <= max(at_most, 4)
    if np.isfinite(values).any():
        assert np.nanmax(values[kept]) == np.nanmax(values)
        assert np.nanmin(values[kept]) == np.nanmin(values)


def test_more_lines_get_fewer_points_each():
    assert [points_per_line(lines) for lines in (0, 1, 6, 12)] == [400, 400, 400, 200]


def test_other_axes_run_evenly_between_the_logged_lines():
    assert axes_of(ROWS) == ["step", "epoch"]
    assert axes_of([]) == ["step"]
    steps = np.array([5, 10, 15, 24])
    assert positions(steps, ROWS, "epoch").tolist() == [0.25, 0.5, 0.75, 1.2]
    assert positions(steps, ROWS, "step") is steps


def test_window_of_steps_is_never_empty():
    steps = np.array([10, 20, 30])
    assert step_window(steps, 15, 30) == slice(1, 3)
    assert step_window(steps, 31, 99) == slice(0, 3)


@pytest.mark.parametrize(("wanted", "index"), [(0, 0), (10, 0), (15, 0), (16, 1), (99, 2)])
def test_nearest_recorded_step(wanted, index):
    assert nearest(np.array([10, 20, 70]), wanted) == index


def test_arrow_keys_cross_a_gap_in_the_steps():
    steps = np.array([10, 20, 70])
    assert moved(steps, 20, 30) == 70
    assert moved(steps, 70, 60) == 20
    assert moved(steps, 70, 70) == 70
    assert moved(steps, 10, 68) == 70


def test_slider_reaches_every_step_and_leaves_room_for_those_to_come():
    assert slider_range(np.array([10, 20, 70]), 0) == (10, 70, 10)
    assert slider_range(np.array([10, 20]), 95) == (10, 100, 10)


@pytest.mark.parametrize(("count", "start", "expected"), [(3, 2, [2, 3]), (3, 3, [1, 2, 3])])
def test_play_goes_to_the_end_and_from_the_end_starts_again(count, start, expected):
    assert frames(np.arange(1, count + 1), start).tolist() == expected


def test_play_of_a_long_run_takes_130_pictures():
    shown = frames(np.arange(1, 100_001), 1)
    assert (len(shown), shown[0], shown[-1]) == (130, 1, 100_000)
