"""What a run folder holds and how it is written and read: names, schema, status. No torch.

run.json           RunInfo
metrics.jsonl      one line per logging event: step, epoch, loss, learning_rate, eval_..., seconds
gates/             see gate_log
adapter/           adapter_config.json, adapter_model.safetensors
snapshots/         step-<step>.safetensors: what is trained, as it was at an early step
measures.json      see measure_format
predictions.jsonl  one line per validation example: id, gold, predicted, loss, layer_gates[L]
notes.json         what a person keeps about it, see analysis.run_notes; no training reads or writes it
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apt_core.config import MAX_TOKENS_PER_LAYER, describe
from apt_core.errors import AptFileExistsError, AptFileNotFoundError, AptValueError, bad_value
from apt_core.files import read_bounded, write_atomic
from apt_core.processes import is_alive

SCHEMA_VERSION = 1
RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
PREDICTIONS_FILE = "predictions.jsonl"
NOTES_FILE = "notes.json"
GATES_FOLDER = "gates"
ADAPTER_FOLDER = "adapter"
ADAPTER_FILE = "adapter_model.safetensors"
SNAPSHOTS_FOLDER = "snapshots"
CHECKPOINT_FOLDER = "checkpoints"

MAX_RUN_FILE_BYTES = 4 * 2**20
MAX_LINES_BYTES = 64 * 2**20
"""about 300,000 rows of losses, or the predictions for 100,000 examples of a model of 24 layers"""
MAX_WIDTH = 2**20
"""of a hidden state, or of the queries or values of a layer: heads x size"""
HEARTBEAT_SECONDS = 2.0
LOST_AFTER_SECONDS = 120.0
"""a run of another machine without a heartbeat for this long counts as interrupted"""

Status = Literal["running", "finished", "failed", "interrupted"]


class RunInfo(BaseModel):
    """``run.json``: who, what, when. Unknown fields are ignored so that newer writers of version 1 stay readable."""

    model_config = ConfigDict(extra="ignore", ser_json_inf_nan="constants")  # a training that diverged stays readable

    schema_version: int = SCHEMA_VERSION
    status: Status = "running"
    """as last written; a process that died cannot write, so ask ``status_of``"""
    created_at: str = ""
    """UTC, ISO 8601"""
    updated_at: str = ""
    """UTC, ISO 8601; at most ``HEARTBEAT_SECONDS`` old while the process lives"""
    pid: int = 0
    process_started: float = 0.0
    """seconds since the epoch; tells a reused pid from the process that wrote this"""
    host: str = ""
    """hash of the machine's name"""
    command: str = ""
    """the command line that makes this run again"""
    parent: str | None = None
    """folder name of the run whose lengths or prefix this one started from"""
    init: str = "scratch"
    """what prefix, gates and head started from: scratch (random values), warm or rewind:STEP (the parent's), adapter"""
    task: str = ""
    data_dir: str | None = None
    """as the user gave it"""
    data: dict[str, Any] = Field(default_factory=dict)
    """what else the user gave of ``DataSource``: files or Hub name, columns"""
    data_hash: str = ""
    split_sizes: dict[str, int] = Field(default_factory=dict)
    labels: list[str] = Field(default_factory=list)
    metric_name: str = ""
    """the metric that chose the checkpoint in ``adapter/``"""
    model: str = ""
    """name or folder of the backbone as the user gave it"""
    num_layers: int = Field(0, ge=0, le=10_000)
    prefix_lengths: list[int] = Field(default_factory=list)
    """virtual tokens per layer [L]"""
    layer_shapes: list[list[int]] = Field(default_factory=list)
    """per layer [L] key/value heads, key size, value size, hidden size, query heads; empty in older runs"""
    layer_kinds: list[Literal["encoder", "decoder", "cross"]] = Field(default_factory=list)
    """[L] which attention a layer is: of the encoder, of the decoder, of the decoder to the encoder; empty likewise"""
    backbone_dtype: str = Field("", pattern=r"^\w{0,40}$")
    """type of the frozen weights, and so of what attention sees; empty likewise"""
    apt_config: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    num_parameters: dict[str, int] = Field(default_factory=dict)
    """prefix, token_gate, layer_scale, head, frozen"""
    seed: int = 0
    device: str = ""
    num_processes: int = Field(1, ge=1)
    """that trained together; each saw its own batches"""
    record_every: int = Field(1, ge=1)
    """gates are recorded every so many optimizer steps"""
    record_dtype: str = "float32"
    """how token gates are stored: float32 or float16"""
    versions: dict[str, str] = Field(default_factory=dict)
    step: int = 0
    """last optimizer step known to be done"""
    total_steps: int = 0
    seconds: float = 0.0
    """spent training, evaluation between epochs included, interruptions not"""
    best_step: int | None = None
    metrics: dict[str, dict[str, float]] = Field(default_factory=dict)
    """split -> metric -> value of the adapter in ``adapter/``"""
    error: str | None = None

    @property
    def num_trained_parameters(self) -> int:
        """Parameters that received gradients: prefix, gates, scales and head."""
        return sum(count for part, count in self.num_parameters.items() if part != "frozen")

    @property
    def total_tokens(self) -> int:
        """Virtual tokens over all layers."""
        return sum(self.prefix_lengths)


def utc_now() -> str:
    """The time as run folders write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def this_host() -> str:
    """A name for this machine that gives nothing away."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:12]


def read_run_info(folder: Path) -> RunInfo:
    """Reads ``run.json``.

    Raises:
        AptFileNotFoundError: if ``folder`` is not a run folder.
        AptValueError: if the file is a link, damaged, too large or of a newer schema, with the reason.
    """
    path = folder / RUN_FILE
    try:
        content = json.loads(read_bounded(path, MAX_RUN_FILE_BYTES))
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise AptFileNotFoundError(f"{folder}: not a run folder (it has no {RUN_FILE}).") from problem
    except AptValueError:
        raise
    except (ValueError, OSError, RecursionError) as problem:
        raise AptValueError(f"{path}: damaged, not readable as JSON ({problem}).") from problem
    if not isinstance(content, dict):
        raise AptValueError(f"{path}: damaged, holds a {type(content).__name__} instead of an object.")
    version = content.get("schema_version", SCHEMA_VERSION)
    if type(version) is not int:
        raise bad_value(f"{path}: schema_version", version, f"a whole number up to {SCHEMA_VERSION}")
    if version > SCHEMA_VERSION:
        raise AptValueError(
            f"{path}: schema_version: got {version}; accepted: up to {SCHEMA_VERSION}. Update this program to read it."
        )
    try:
        info = RunInfo.model_validate(content)
    except ValidationError as problem:
        raise AptValueError(f"{path}: {describe(problem)}") from problem
    lengths = info.prefix_lengths
    if len(lengths) != info.num_layers or not all(0 <= length <= MAX_TOKENS_PER_LAYER for length in lengths):
        accepted = f"{info.num_layers} numbers from 0 to {MAX_TOKENS_PER_LAYER}"
        raise bad_value(f"{path}: prefix_lengths", lengths, accepted)
    _check_shapes(path, info)
    return info


def _check_shapes(path: Path, info: RunInfo) -> None:
    for shape in info.layer_shapes:
        whole = len(shape) == 5 and min(shape) > 0 and shape[4] % shape[0] == 0
        if not whole or max(shape[3], shape[4] * max(shape[1:3])) > MAX_WIDTH:
            accepted = f"key/value heads, key, value and hidden size, query heads; widths of 1 to {MAX_WIDTH:,}"
            raise bad_value(f"{path}: layer_shapes", shape, accepted)
    given = len(info.layer_shapes)
    if given not in (0, info.num_layers) or len(info.layer_kinds) != given:
        raise bad_value(f"{path}: layer_shapes, layer_kinds", (given, len(info.layer_kinds)), f"{info.num_layers} each")


def status_of(info: RunInfo) -> Status:
    """What is true now: a run that says it is running is interrupted if its process is gone."""
    if info.status != "running":
        return info.status
    if info.host == this_host():
        return "running" if is_alive(info.pid, info.process_started) else "interrupted"
    # a clock that is ahead must not make a dead run live for ever
    return "running" if abs(_age_seconds(info.updated_at)) < LOST_AFTER_SECONDS else "interrupted"


def _age_seconds(time_text: str) -> float:
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(time_text)).total_seconds()
    except (ValueError, TypeError):
        return float("inf")


def read_json_lines(path: Path, at_most_bytes: int = MAX_LINES_BYTES) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file of a run; a last line cut off in the middle of writing is passed over.

    Raises:
        AptValueError: naming the first line that is not a JSON object; if the file is a link, no regular file or
            larger than ``at_most_bytes``.
    """
    try:
        lines = read_bounded(path, at_most_bytes).split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as problem:
        raise AptValueError(f"{path}: cannot be read ({problem}).") from problem
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as problem:
            if number == len(lines):
                break
            raise AptValueError(f"{path}:{number}: damaged, not JSON ({problem}).") from problem
        if not isinstance(row, dict):
            raise AptValueError(f"{path}:{number}: holds a {type(row).__name__} instead of an object.")
        rows.append(row)
    return rows


def write_predictions(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Writes ``predictions.jsonl``, over an earlier one."""
    write_atomic(folder / PREDICTIONS_FILE, "".join(json.dumps(row) + "\n" for row in rows).encode())


def update_finished_run(folder: Path, **fields: Any) -> RunInfo:
    """Changes fields of a finished run's ``run.json``, such as the metrics of a further split.

    Fields that a newer writer of this schema may have added stay as they are.
    """
    info = read_run_info(folder).model_copy(update=fields)
    before = json.loads(read_bounded(folder / RUN_FILE, MAX_RUN_FILE_BYTES))
    content = {**before, **info.model_dump(mode="json")}
    write_atomic(folder / RUN_FILE, (json.dumps(content, indent=1) + "\n").encode())
    return info


def run_exists(folder: Path) -> AptFileExistsError:
    """The error for an output folder that already holds a run."""
    return AptFileExistsError(
        f"out: got {str(folder)!r}, which already holds a run; accepted: a new or empty folder. "
        "Choose another --out, or add --resume to go on with an interrupted run."
    )


def check_new_folder(folder: Path) -> None:
    """Refuses a folder that holds anything.

    Raises:
        AptFileExistsError: if it holds a run.
        AptValueError: if it holds something else, or is a file.
    """
    if (folder / RUN_FILE).exists():
        raise run_exists(folder)
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise bad_value("out", str(folder), f"a folder that can be made; {place} is no folder that can be written to")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise bad_value("out", str(folder), "a folder that is new or empty", "Choose another --out.")


def snapshot_path(folder: Path, step: int) -> Path:
    """Where a run keeps what was trained as it was after ``step``."""
    return folder / SNAPSHOTS_FOLDER / f"step-{step:08d}.safetensors"


def snapshot_steps(folder: Path) -> list[int]:
    """The steps that a run kept, in order; links are passed over."""
    kept = folder / SNAPSHOTS_FOLDER
    return sorted(
        int(path.stem.removeprefix("step-"))
        for path in (() if kept.is_symlink() else kept.glob("step-*.safetensors"))
        if path.stem.removeprefix("step-").isdecimal() and path.is_file() and not path.is_symlink()
    )


def next_run_folder(root: Path, name: str) -> Path:
    """``root/name-1``, or the next number that is free."""
    number = 1
    while (root / f"{name}-{number}").exists():
        number += 1
    return root / f"{name}-{number}"
