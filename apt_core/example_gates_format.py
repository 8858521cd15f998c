"""``token-gates-<split>.safetensors`` of a run: the token gates of single examples. No torch.

Written by ``python -m apt_core evaluate RUN --split SPLIT --token-gates``; a page reads the examples it needs.
Axes: N examples, L layers, P virtual tokens of the longest prefix (NaN where a layer has fewer).

    mean[L, P]          float32, over the examples
    deviation[N, L, P]  float16, gate - mean: gates differ little from input to input, and float16 of a gate near 1
                        has steps of 0.0005, while a small difference keeps three digits
    ids                 uint8, a JSON list of the N ids
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import save

from apt_core.errors import AptFileNotFoundError, AptValueError, bad_value
from apt_core.files import open_regular, read_into, write_atomic
from apt_core.shard_header import Column, bytes_of, checked_column, read_entries

MAX_BYTES = 128 * 2**20
"""of the deviations: the first examples that fit are kept, 43,690 of a model of 24 layers x 64 virtual tokens"""
_MAX_ID_BYTES = 32 * 2**20
_DTYPES = {"mean": "F32", "deviation": "F16", "ids": "U8"}


class ExampleGates(NamedTuple):
    """What a file holds, before a single example is read."""

    path: Path
    ids: list[str]  # [N]
    mean: np.ndarray  # [L, P] in (0, 1)
    deviation: Column

    def read(self, index: int) -> np.ndarray:
        """The token gates [L, P] float32 of one example, counted from 0; nothing else is read.

        Raises:
            AptValueError: if the file was replaced or cut off meanwhile.
        """
        return self.read_many(index, 1)[0]

    def read_many(self, first: int, count: int) -> np.ndarray:
        """The token gates [count, L, P] float32 of neighbours in the file.

        Raises:
            AptValueError: as ``read``.
        """
        rows = np.empty((count, *self.deviation.shape[1:]), self.deviation.dtype)
        try:
            with open_regular(self.path) as file:
                read_into(file, self.deviation.offset + first * prod(rows.shape[1:]) * rows.itemsize, bytes_of(rows))
        except OSError as problem:
            raise AptValueError(f"{self.path}: cannot be read ({problem}).") from problem
        return self.mean + rows.astype(np.float32)


def example_gates_path(folder: Path, split: str) -> Path:
    """Where the token gates of a split's examples are."""
    return folder / f"token-gates-{split}.safetensors"


def examples_that_fit(prefix_lengths: Sequence[int]) -> int:
    """How many examples a file holds at most, by ``MAX_BYTES``."""
    return MAX_BYTES // max(1, 2 * len(prefix_lengths) * max(prefix_lengths, default=0))


def write_example_gates(folder: Path, split: str, ids: Sequence[str], gates: np.ndarray) -> Path:
    """Writes the token gates of the first N examples of a split, over an earlier file.

    Args:
        ids: [N].
        gates: [N, L, P] in (0, 1); NaN where a layer has no such virtual token.
    """
    mean = gates.mean(axis=0, dtype=np.float64).astype(np.float32)
    arrays = {
        "mean": mean,
        "deviation": (gates - mean).astype(np.float16),
        "ids": np.frombuffer(json.dumps(list(ids)).encode(), np.uint8),
    }
    path = example_gates_path(folder, split)
    write_atomic(path, save(arrays))
    return path


def open_example_gates(folder: Path, split: str, prefix_lengths: Sequence[int]) -> ExampleGates:
    """Checks a file and reads what all its examples share.

    Args:
        prefix_lengths: what ``run.json`` says [L].

    Raises:
        AptFileNotFoundError: if there is none, with the command that makes it.
        AptValueError: if it is a link, damaged, too large, or does not fit the run.
    """
    path = example_gates_path(folder, split)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            entries, start = read_entries(file, size)
            columns = {
                name: checked_column(name, entries.get(name), (dtype,), start, size) for name, dtype in _DTYPES.items()
            }
            _check_shapes(columns, (len(prefix_lengths), max(prefix_lengths, default=0)))
            mean, ids = (np.empty(columns[name].shape, columns[name].dtype) for name in ("mean", "ids"))
            read_into(file, columns["mean"].offset, bytes_of(mean))
            read_into(file, columns["ids"].offset, bytes_of(ids))
        return ExampleGates(path, _checked_ids(bytes(ids), columns["deviation"].shape[0]), mean, columns["deviation"])
    except FileNotFoundError as problem:
        raise AptFileNotFoundError(
            f"{path}: not written yet. 'python -m apt_core evaluate {folder} --split {split} --token-gates' does it."
        ) from problem
    except AptValueError as problem:
        said = str(problem)
        raise AptValueError(said if said.startswith(str(path)) else f"{path}: {said}") from problem
    except OSError as problem:
        raise AptValueError(f"{path}: cannot be read ({problem}).") from problem


def _check_shapes(columns: dict[str, Column], shape: tuple[int, int]) -> None:
    if columns["mean"].shape != shape or columns["deviation"].shape[1:] != shape or len(columns["ids"].shape) != 1:
        shapes = {name: column.shape for name, column in columns.items()}
        raise AptValueError(f"shapes {shapes} do not fit the run's {shape[0]} layers x {shape[1]} virtual tokens.")
    for name, limit in (("deviation", MAX_BYTES), ("ids", _MAX_ID_BYTES)):
        size = prod(columns[name].shape) * columns[name].dtype.itemsize
        if size > limit:
            raise bad_value(name, size, f"up to {limit} bytes")


def _checked_ids(content: bytes, count: int) -> list[str]:
    try:
        ids = json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise AptValueError("its ids are not JSON.") from problem
    if not isinstance(ids, list) or len(ids) != count or not all(isinstance(name, str) for name in ids):
        raise AptValueError(f"its ids are no list of {count} texts.")
    return ids
