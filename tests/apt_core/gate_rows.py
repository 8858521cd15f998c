"""Rows of gates that can be computed from their step, for tests of the gate log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from apt_core.gate_log import GateLog
from apt_core.gate_writer import GateLogWriter


def row(step: int, lengths: tuple[int, ...] = (3, 0, 2)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gates that name their step, with NaN where a layer has no such token."""
    draw = np.random.default_rng(step)
    shape = (len(lengths), max(lengths))
    absent = np.arange(shape[1]) >= np.array(lengths)[:, None]
    gate, spread = draw.random(shape, np.float32), draw.random(shape, np.float32)
    gate[absent] = spread[absent] = np.nan
    scale = draw.random(shape[0], np.float32)
    scale[np.array(lengths) == 0] = np.nan
    return gate, spread, scale


def written(folder: Path, num_steps: int, lengths: tuple[int, ...] = (3, 0, 2), **settings: Any) -> GateLogWriter:
    """A writer that got every step and may still hold the last ones."""
    writer = GateLogWriter(folder, lengths, **settings)
    for step in range(1, num_steps + 1):
        writer.append(step, *row(step, lengths))
    return writer


def closed_log(folder: Path, num_steps: int, lengths: tuple[int, ...] = (3, 0, 2), **settings: Any) -> GateLog:
    """The log of a writer that is done."""
    written(folder, num_steps, lengths, **settings).close()
    return GateLog(folder)
