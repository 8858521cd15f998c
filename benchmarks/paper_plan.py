"""Which trainings the experiment still needs, in what order, and how many there are: pure functions. No torch.

For every setting: each method is trained with every learning rate of the grid and the first ``grid_seeds`` seeds; the
rate that is best on validation is chosen, and only with that one are the other seeds trained and is test measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from apt_core.errors import bad_value
from benchmarks.paper_methods import APT, METHODS, plus_lengths, rates_of
from benchmarks.paper_results import Measured, Results, Table
from benchmarks.paper_settings import Setting


class Request(NamedTuple):
    """The experiment that is asked for."""

    settings: tuple[Setting, ...]
    methods: tuple[str, ...]
    seeds: int
    """1 to so many"""
    grid_seeds: int
    """of these, the first so many choose the learning rate"""
    rates: tuple[float, ...]
    """the grid, as it is for prefixes"""


class Training(NamedTuple):
    """One training to be made, or one that only lacks its measurement on test."""

    setting: Setting
    method: str
    learning_rate: float
    seed: int
    lengths: tuple[int, ...] | None
    """virtual tokens per layer [L]; None: the setting's number in every layer, or none at all"""
    test: bool
    """whether test is to be measured"""

    @property
    def name(self) -> str:
        """Of its run folder."""
        lengths = "-" + "_".join(map(str, self.lengths)) if self.lengths is not None else ""
        return f"{self.method}{lengths}-lr{self.learning_rate:g}-s{self.seed}"


def gate_rate(training: Training) -> float | None:
    """The learning rate of its gates and scales; None: that of the prefix."""
    factor = METHODS[training.method].gate_factor
    return None if factor == 1 else float(f"{training.learning_rate * factor:.6g}")


class Count(NamedTuple):
    """How many trainings a method of a setting still needs."""

    setting: Setting
    method: str
    trainings: int
    tests: int
    """runs whose measurement on test is still to be made"""


def check_request(request: Request) -> None:
    """Refuses what cannot be done, before anything is.

    Raises:
        AptValueError: naming the option.
    """
    for method in request.methods:
        if method not in METHODS:
            raise bad_value("methods", method, ", ".join(METHODS))
        if METHODS[method].lengths != "equal" and APT not in request.methods:
            raise bad_value("methods", method, f"{APT} with it", "Its lengths follow from APT's runs.")
    if not 1 <= request.grid_seeds <= request.seeds:
        raise bad_value("grid-seeds", request.grid_seeds, f"1 to {request.seeds}, the number of seeds")
    if not request.rates or len(set(request.rates)) < len(request.rates) or not all(0 < x <= 1 for x in request.rates):
        raise bad_value("learning-rates", list(request.rates), "different numbers over 0 and up to 1")


def open_trainings(request: Request, results: Results) -> list[Training]:
    """What can be trained now and is not in the results, the first to be begun first.

    Empty once everything is measured: what waits for a choice or for APT's lengths waits for something in the list.
    """
    return [
        training
        for setting in request.settings
        for method in sorted(request.methods, key=lambda method: method != APT)  # others wait for it
        for training in _open(request, results.table(setting), setting, method)
    ]


def chosen_rates(request: Request, results: Results) -> Iterator[tuple[Setting, str, float]]:
    """The learning rate of every method of every setting whose grid is complete."""
    for setting in request.settings:
        table = results.table(setting)
        for method in request.methods:
            rate = _choice(request, table, method) if table is not None else None
            if rate is not None:
                yield setting, method, rate


def counts(request: Request, results: Results) -> list[Count]:
    """What is left, method by method; an upper bound where an unfinished grid may have been measured with the best."""
    left = []
    for setting in request.settings:
        table = results.table(setting)
        for method in request.methods:
            rates, seeds = rates_of(method, request.rates), range(1, request.seeds + 1)
            rate = _choice(request, table, method)
            if rate is None:
                grid = [
                    _known(request, table, method, each, seed) for each in rates for seed in seeds[: request.grid_seeds]
                ]
                left.append(
                    Count(setting, method, grid.count(None) + request.seeds - request.grid_seeds, request.seeds)
                )
                continue
            known = [_known(request, table, method, rate, seed) for seed in seeds]
            tests = sum(each is None or not each.tested for each in known)
            left.append(Count(setting, method, known.count(None), tests))
    return left


def _known(request: Request, table: Table | None, method: str, rate: float, seed: int) -> Measured | None:
    """A training that need not be made again: it has the lengths that it would have now, if these are known."""
    try:
        lengths = _lengths(request, table, method, seed)
    except LookupError:
        return None
    return table.find(method, rate, seed, lengths) if table is not None else None


def _open(request: Request, table: Table | None, setting: Setting, method: str) -> Iterator[Training]:
    rate = _choice(request, table, method)
    if rate is None:
        rates, seeds = rates_of(method, request.rates), range(1, request.grid_seeds + 1)
        cells = [(each, seed, False) for seed in seeds for each in rates]
    else:
        cells = [(rate, seed, True) for seed in range(1, request.seeds + 1)]
    for each, seed, test in cells:
        try:
            lengths = _lengths(request, table, method, seed)
        except LookupError:
            continue
        known = table.find(method, each, seed, lengths) if table is not None else None
        if known is None or (test and not known.tested):
            yield Training(setting, method, each, seed, lengths, test)


def _choice(request: Request, table: Table | None, method: str) -> float | None:
    """The learning rate that is best on validation, the smaller among equals; None while the grid is incomplete."""
    rates = rates_of(method, request.rates)
    if len(rates) == 1:
        return rates[0]
    if table is None:
        return None
    scores = []
    for rate in sorted(rates):
        try:
            runs = [
                table.find(method, rate, seed, _lengths(request, table, method, seed))
                for seed in range(1, request.grid_seeds + 1)
            ]
        except LookupError:
            return None
        if None in runs:
            return None
        values = [run.validation for run in runs if run is not None]
        scores.append((-np.inf if None in values else table.sign * float(np.mean(values)), -rate))
    return -max(scores)[1]


def _lengths(request: Request, table: Table | None, method: str, seed: int) -> tuple[int, ...] | None:
    """Virtual tokens per layer of a training; None where a method takes the setting's number.

    Raises:
        LookupError: if they follow from a run of APT that is not there yet.
    """
    kind = METHODS[method].lengths
    if kind == "equal":
        return None
    if table is None:
        raise LookupError(method)
    if kind == "parameters":
        run = next((each for each in table.trainings if each.method == APT), None)
        if run is None:
            raise LookupError(method)
        return plus_lengths(run.num_parameters, run.token_sizes)
    rate = _choice(request, table, APT)
    source: Measured | None = table.find(APT, rate, seed) if rate is not None else None
    if source is None:
        raise LookupError(method)
    return tuple(source.star())
