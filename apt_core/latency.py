"""How long calls take beside each other: timed in turn in one process, again and again, compared pair by pair.

A machine is now faster, now slower; what is timed one after the other is in the same of these phases, so ratios within
a repetition scatter far less than times. Axes: R repetitions, V variants.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from scipy.stats import quantile_test
from tqdm.auto import tqdm

from apt_core.errors import bad_value
from apt_core.inference_format import Spread

FEWEST_REPETITIONS = 6
"""the fewest from which order statistics give a 95 % interval of a median: 1 - 2 / 2^6 = 96.9 %"""
MOST_REPETITIONS = 2000
CONFIDENCE = 0.95


def interleaved(
    setups: Sequence[Callable[[], AbstractContextManager]],
    run: Callable[[int], object],
    *,
    seconds: float,
    device: torch.device,
    seed: int = 0,
    progress: bool = True,
) -> np.ndarray:
    """Milliseconds of ``run`` in each setup [R, V]: R rounds, each through all setups in a random order.

    The first round warms up and is not kept. Setting up is not timed. On a GPU the work that was started is waited
    for; the time is its own, by CUDA events.

    Args:
        setups: V context managers, made anew each time.
        run: gets the number of the round, the same for all setups of it.
        seconds: rounds begin until so much time is spent, ``FEWEST_REPETITIONS`` to ``MOST_REPETITIONS`` of them.
        device: where ``run`` works.
        seed: of the orders.
        progress: show a bar on stderr.

    Raises:
        AptValueError: if ``seconds`` is negative or no number.
    """
    if not seconds >= 0:
        raise bad_value("seconds", seconds, "seconds to spend on timing, such as 60")
    draw = np.random.default_rng(seed)
    timed = _timed_on_gpu if device.type == "cuda" else _timed
    rounds: list[np.ndarray] = []
    start = time.perf_counter()
    with tqdm(total=seconds, desc="time", unit="s", disable=not progress, leave=False, bar_format=_BAR) as bar:
        while len(rounds) <= MOST_REPETITIONS:
            spent = time.perf_counter() - start
            bar.update(min(spent, seconds) - bar.n)
            if len(rounds) > FEWEST_REPETITIONS and spent >= seconds:
                break
            row = np.empty(len(setups))
            for variant in draw.permutation(len(setups)):
                with setups[variant]():
                    row[variant] = timed(run, len(rounds))
            rounds.append(row)
    return np.array(rounds[1:])


def spread(values: np.ndarray) -> Spread:
    """Median and its 95 % interval by order statistics; the whole range of fewer than ``FEWEST_REPETITIONS``.

    Args:
        values: of repetitions [R], at least one.
    """
    found = quantile_test(values, p=0.5).confidence_interval(CONFIDENCE)
    low, high = (values.min(), values.max()) if np.isnan([found.low, found.high]).any() else (found.low, found.high)
    return Spread(float(np.median(values)), float(low), float(high))


def paired_ratio(times: np.ndarray, variant: int, reference: int) -> Spread:
    """The ratio of one variant's time to another's, taken within each repetition of ``times`` [R, V]."""
    return spread(times[:, variant] / times[:, reference])


def added_cost(times: np.ndarray, tokens: np.ndarray, layers: np.ndarray) -> tuple[Spread, Spread] | None:
    """What a virtual token adds, and what a layer's having a prefix adds, in the unit of ``times``.

    The least-squares fit of time = base + a tokens + b layers, of each repetition by itself; then median and interval.

    Args:
        times: [R, V] of variants without gates per input.
        tokens: [V] virtual tokens, weighed by what one of their layer computes.
        layers: [V] that have a prefix.

    Returns:
        a and b; None where the variants do not tell them apart.
    """
    design = np.stack([np.ones(len(tokens)), tokens, layers], axis=1)  # [V, 3]
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    _, token, layer = np.linalg.lstsq(design, times.T, rcond=None)[0]
    return spread(token), spread(layer)


_BAR = "{l_bar}{bar}| {n:.0f}/{total:.0f} s"


def _timed(run: Callable[[int], object], repetition: int) -> float:
    start = time.perf_counter()
    run(repetition)
    return 1e3 * (time.perf_counter() - start)


def _timed_on_gpu(run: Callable[[int], object], repetition: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    run(repetition)
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)
