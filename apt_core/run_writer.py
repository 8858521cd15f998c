"""Writes one run folder while it grows: gates, metrics, heartbeat, status. No torch."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import psutil

from apt_core.errors import AptWriteError
from apt_core.files import write_atomic
from apt_core.gate_writer import GateLogWriter
from apt_core.run_format import (
    GATES_FOLDER,
    HEARTBEAT_SECONDS,
    METRICS_FILE,
    RUN_FILE,
    RunInfo,
    read_json_lines,
    run_exists,
    this_host,
    utc_now,
    write_predictions,
)
from apt_core.secrets import redact

_WRITERS: WeakValueDictionary[Path, RunWriter] = WeakValueDictionary()
"""what writes a folder in this process, or did: a training that ended by an exception may have left its heartbeat"""


class RunWriter:
    """Writes one run folder; a thread of its own keeps the heartbeat, that of ``GateLogWriter`` writes gates.

    Args:
        folder: the run folder; made if missing.
        info: what is known at the start.
        resume_step: None for a new run; otherwise the step of the checkpoint that training goes on from. Gates and
            metrics after it are dropped, because they are made again.

    Raises:
        AptFileExistsError: if a new run is asked for where one is already.
        AptValueError: if gates cannot be recorded as ``info`` says.
    """

    def __init__(self, folder: Path, info: RunInfo, resume_step: int | None = None) -> None:
        if resume_step is None and (folder / RUN_FILE).exists():
            raise run_exists(folder)
        folder.mkdir(parents=True, exist_ok=True)
        earlier = _WRITERS.get(folder.resolve())
        if earlier is not None:
            earlier.abandon()
        process = psutil.Process()
        self.folder = folder
        self.info = info.model_copy(
            update={
                "created_at": info.created_at or utc_now(),
                "pid": process.pid,
                "process_started": process.create_time(),
                "host": this_host(),
                "status": "running",
                "error": None,
            }
        )
        self._run_file = threading.Lock()  # held while run.json is written, so append_gates must not need it
        self._metrics_file = threading.Lock()
        self._stopped = threading.Event()
        self._gates = GateLogWriter(
            folder / GATES_FOLDER,
            self.info.prefix_lengths,
            resume_step,
            record_every=self.info.record_every,
            record_dtype=self.info.record_dtype,
        )
        if resume_step is not None:
            self._drop_metrics_after(resume_step)
        self._write_info()
        self._heart = threading.Thread(target=self._beat, name="run heartbeat", daemon=True)
        self._heart.start()
        _WRITERS[folder.resolve()] = self

    def append_gates(self, step: int, token_gate: Any, token_gate_std: Any, layer_scale: Any) -> None:
        """Adds the gates of one optimizer step; see ``GateLogWriter.append``."""
        self._gates.append(step, token_gate, token_gate_std, layer_scale)
        self.info.step = step

    def flush_gates(self) -> None:
        """Returns when the gates of every step are on disk; see ``GateLogWriter.flush``."""
        self._gates.flush()

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Adds one line to ``metrics.jsonl``."""
        with self._metrics_file, (self.folder / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def write_predictions(self, rows: list[dict[str, Any]]) -> None:
        """Writes ``predictions.jsonl``."""
        write_predictions(self.folder, rows)

    def update(self, **fields: Any) -> None:
        """Changes fields of ``run.json`` and writes it."""
        with self._run_file:
            self.info = self.info.model_copy(update=fields)
            self._write_info()

    def finish(self, **fields: Any) -> None:
        """Writes everything that waits and marks the run finished."""
        self._close(status="finished", **fields)

    def fail(self, error: str) -> None:
        """Writes everything that waits and marks the run failed, with one line saying why, without secrets in it."""
        self._close(status="failed", error=redact(error))

    def interrupt(self) -> None:
        """Writes everything that waits and marks the run interrupted: it can be resumed."""
        self._close(status="interrupted")

    def abandon(self) -> None:
        """Stops writing, without a word on how the run went: somebody else goes on with it."""
        self._stopped.set()
        self._heart.join()
        with contextlib.suppress(AptWriteError):
            self._gates.close()

    def _close(self, **fields: Any) -> None:
        self._stopped.set()
        self._heart.join()
        try:
            self._gates.close()
        except Exception as problem:
            if fields["status"] == "finished":  # it lacks its last gates, and can be resumed from its last checkpoint
                fields |= {"status": "failed", "error": redact(str(problem))}
            self.update(**fields)
            raise
        self.update(**fields)

    def _beat(self) -> None:
        while not self._stopped.wait(HEARTBEAT_SECONDS):
            with self._run_file, contextlib.suppress(OSError):  # the disk may take the next one
                self._write_info()

    def _write_info(self) -> None:
        self.info.updated_at = utc_now()
        write_atomic(self.folder / RUN_FILE, (self.info.model_dump_json(indent=1) + "\n").encode())

    def _drop_metrics_after(self, step: int) -> None:
        rows = read_json_lines(self.folder / METRICS_FILE, at_most_bytes=2**31)
        kept = "".join(json.dumps(row) + "\n" for row in rows if row.get("step", 0) <= step)
        write_atomic(self.folder / METRICS_FILE, kept.encode())
