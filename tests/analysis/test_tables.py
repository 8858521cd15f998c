"""The numbers behind figures as tables, and that all of them can be written as Parquet."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd

from analysis.gate_stats import LayerProfile
from analysis.settling import Settling
from analysis.tables import (
    cells_table,
    lengths_table,
    metrics_table,
    profile_table,
    profiles_table,
    settling_table,
    traces_table,
)


def rows(table: pd.DataFrame) -> list[list]:
    """The rows after a round trip through Parquet."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return pd.read_parquet(buffer).astype(object).to_numpy().tolist()


def test_cells_leave_padding_out_and_count_from_1():
    found = rows(cells_table(7, a=np.array([[0.5, np.nan], [0.25, 1.0]]), b=np.array([[2.0, np.nan], [np.nan, 4.0]])))
    assert found[0] == [7, 1, 1, 0.5, 2.0]
    assert [row[:3] for row in found] == [[7, 1, 1], [7, 2, 1], [7, 2, 2]]
    assert rows(cells_table(7, a=np.zeros((2, 0)))) == []


def test_profile_traces_settling_and_lengths_have_one_row_each():
    assert rows(profile_table(3, LayerProfile(*(np.array([x]) for x in (0.5, 0.1, 0.2))))) == [[3, 1, 0.5, 0.1, 0.2]]
    values = np.array([[0.1, 0.3], [0.2, 0.4]])
    assert rows(traces_table(np.array([1, 2]), values, ["1.1", "2.5"])) == [
        [1, "1.1", 0.1],
        [2, "1.1", 0.2],
        [1, "2.5", 0.3],
        [2, "2.5", 0.4],
    ]
    drawn = {"seconds": np.array([0.5, 1.5]), "mean over 2 steps": values / 2}
    more = traces_table(np.array([1, 2]), values, ["1.1", "2.5"], "weight", **drawn)
    assert list(more) == ["step", "layer_token", "weight", "seconds", "mean over 2 steps"]
    assert rows(more)[2] == [1, "2.5", 0.3, 0.5, 0.15]
    settled = Settling(np.array([[9.0, np.nan]]), np.array([[True, False]]), np.array([[True, False]]), True, 1)
    assert rows(settling_table(settled)) == [[1, 1, True, 9.0]]
    assert rows(lengths_table(["a"], [[4, 0]])) == [["a", 1, 4], ["a", 2, 0]]
    assert rows(profiles_table([("a", np.array([0.5]), np.array([0.1]))])) == [["a", 1, 0.5, 0.1]]
    assert profiles_table([]).empty


def test_metrics_of_mixed_types_can_still_be_written():
    assert rows(metrics_table([{"step": 1, "loss": 2.0}, {"step": "x", "nested": {"a": 1}, "loss": 1.0}])) == [
        ["1", 2.0],
        ["x", 1.0],
    ]
    assert metrics_table([]).empty
