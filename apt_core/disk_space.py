"""Before a training: whether its folder can be written to, and whether what it writes fits on the disk. No torch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from apt_core.config import TrainSettings
from apt_core.errors import AptValueError, bad_value
from apt_core.sizes import in_words
from apt_core.tasks.base import TaskData

_TRIED_BYTES = 64 * 2**10
"""written and deleted again: a full disk takes a file's name, but not its content"""
_CHECKPOINTS = 3
"""at once: the last, the best, and the one that is being written"""
_OPTIMIZER_COPIES = 2
"""of what is trained: Adam's moments"""
_CHECKPOINT_EXTRA_BYTES = 100_000
_SHARD_BYTES, _SHARD_STEPS, _SHARD_HEADER_BYTES = 8 * 2**20, 256, 1024
_PREDICTION_BYTES, _LAYER_BYTES, _WORD_BYTES = 200, 12, 24
"""of an example, of a layer's gate in it, and of a word's gold and predicted tag"""
_OTHER_BYTES = 2 * 10**6
"""run.json, metrics.jsonl, measures.json"""
_FLAGS = {
    "gates": "--record-every or --record-dtype float16",
    "checkpoints": "fewer virtual tokens (--num-virtual-tokens, --prefix-lengths)",
    "snapshots": "fewer --snapshot-steps",
    "predictions": "a smaller validation split",
}


class RunSize(NamedTuple):
    """Bytes that a training writes into its run folder, at their most."""

    gates: int
    checkpoints: int
    """and the adapter, and what they are gone over for"""
    snapshots: int
    predictions: int

    @property
    def total(self) -> int:
        return sum(self) + _OTHER_BYTES

    @property
    def largest(self) -> str:
        """The name of the part that takes most."""
        return max(self._asdict().items(), key=lambda part: part[1])[0]


def run_size(
    settings: TrainSettings,
    task: TaskData,
    prefix_lengths: Sequence[int],
    total_steps: int,
    num_parameters: Mapping[str, int],
) -> RunSize:
    """Estimates what a training writes.

    Args:
        settings: of the training.
        task: its data.
        prefix_lengths: virtual tokens per layer.
        total_steps: optimizer steps.
        num_parameters: by part, see ``AptModel.count_parameters``; what is trained is float32.
    """
    num_layers = len(prefix_lengths)
    number = 2 if settings.record_dtype == "float16" else 4
    row = 2 * number * num_layers * max(prefix_lengths, default=0) + 4 * num_layers + 8
    rows = -(-total_steps // settings.record_every)
    shards = rows // max(1, min(_SHARD_STEPS, _SHARD_BYTES // row)) + 1
    adapter = 4 * (sum(num_parameters.values()) - num_parameters["frozen"])
    examples = task.splits["validation"]
    words = sum(len(example.get("tokens", ())) for example in examples)
    return RunSize(
        gates=rows * row + shards * _SHARD_HEADER_BYTES + min(rows * row, _SHARD_BYTES),  # the open shard is replaced
        checkpoints=_CHECKPOINTS * ((1 + _OPTIMIZER_COPIES) * adapter + _CHECKPOINT_EXTRA_BYTES) + adapter,
        snapshots=(1 + len(settings.snapshot_steps or (1,))) * adapter,
        predictions=len(examples) * (_PREDICTION_BYTES + _LAYER_BYTES * num_layers) + _WORD_BYTES * words,
    )


def check_writable(out: Path) -> None:
    """Tries to write where the run folder is or will be: permissions alone do not tell, of root least of all.

    Raises:
        AptValueError: with the system's reason.
    """
    place = existing_part(out)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(_TRIED_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        raise bad_value(
            "out", str(out), f"a folder that can be written to; {place} cannot be: {problem.strerror}"
        ) from problem


def disk_shortage(out: Path, size: RunSize) -> AptValueError | None:
    """The error for a run that its disk has no room for, or None; what the folder holds already is part of it."""
    needed = size.total - _bytes_in(out)
    free = shutil.disk_usage(existing_part(out)).free
    if needed <= free:
        return None
    part = size.largest
    return AptValueError(
        f"out: got {str(out)!r}, on a disk with {in_words(free)} free; accepted: a folder on one with "
        f"{in_words(needed)}, of which {part} take {in_words(getattr(size, part))}. "
        f"Free some, choose another --out, or need less: {_FLAGS[part]}."
    )


def existing_part(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def remove_empty_folders(folder: Path, above: Path) -> None:
    """Removes ``folder`` and what is above it, up to but without ``above``, as far as they are empty."""
    for place in (folder.absolute(), *folder.absolute().parents):
        if place == above.absolute():
            return
        try:
            place.rmdir()
        except OSError:
            return


def _bytes_in(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
