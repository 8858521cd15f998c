"""One shard of a run's gate log: checked once, then read in part, also while a writer replaces it. No torch.

A shard is ``gates/gates-<first step>.safetensors`` with ``step[n]`` int64, ``token_gate[n,L,P]`` and
``token_gate_std[n,L,P]`` (mean and standard deviation over the examples of the step's batch) and
``layer_scale[n,L]``. L layers, P the longest prefix, n recorded steps. Layers with fewer virtual tokens are padded
with NaN.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from io import FileIO
from math import prod
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from apt_core.errors import AptValueError
from apt_core.files import open_regular, read_into
from apt_core.shard_header import Header, bytes_of, read_header, shard_parts

MAX_READ_BYTES = 64 * 2**20
"""a shard that is larger is not ours; it is never read as a whole"""


class Identity(NamedTuple):
    """What tells a file that has not changed."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Shard:
    """One checked shard. L layers, P virtual tokens, n rows."""

    path: Path
    identity: Identity
    header: Header

    @classmethod
    def open(cls, path: Path) -> Self:
        """Reads the header and the steps of a shard, and checks them before anything else is read.

        Raises:
            AptValueError: naming the shard and what is wrong with it.
            OSError: if the file cannot be read.
        """
        with open_regular(path) as file:
            return cls._from_file(path, file)

    @classmethod
    def _from_file(cls, path: Path, file: FileIO) -> Self:
        identity = Identity.of(os.fstat(file.fileno()))
        try:
            return cls(path, identity, read_header(file, identity.size))
        except AptValueError as problem:
            raise AptValueError(f"{path.name}: {problem}") from problem

    @property
    def steps(self) -> np.ndarray:
        """[n] int64, rising."""
        return self.header.steps

    @property
    def dtype(self) -> str:
        """How token gates are stored: float32 or float16."""
        return self.header.columns["token_gate"].dtype.name

    def read(self, name: str, start: int, target: np.ndarray) -> None:
        """Fills ``target`` [rows, ...] float32 with consecutive rows of one array.

        Raises:
            AptValueError: if the shard is not what it was when it was opened.
            OSError: if the file cannot be read.
        """
        with open_regular(self.path) as file:
            self._as_now(file)._read(file, name, start, target)

    def read_rows(self, rows: np.ndarray, targets: dict[str, np.ndarray], places: np.ndarray) -> None:
        """Puts single rows of several arrays at ``places`` of ``targets``; raises as ``read``."""
        with open_regular(self.path) as file:
            shard = self._as_now(file)
            for name, target in targets.items():
                for row, place in zip(rows, places, strict=True):
                    shard._read(file, name, int(row), target[place : place + 1])

    def first_rows(self, count: int) -> list[bytes | memoryview]:
        """The parts of a shard that holds the first ``count`` rows of this one."""
        columns = {"step": self.steps[:count]}
        for name, column in self.header.columns.items():
            if name != "step":
                array = np.empty((count, *column.shape[1:]), np.float32)
                self.read(name, 0, array)
                columns[name] = array.astype(column.dtype)
        return shard_parts(columns, self.header.prefix_lengths, self.header.record_every, self.header.previous_step)

    def trace(self, wanted: dict[str, np.ndarray], targets: dict[str, np.ndarray], *, sealed: bool) -> None:
        """Fills ``targets[name]`` [n, k] with the values at flat places ``wanted[name]`` [k] of each row; see ``read``.

        A sealed shard is mapped into memory: of 8 MB only the pages that hold the values are touched. One that may
        be replaced is read as a whole, since a network file system may take a mapped file away.
        """
        with open_regular(self.path) as file:
            shard = self._as_now(file)
            is_mapped = sealed or shard.identity.size > MAX_READ_BYTES
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if is_mapped else None
            for name, places in wanted.items():
                column, target = shard.header.columns[name], targets[name]
                size = prod(column.shape[1:])
                if mapped is None:
                    rows = np.empty((len(target), size), np.float32)
                    shard._read(file, name, 0, rows)
                else:
                    rows = np.frombuffer(mapped, column.dtype, len(target) * size, column.offset)
                    rows = rows.reshape(len(target), size)
                target[...] = rows[:, places]
                del rows  # or the mapping could not be closed
            if mapped is not None:
                mapped.close()

    def _read(self, file: FileIO, name: str, start: int, target: np.ndarray) -> None:
        column = self.header.columns[name]
        row_bytes = column.dtype.itemsize * prod(column.shape[1:])
        raw = target if column.dtype == target.dtype else np.empty(target.shape, column.dtype)
        read_into(file, column.offset + start * row_bytes, bytes_of(raw))
        if raw is not target:
            target[...] = raw

    def _as_now(self, file: FileIO) -> Shard:
        """This shard, or the longer one that a live writer has put in its place."""
        if Identity.of(os.fstat(file.fileno())) == self.identity:
            return self
        now = Shard._from_file(self.path, file)
        same = now.header.prefix_lengths == self.header.prefix_lengths
        if not same or not np.array_equal(now.steps[: len(self.steps)], self.steps):
            raise replaced(self.path)
        return now


def replaced(path: Path) -> AptValueError:
    """The error for a shard that went away or became another one after it was listed."""
    return AptValueError(
        f"{path.name}: was removed or replaced while the run was being read, as resuming a run does. Load it again."
    )
