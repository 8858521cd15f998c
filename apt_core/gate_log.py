"""The gate tensors of a run on disk: sealed safetensors shards and one open tail. No torch.

Layout: ``gates/gates-<first step>.safetensors`` with ``step[n]`` int64, ``token_gate[n,L,P]`` and
``token_gate_std[n,L,P]`` (mean and standard deviation over the examples of the step's batch) and
``layer_scale[n,L]``. L layers, P the longest prefix, n at most ``MAX_SHARD_STEPS``. Layers with fewer virtual
tokens are padded with NaN.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from apt_core.errors import AptValueError

MAX_SHARD_STEPS = 256
MAX_SHARD_BYTES = 8 * 2**20
FLUSH_STEPS = 8
FLUSH_SECONDS = 2.0
ARRAYS = ("step", "token_gate", "token_gate_std", "layer_scale")
_SHARD_NAME = re.compile(r"gates-(\d+)\.safetensors")


def write_atomic(path: Path, content: bytes) -> None:
    """Replaces ``path`` in one step: a reader sees the old or the new content, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


class GateRow(NamedTuple):
    """The gates of one optimizer step. L layers, P virtual tokens; NaN where a layer has no such token."""

    step: int
    token_gate: np.ndarray  # [L, P] in (0, 1), mean over the batch
    token_gate_std: np.ndarray  # [L, P] >= 0, over the batch
    layer_scale: np.ndarray  # [L]


class GateLogWriter:
    """Appends one row per step; at most ``FLUSH_STEPS - 1`` rows or ``FLUSH_SECONDS`` are in memory only.

    Args:
        folder: the run's ``gates`` folder; made if missing.
        prefix_lengths: virtual tokens per layer, kept in every shard's header.
        keep_until: on resuming, the last step to keep; later rows are dropped because they are made again.

    Raises:
        AptValueError: on a step that is not larger than the last one, or arrays of another shape.
    """

    def __init__(self, folder: Path, prefix_lengths: Sequence[int], keep_until: int | None = None) -> None:
        self._folder = folder
        self._shape = (len(prefix_lengths), max(prefix_lengths, default=0))
        self._header = {"schema_version": "1", "prefix_lengths": json.dumps(list(prefix_lengths))}
        row_bytes = 4 * (2 * self._shape[0] * self._shape[1] + self._shape[0]) + 8
        self._rows_per_shard = max(1, min(MAX_SHARD_STEPS, MAX_SHARD_BYTES // row_bytes))
        self._tail: list[GateRow] = []
        self._dirty = 0
        self._flushed_at = time.monotonic()
        self.last_step = 0
        folder.mkdir(parents=True, exist_ok=True)
        if keep_until is not None:
            self._drop_after(keep_until)

    def append(self, step: int, token_gate: np.ndarray, token_gate_std: np.ndarray, layer_scale: np.ndarray) -> None:
        """Adds the gates of one optimizer step (shapes as in ``GateRow``)."""
        if step <= self.last_step:
            raise AptValueError(f"step: got {step}; accepted: a step after {self.last_step}, the last recorded.")
        row = GateRow(step, np.asarray(token_gate), np.asarray(token_gate_std), np.asarray(layer_scale))
        shapes = (row.token_gate.shape, row.token_gate_std.shape, row.layer_scale.shape)
        if shapes != (self._shape, self._shape, self._shape[:1]):
            raise AptValueError(f"gates: got shapes {shapes}; accepted: [L, P] = {self._shape} twice, then [L].")
        self._tail.append(row)
        self._dirty += 1
        self.last_step = step
        if len(self._tail) >= self._rows_per_shard:
            self.flush()
            self._tail = []
        elif self._dirty >= FLUSH_STEPS:
            self.flush()

    def flush_if_old(self) -> None:
        """Writes the tail if its unwritten rows are older than ``FLUSH_SECONDS``."""
        if self._dirty and time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes the open tail."""
        if not self._dirty:
            return
        columns = {
            "step": np.array([row.step for row in self._tail], dtype=np.int64),
            **{name: np.stack([getattr(row, name) for row in self._tail]).astype(np.float32) for name in ARRAYS[1:]},
        }
        path = self._folder / f"gates-{self._tail[0].step:08d}.safetensors"
        write_atomic(path, save(columns, metadata=self._header))
        self._dirty = 0
        self._flushed_at = time.monotonic()

    def _drop_after(self, last_step: int) -> None:
        for _, path in shard_paths(self._folder):
            arrays = load_file(path)
            kept = arrays["step"] <= last_step
            if kept.all():
                self.last_step = int(arrays["step"][-1])
            elif kept.any():
                self.last_step = int(arrays["step"][kept][-1])
                content = save({name: arrays[name][kept] for name in ARRAYS}, metadata=self._header)
                write_atomic(path, content)
            else:
                path.unlink()


def shard_paths(folder: Path) -> list[tuple[int, Path]]:
    """(first step, path) of every shard in ``folder``, in order of steps; links are passed over."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _SHARD_NAME.fullmatch(path.name)
        if match and path.is_file() and not path.is_symlink():
            found.append((int(match.group(1)), path))
    return sorted(found)


class GateLog:
    """Reads the gates of a run while it may still be written.

    Args:
        folder: the run's ``gates`` folder.

    Raises:
        AptValueError: naming the shard and what is wrong with it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._steps: list[np.ndarray] = []
        self._paths: list[Path] = []
        self.num_layers = 0
        self.num_virtual_tokens = 0
        previous = 0
        for _, path in shard_paths(folder):
            steps, num_layers, num_tokens = _check_shard(path)
            if self._paths and (num_layers, num_tokens) != (self.num_layers, self.num_virtual_tokens):
                raise AptValueError(f"{path.name}: its shape differs from the shards before it.")
            if steps.size == 0 or steps[0] <= previous or (np.diff(steps) <= 0).any():
                raise AptValueError(f"{path.name}: steps are missing, repeated or out of order.")
            previous = int(steps[-1])
            self.num_layers, self.num_virtual_tokens = num_layers, num_tokens
            self._steps.append(steps)
            self._paths.append(path)
        self.steps = np.concatenate(self._steps) if self._steps else np.zeros(0, np.int64)  # [S]

    def __len__(self) -> int:
        return len(self.steps)

    def at(self, step: int) -> GateRow:
        """The gates of one recorded step.

        Raises:
            AptValueError: if that step was not recorded.
        """
        for steps, path in zip(self._steps, self._paths, strict=True):
            row = int(np.searchsorted(steps, step))
            if row < len(steps) and steps[row] == step:
                arrays = _read(path, ARRAYS[1:], slice(row, row + 1))
                return GateRow(step, *(arrays[name][0] for name in ARRAYS[1:]))
        raise AptValueError(f"step: got {step}; accepted: a recorded step, {self._span()}.")

    def read(self, names: Iterable[str] = ARRAYS[1:]) -> dict[str, np.ndarray]:
        """Whole columns: ``token_gate`` and ``token_gate_std`` [S, L, P], ``layer_scale`` [S, L], as float32."""
        names = tuple(names)
        parts = [_read(path, names, slice(0, len(steps))) for steps, path in zip(self._steps, self._paths, strict=True)]
        shapes = {"layer_scale": (0, self.num_layers)}
        empty = (0, self.num_layers, self.num_virtual_tokens)
        return {
            name: np.concatenate([part[name] for part in parts])
            if parts
            else np.zeros(shapes.get(name, empty), np.float32)
            for name in names
        }

    def _span(self) -> str:
        return f"{self.steps[0]} to {self.steps[-1]}" if len(self) else "none yet"


def _read(path: Path, names: Iterable[str], rows: slice) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as shard:
            return {name: shard.get_slice(name)[rows].astype(np.float32) for name in names}
    except (SafetensorError, OSError) as problem:
        raise AptValueError(f"{path.name}: cannot be read ({problem}).") from problem


def _check_shard(path: Path) -> tuple[np.ndarray, int, int]:
    """Steps [n], L and P of one shard, from its header before anything large is read."""
    try:
        with safe_open(path, framework="numpy") as shard:
            missing = set(ARRAYS) - set(shard.keys())
            if missing:
                raise AptValueError(f"{path.name}: lacks {', '.join(sorted(missing))}.")
            shapes = {name: tuple(shard.get_slice(name).get_shape()) for name in ARRAYS}
            n, num_layers, num_tokens = shapes["token_gate"] if len(shapes["token_gate"]) == 3 else (-1, -1, -1)
            expected = {
                "step": (n,),
                "token_gate": (n, num_layers, num_tokens),
                "token_gate_std": (n, num_layers, num_tokens),
                "layer_scale": (n, num_layers),
            }
            if shapes != expected:
                raise AptValueError(f"{path.name}: shapes {shapes} do not fit step[n], token_gate[n,L,P].")
            steps = shard.get_tensor("step")
    except (SafetensorError, OSError) as problem:
        raise AptValueError(f"{path.name}: cannot be read ({problem}).") from problem
    if steps.dtype.kind not in "iu":
        raise AptValueError(f"{path.name}: step has type {steps.dtype}, not an integer type.")
    return steps.astype(np.int64), num_layers, num_tokens
