"""Calls timed in turn: which are made when, and what is made of their times."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from scipy.stats import binom

from apt_core import latency
from apt_core.latency import FEWEST_REPETITIONS, added_cost, interleaved, paired_ratio, spread

CPU = torch.device("cpu")


def test_interleaved_goes_through_all_setups_in_changing_order_and_drops_the_first_round(monkeypatch):
    entered: list[tuple[int, int]] = []
    inside: list[int] = []

    @contextmanager
    def setup(variant: int):
        inside.append(variant)
        yield
        inside.pop()

    def run(repetition: int) -> float:
        entered.append((repetition, inside[-1]))
        return 10.0 * repetition + inside[-1]

    monkeypatch.setattr(latency, "_timed", lambda run, repetition: run(repetition))
    setups = [lambda variant=variant: setup(variant) for variant in range(4)]
    times = interleaved(setups, run, seconds=0, device=CPU, progress=False)
    rounds = [[variant for repetition, variant in entered if repetition == number] for number in range(len(times) + 1)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in rounds)
    assert len({tuple(order) for order in rounds}) > 1
    assert times.tolist() == [[10.0 * number + variant for variant in range(4)] for number in range(1, len(rounds))]
    assert len(times) == FEWEST_REPETITIONS


@pytest.mark.parametrize("count", [FEWEST_REPETITIONS, 15, 100])
def test_interval_of_the_median_is_by_order_statistics(count):
    """The widest ranks whose tails under the binomial law of Conover's quantile test are at most 2.5 % each."""
    values = np.random.default_rng(count).permutation(np.arange(1.0, count + 1))
    low, high = spread(values).low, spread(values).high
    assert binom.cdf(low - 1, count, 0.5) <= 0.025 < binom.cdf(low, count, 0.5)
    assert binom.sf(high - 1, count, 0.5) <= 0.025 < binom.sf(high - 2, count, 0.5)


def test_few_repetitions_give_their_whole_range():
    assert spread(np.array([3.0, 1.0, 2.0])) == (2, 1, 3)


def test_ratio_is_taken_pair_by_pair():
    """A machine that slows down tenfold does not change it."""
    speed = np.array([1.0, 10, 1, 10, 1, 10, 1])
    times = np.stack([speed * 3, speed * 2], axis=1)
    assert paired_ratio(times, 0, 1) == pytest.approx((1.5, 1.5, 1.5))


def test_added_cost_is_found_again_under_drift():
    tokens, layers = np.array([0.0, 96, 48, 24, 192]), np.array([0, 6, 6, 3, 6])
    draw = np.random.default_rng(0)
    base = draw.uniform(50, 200, size=(31, 1))
    times = base + 0.01 * tokens + 0.3 * layers + draw.normal(0, 0.02, size=(31, 5))
    token, layer = added_cost(times, tokens, layers)
    assert token.low < 0.01 < token.high
    assert layer.low < 0.3 < layer.high
    assert (token.median, layer.median) == pytest.approx((0.01, 0.3), rel=0.1)
    assert added_cost(times[:, :2], tokens[:2], layers[:2]) is None
