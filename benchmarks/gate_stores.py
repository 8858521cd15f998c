"""The same gates in our own run log, TensorBoard event files, zarr and parquet parts, behind one small interface.

The others are used as their documentation says, and where there is a choice, kindly: zarr and parquet may keep 64
steps in memory and write whole chunks (our log keeps seven at most), nothing is compressed where that only costs time.
Axes: S steps, L layers, P virtual tokens.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_ndarray, make_tensor_proto

from apt_core.gate_log import ARRAYS, GateLog
from apt_core.gate_writer import GateLogWriter

ROWS_PER_CHUNK = 64
NAMES = ARRAYS[1:]
Row = tuple[np.ndarray, np.ndarray, np.ndarray]


class Store(Protocol):
    """Writes rows in order, then is opened anew and read."""

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None: ...

    def append(self, step: int, row: Row) -> None: ...

    def close(self) -> None: ...

    def open(self) -> Any:
        """What a reader has to do once."""

    def step(self, opened: Any, step: int) -> np.ndarray:
        """Token gates [L, P] of one step."""

    def trace(self, opened: Any, layer: int, token: int) -> np.ndarray:
        """One token gate over all steps [S]."""


class RunLog:
    """``GateLogWriter`` and ``GateLog``."""

    dtype = "float32"

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        self._folder = folder
        self._writer = GateLogWriter(folder, (shape[1],) * shape[0], record_dtype=self.dtype)

    def append(self, step: int, row: Row) -> None:
        self._writer.append(step, *row)

    def close(self) -> None:
        self._writer.close()

    def open(self) -> GateLog:
        return GateLog(self._folder)

    def step(self, opened: GateLog, step: int) -> np.ndarray:
        return opened.at(step).token_gate

    def trace(self, opened: GateLog, layer: int, token: int) -> np.ndarray:
        return opened.trace([(layer, token)], ["token_gate"])["token_gate"][:, 0]


class RunLogFloat16(RunLog):
    """Our log at half the size."""

    dtype = "float16"


class TensorBoard:
    """Event files with one tensor, as raw bytes, per array and step, written and read by TensorBoard's own classes.

    Most of its time goes into checksums, which it computes in Python where TensorFlow is not installed.
    """

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        self._folder = folder
        self._writer = EventFileWriter(str(folder), flush_secs=2)

    def append(self, step: int, row: Row) -> None:
        summary = Summary()
        for name, array in zip(NAMES, row, strict=True):
            value = summary.value.add(tag=name, tensor=make_tensor_proto(array))
            value.metadata.data_class = DATA_CLASS_TENSOR
            value.metadata.plugin_data.plugin_name = "tensors"
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        self._writer.close()

    def open(self) -> EventAccumulator:
        return EventAccumulator(str(self._folder), size_guidance={TENSORS: 0}).Reload()

    def step(self, opened: EventAccumulator, step: int) -> np.ndarray:
        return make_ndarray(opened.Tensors("token_gate")[step - 1].tensor_proto)

    def trace(self, opened: EventAccumulator, layer: int, token: int) -> np.ndarray:
        events = opened.Tensors("token_gate")
        return np.array([make_ndarray(event.tensor_proto)[layer, token] for event in events], np.float32)


class TensorBoardFastChecksums(TensorBoard):
    """The same with checksums computed in C, about what TensorFlow's reader would give: for fairness."""

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        self._slow, pywrap_tensorflow.crc32c = pywrap_tensorflow.crc32c, google_crc32c.value
        super().__init__(folder, shape)

    def close(self) -> None:
        super().close()
        pywrap_tensorflow.crc32c = self._slow

    def open(self) -> EventAccumulator:
        pywrap_tensorflow.crc32c = google_crc32c.value
        try:
            return super().open()
        finally:
            pywrap_tensorflow.crc32c = self._slow


class _Chunked:
    """Keeps ``ROWS_PER_CHUNK`` rows in memory and hands them on together."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def append(self, step: int, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) == ROWS_PER_CHUNK:
            self.close()

    def close(self) -> None:
        if self._rows:
            self._write(
                {name: np.stack(column) for name, column in zip(NAMES, zip(*self._rows, strict=True), strict=True)}
            )
            self._rows.clear()


class Zarr(_Chunked):
    """One array per name, a chunk per 64 steps, not compressed."""

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        super().__init__()
        self._folder = folder
        group = zarr.create_group(folder)
        self._arrays = {
            name: group.create_array(
                name, shape=(0, *part), chunks=(ROWS_PER_CHUNK, *part), dtype="float32", compressors=None
            )
            for name, part in zip(NAMES, (shape, shape, shape[:1]), strict=True)
        }

    def _write(self, columns: dict[str, np.ndarray]) -> None:
        for name, column in columns.items():
            self._arrays[name].append(column)

    def open(self) -> zarr.Array:
        return zarr.open_group(self._folder, mode="r")["token_gate"]

    def step(self, opened: zarr.Array, step: int) -> np.ndarray:
        return opened[step - 1]

    def trace(self, opened: zarr.Array, layer: int, token: int) -> np.ndarray:
        return opened[:, layer, token]


class Parquet(_Chunked):
    """A part per 64 steps; a row's gates are a list of fixed size, not compressed."""

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        super().__init__()
        folder.mkdir()
        self._folder = folder
        self._shape = shape
        self._parts = 0

    def _write(self, columns: dict[str, np.ndarray]) -> None:
        lists = {
            name: pa.FixedSizeListArray.from_arrays(pa.array(column.reshape(-1)), column[0].size)
            for name, column in columns.items()
        }
        path = self._folder / f"part-{self._parts:06d}.parquet"
        pq.write_table(pa.table(lists), path, compression="none", use_dictionary=False, write_statistics=False)
        self._parts += 1

    def open(self) -> list[Path]:
        return sorted(self._folder.iterdir())

    def step(self, opened: list[Path], step: int) -> np.ndarray:
        part, row = divmod(step - 1, ROWS_PER_CHUNK)
        return self._gates(opened[part])[row].reshape(self._shape)

    def trace(self, opened: list[Path], layer: int, token: int) -> np.ndarray:
        return np.concatenate([self._gates(path)[:, layer * self._shape[1] + token] for path in opened])

    def _gates(self, path: Path) -> np.ndarray:
        """[n, L * P]"""
        column = pq.read_table(path, columns=["token_gate"], use_threads=False)["token_gate"].combine_chunks()
        return column.flatten().to_numpy().reshape(len(column), -1)


STORES: dict[str, type[Store]] = {
    "run log": RunLog,
    "run log float16": RunLogFloat16,
    "TensorBoard": TensorBoard,
    "TensorBoard, checksums in C": TensorBoardFastChecksums,
    "zarr": Zarr,
    "parquet": Parquet,
}
