"""Writes the gates of a run: the training thread copies a row, a thread of the log's own writes to disk. No torch.

Rows wait in the open tail, a preallocated buffer. The thread writes the tail as a whole, atomically, as soon as
``WRITE_ROWS`` rows wait or one waits ``FLUSH_SECONDS``; a full tail is then never written again (a sealed shard).
``append`` waits for the disk only when more than ``FLUSH_STEPS - 1`` rows would wait, so a slow disk lets neither
memory (two tails) nor what a SIGKILL can take (seven rows) grow.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from apt_core.errors import AptValueError, AptWriteError, bad_value
from apt_core.files import write_atomic
from apt_core.gate_log import GateLog, shard_paths
from apt_core.gate_tail import Tail, check_recording

MAX_SHARD_STEPS = 256
MAX_SHARD_BYTES = 8 * 2**20
FLUSH_STEPS = 8
WRITE_ROWS = FLUSH_STEPS // 2
FLUSH_SECONDS = 2.0


class GateLogWriter:
    """Appends one row per step; at most ``FLUSH_STEPS - 1`` rows or ``FLUSH_SECONDS`` are in memory only.

    For one training thread. What its own thread meets (disk full, folder gone) is raised by the next ``append``; the
    rows stay in memory and are tried again by it, by ``flush`` and by ``close``, which raise if that fails too.

    Args:
        folder: the run's ``gates`` folder; made if missing.
        prefix_lengths: virtual tokens per layer, kept in every shard's header.
        keep_until: on resuming, the last step to keep; later rows are dropped because they are made again.
        record_every: noted in every shard's header: every how many steps a row is meant to come.
        record_dtype: ``float32``, or ``float16`` for the token gates and their spread (layer scales stay float32).

    Raises:
        AptValueError: on settings that cannot be used, or a log of other prefix lengths to go on with.
    """

    def __init__(
        self,
        folder: Path,
        prefix_lengths: Sequence[int],
        keep_until: int | None = None,
        *,
        record_every: int = 1,
        record_dtype: str = "float32",
    ) -> None:
        check_recording(record_every, record_dtype)
        self._folder = folder
        self._shape = (len(prefix_lengths), max(prefix_lengths, default=0))
        self._prefix_lengths = tuple(int(length) for length in prefix_lengths)
        self._record_every = record_every
        self._dtype = record_dtype
        itemsize = np.dtype(record_dtype).itemsize
        row_bytes = itemsize * 2 * self._shape[0] * self._shape[1] + 4 * self._shape[0] + 8
        self._rows_per_shard = max(1, min(MAX_SHARD_STEPS, MAX_SHARD_BYTES // row_bytes))
        self._changed = threading.Condition()  # never held while the disk works
        self._tails: deque[Tail] = deque()  # the last one is open; one before it waits to be sealed
        self._spare: list[Tail] = []
        self._waiting = 0
        self._urgent = self._closed = False
        self._problem: Exception | None = None
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self.last_step = 0
        folder.mkdir(parents=True, exist_ok=True)
        if keep_until is not None:
            self._drop_after(keep_until)

    def append(self, step: int, token_gate: np.ndarray, token_gate_std: np.ndarray, layer_scale: np.ndarray) -> None:
        """Adds the gates of one optimizer step (shapes as in ``GateRow``).

        Raises:
            AptValueError: on a step that is not larger than the last one, or arrays of another shape.
            AptWriteError: if earlier rows could not be written; this row is then not taken.
        """
        if step <= self.last_step:
            raise AptValueError(f"step: got {step}; accepted: a step after {self.last_step}, the last recorded.")
        row = {"token_gate": token_gate, "token_gate_std": token_gate_std, "layer_scale": layer_scale}
        shapes = tuple(np.shape(array) for array in row.values())
        if shapes != (self._shape, self._shape, self._shape[:1]):
            raise AptValueError(f"gates: got shapes {shapes}; accepted: [L, P] = {self._shape} twice, then [L].")
        self._start_thread()
        with self._changed:
            self._wait_until(lambda: self._waiting < FLUSH_STEPS - 1 and self._has_room())
            tail = self._open_tail()
        tail.arrays["step"][tail.count] = step
        for name, array in row.items():
            tail.arrays[name][tail.count] = array
        with self._changed:
            tail.count += 1
            self.last_step = step
            self._waiting += 1
            if self._is_time():
                self._changed.notify_all()

    def flush(self) -> None:
        """Returns when every row is on disk.

        Raises:
            AptWriteError: if a row could not be written.
        """
        if self._pid != os.getpid():
            return  # the rows are those of the process that forked this one
        with self._changed:
            self._problem = None
            self._wait_until(lambda: self._waiting == 0)

    def close(self) -> None:
        """Writes what waits and ends the thread; the log takes no rows afterwards. Raises as ``flush``."""
        try:
            self.flush()
        finally:
            if self._pid == os.getpid():
                with self._changed:
                    self._closed = True
                    self._changed.notify_all()
                if self._thread is not None:
                    self._thread.join()
            atexit.unregister(self.close)

    def _start_thread(self) -> None:
        if self._closed:
            raise AptValueError("gates: the log of this run is closed; accepted: rows before it is finished.")
        if self._pid != os.getpid():
            raise AptValueError(
                "gates: got a row in a forked process; accepted: rows from the process of the training."
            )
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_waiting, name="gate log", daemon=True)
            self._thread.start()
            atexit.register(self.close)  # a program that ends by an error keeps its last rows

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        """Waits for the thread, with ``_changed`` held; raises what it met."""
        while self._problem is None and not ready():
            if not self._thread.is_alive():
                raise AptWriteError(f"{self._folder}: the thread that writes the gates is gone.")
            self._urgent = True
            self._changed.notify_all()
            self._changed.wait(1.0)
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise AptWriteError(f"{self._folder}: gates cannot be written ({problem}).") from problem

    def _has_room(self) -> bool:
        return len(self._tails) < 2 or self._tails[-1].count < self._tails[-1].capacity

    def _open_tail(self) -> Tail:
        if not self._tails or self._tails[-1].count == self._tails[-1].capacity:
            tail = self._spare.pop() if self._spare else Tail(self._rows_per_shard, self._shape, self._dtype)
            tail.reuse(self.last_step)
            self._tails.append(tail)
        return self._tails[-1]

    def _write_waiting(self) -> None:
        """What the thread does until ``close``."""
        while True:
            with self._changed:
                is_time = self._is_time()
                while not (self._closed or (is_time and self._waiting and self._problem is None)):
                    timed_out = not self._changed.wait(FLUSH_SECONDS)
                    is_time = timed_out or self._is_time()
                if self._closed:
                    return
                self._urgent = False
                tail = self._tails[0]
                count = tail.count
            problem = None
            try:
                name, parts = tail.parts(count, self._prefix_lengths, self._record_every)
                write_atomic(self._folder / name, *parts)
            except Exception as raised:  # for the training thread
                problem = raised
            with self._changed:
                self._problem = problem
                if problem is None:
                    self._waiting -= count - tail.written
                    tail.written = count
                    if count == tail.capacity:
                        self._spare.append(self._tails.popleft())
                self._changed.notify_all()

    def _is_time(self) -> bool:
        is_full = bool(self._tails) and self._tails[0].count == self._tails[0].capacity
        return self._urgent or is_full or self._waiting >= WRITE_ROWS

    def _drop_after(self, last_step: int) -> None:
        """Drops rows after ``last_step``, the latest first: what a reader finds meanwhile has no hole."""
        try:
            log = GateLog(self._folder)
        except AptValueError:  # one of later steps may be torn, and must not keep the run from going on
            for step, path in reversed(shard_paths(self._folder)):
                if step > last_step:
                    path.unlink()
            log = GateLog(self._folder)
        if log.shards and log.prefix_lengths != self._prefix_lengths:
            raise bad_value(
                "prefix_lengths", self._prefix_lengths, f"those of the run that goes on, {log.prefix_lengths}"
            )
        for left_over in self._folder.glob("gates-*.safetensors.tmp"):
            left_over.unlink()
        for shard in reversed(log.shards):
            kept = int(np.searchsorted(shard.steps, last_step, side="right"))
            if kept == 0:
                shard.path.unlink()
                continue
            if kept < len(shard.steps):
                write_atomic(shard.path, *shard.first_rows(kept))
            self.last_step = int(shard.steps[kept - 1])
            break
