"""Shares of a total over layers: exact sums, bounds, and gate mass from a log."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.gate_stats import layer_mass
from apt_core.errors import AptValueError
from apt_core.gate_log import GateLog
from apt_core.run_format import read_run_info
from apt_core.run_writer import RunWriter
from apt_core.settled import final_weights, settled_mass
from apt_core.shares import share

whole = st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(sum)


@given(whole, st.integers(0, 300))
def test_share_is_hamiltons_method_in_exact_arithmetic(mass, total):
    quotas = [Fraction(total * part, sum(mass)) for part in mass]
    expected = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(mass)), key=lambda layer: (expected[layer] - quotas[layer], layer))
    for layer in by_remainder[: total - sum(expected)]:
        expected[layer] += 1
    assert share(mass, total).tolist() == expected


@given(st.data())
def test_share_keeps_sum_and_bounds(data):
    num_layers = data.draw(st.integers(1, 12))
    floats = st.floats(0, 1e6)
    mass = data.draw(st.lists(floats, min_size=num_layers, max_size=num_layers))
    lower = np.array(data.draw(st.lists(st.integers(0, 5), min_size=num_layers, max_size=num_layers)))
    upper = lower + np.array(data.draw(st.lists(st.integers(0, 9), min_size=num_layers, max_size=num_layers)))
    total = data.draw(st.integers(int(lower.sum()), int(upper.sum())))
    lengths = share(mass, total, lower, upper)
    assert lengths.sum() == total
    assert ((lengths >= lower) & (lengths <= upper)).all()


@pytest.mark.parametrize(
    ("mass", "total", "message"),
    [
        ([1, -1], 4, "mass: got"),
        ([1, float("nan")], 4, "mass: got"),
        ([], 4, "mass: got"),
        ([1, 1], -1, "total: got -1; accepted: 0 to 2048 for 2 layers"),
        ([1, 1], 2049, "total: got 2049"),
    ],
)
def test_share_refuses_what_cannot_be(mass, total, message):
    with pytest.raises(AptValueError, match=message):
        share(mass, total)


def test_settled_mass_is_what_budgets_rest_on(tmp_path, record_run):
    log = GateLog(record_run(tmp_path / "run", steps=37, lengths=(5, 0, 3)) / "gates")
    np.testing.assert_allclose(settled_mass(log), layer_mass(final_weights(log)), rtol=1e-6)
    rows = log.read()
    by_hand = np.nansum(rows["token_gate"] * np.abs(rows["layer_scale"])[..., None], axis=2)[-4:].mean(axis=0)
    np.testing.assert_allclose(settled_mass(log), np.nan_to_num(by_hand), rtol=1e-6)


def test_settled_mass_of_a_diverged_or_empty_log_is_refused(tmp_path, record_run):
    with pytest.raises(AptValueError, match="no recorded gates"):
        settled_mass(GateLog(tmp_path / "nothing"))
    folder = record_run(tmp_path / "run", steps=1, lengths=(2, 2))
    writer = RunWriter(tmp_path / "diverged", read_run_info(folder))
    writer.append_gates(1, np.full((2, 2), 0.5), np.zeros((2, 2)), np.array([1.0, np.inf]))
    writer.finish()
    with pytest.raises(AptValueError, match="diverged"):
        settled_mass(GateLog(tmp_path / "diverged" / "gates"))
