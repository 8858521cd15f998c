"""A run's gates for the pages, read in small parts and cached until a shard changes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import streamlit as st

from analysis.gate_sample import sample_gates
from analysis.gate_stats import (
    QUANTITIES,
    Quantity,
    heaviest_first,
    heaviest_tokens,
    largest,
    quantity,
    smallest_positive,
)
from analysis.pages.context import plain
from analysis.reading import Sentence, Settled, read_gates, when_settled
from analysis.run_checks import check_lengths
from analysis.runs import Run
from apt_core.errors import AptError
from apt_core.gate_log import GateLog, GateRow, shard_paths
from apt_core.run_format import GATES_FOLDER, METRICS_FILE
from apt_core.settled import final_weights

SUGGESTED_PER_LAYER = 4
SUGGESTED_TOKENS = 200


class Gates(NamedTuple):
    """The gate log of a run as it was at a moment; cheap to hold, reads what it is asked for."""

    folder: Path
    stamp: str
    """changes whenever a shard does"""
    log: GateLog
    prefix_lengths: tuple[int, ...]

    @property
    def steps(self) -> np.ndarray:
        """The recorded steps [S]."""
        return self.log.steps


class WholeRun(NamedTuple):
    """What is known of a run from a look at its whole training."""

    basis: str
    largest: dict[Quantity, float | None]
    smallest_positive: dict[Quantity, float | None]
    weights: np.ndarray  # [L, P] mean over the last tenth of all recorded steps
    settled: Settled
    sentences: list[Sentence]
    heaviest: list[tuple[int, int]]  # (layer, token) with the largest weight of a layer, for the heaviest layers
    suggested: list[tuple[int, int]]  # (layer, token), the heaviest few of each layer
    last_step: int


def stamp_of(folder: Path) -> str:
    """Changes whenever a shard is added, rewritten or removed."""
    digest = hashlib.sha1(usedforsecurity=False)
    for _, path in shard_paths(folder):
        found = path.stat()
        digest.update(f"{path.name} {found.st_mtime_ns} {found.st_size}\n".encode())
    return digest.hexdigest()


def state_of(run: Run) -> str:
    """Changes whenever there is something new to draw of a run: its gates, its metrics or its status."""
    try:
        status = Run(run.folder).status
        stamp = stamp_of(run.folder / GATES_FOLDER)
    except (AptError, OSError) as problem:
        return f"unreadable: {problem}"
    metrics = run.folder / METRICS_FILE
    size = metrics.stat().st_size if metrics.is_file() else 0
    return f"{status} {stamp} {size}"


def open_gates(run: Run) -> Gates | None:
    """The gates of a run; None, with the reason shown, if they cannot be read or there are none yet."""
    folder = run.folder / GATES_FOLDER
    latest = _latest(str(folder))
    try:
        stamp = stamp_of(folder)
        known = latest.get("gates")
        if known is None or known.stamp != stamp:
            log = GateLog(folder, known.log if known else None)
            check_lengths(run.info, log.prefix_lengths)
            known = latest["gates"] = Gates(folder, stamp, log, tuple(run.info.prefix_lengths))
    except (AptError, OSError) as problem:
        st.error(f"The gates of {plain(run.key)} cannot be read: {plain(problem)}")
        return None
    if not len(known.steps):
        st.info(f"No step of {plain(run.key)} has been recorded yet. A running one shows here as soon as it has one.")
        return None
    return known


@st.cache_resource(max_entries=64, show_spinner=False)
def _latest(folder: str) -> dict[str, Gates]:
    """What was last read of a folder, so that only what is new is looked at."""
    return {}


def row_at(gates: Gates, step: int) -> GateRow:
    """The gates of one recorded step; nothing else is read.

    Raises:
        AptError: if the log changed under it.
    """
    return gates.log.at(step)


def whole_run(gates: Gates) -> WholeRun:
    """Statistics over the whole training, from a sample bounded in bytes.

    Raises:
        AptError: if the log cannot be read.
    """
    return _whole_run(str(gates.folder), gates.stamp, gates)


@st.cache_resource(max_entries=24, show_spinner="Reading the whole training")
def _whole_run(folder: str, stamp: str, _gates: Gates) -> WholeRun:
    sample = sample_gates(_gates.log, _gates.prefix_lengths)
    series = {name: quantity(name, sample.token_gate, sample.layer_scale) for name in QUANTITIES}
    settled = when_settled(sample, series["weight"])
    weights = weights_of(_gates)
    order = heaviest_first(weights)
    heaviest = heaviest_tokens(weights)
    few = [
        (layer, int(token))
        for layer, length in enumerate(_gates.prefix_lengths)
        for token in order[layer, : min(length, SUGGESTED_PER_LAYER)]
    ]
    suggested = sorted({*heaviest, *few[: SUGGESTED_TOKENS - len(heaviest)]})
    return WholeRun(
        sample.basis,
        {name: largest(values) for name, values in series.items()},
        {name: smallest_positive(values) for name, values in series.items()},
        weights,
        settled,
        read_gates(sample, settled),
        heaviest,
        suggested,
        int(sample.steps[-1]),
    )


def weights_of(gates: Gates) -> np.ndarray:
    """Weights [L, P] over the last tenth of all recorded steps, which budgets of runs that were not measured rest on.

    Raises:
        AptError: if the log cannot be read.
    """
    return _weights(str(gates.folder), gates.stamp, gates)


@st.cache_resource(max_entries=64, show_spinner="Reading the last tenth of the steps")
def _weights(folder: str, stamp: str, _gates: Gates) -> np.ndarray:
    return final_weights(_gates.log)


def metrics_of(run: Run) -> list[dict[str, Any]]:
    """A run's training log, read once until it grows.

    Raises:
        AptError, OSError: as ``Run.metrics``.
    """
    try:
        found = (run.folder / METRICS_FILE).lstat()
    except FileNotFoundError:
        return []
    return _metrics(str(run.folder), (found.st_mtime_ns, found.st_size, found.st_ino), run)


@st.cache_resource(max_entries=24, show_spinner=False)
def _metrics(folder: str, stamp: tuple[int, ...], _run: Run) -> list[dict[str, Any]]:
    return _run.metrics()


def trace_of(gates: Gates, tokens: tuple[tuple[int, int], ...], name: Quantity) -> np.ndarray:
    """A quantity of chosen virtual tokens at every recorded step: [S, n].

    Raises:
        AptError: if the log cannot be read.
    """
    return _trace(str(gates.folder), gates.stamp, tokens, name, gates)


@st.cache_resource(max_entries=24, show_spinner="Reading traces")
def _trace(folder: str, stamp: str, tokens: tuple[tuple[int, int], ...], name: Quantity, _gates: Gates) -> np.ndarray:
    found = _gates.log.trace(list(tokens), ("token_gate", "layer_scale"))
    return quantity(name, found["token_gate"][..., None], found["layer_scale"])[..., 0]
