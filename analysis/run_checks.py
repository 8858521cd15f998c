"""What a run folder of unknown origin must be like before anything of it is shown: plain files, plausible values."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from apt_core.config import MAX_TOKENS_PER_LAYER
from apt_core.errors import bad_value
from apt_core.inference_format import INFERENCE_FILE
from apt_core.measure_format import MEASURES_FILE
from apt_core.run_format import (
    GATES_FOLDER,
    METRICS_FILE,
    NOTES_FILE,
    PREDICTIONS_FILE,
    RUN_FILE,
    SNAPSHOTS_FOLDER,
    RunInfo,
)

FILES = (RUN_FILE, METRICS_FILE, PREDICTIONS_FILE, NOTES_FILE, MEASURES_FILE, INFERENCE_FILE)
FOLDERS = (GATES_FOLDER, SNAPSHOTS_FOLDER)
MAX_NAME = 1_000
"""characters of a task, a model and the like"""
MAX_TEXT = 20_000
"""characters of a command or an error"""
MAX_FOLDER_BYTES = 200
"""of a run's own name; those of runs made from it are longer"""
MARKUP = frozenset("<>[]{}$:*`|\\!")
"""what no metric's name needs, and what figures or labels could take for formatting"""
_LISTED = " ".join(sorted(MARKUP))
MAX_DEPTH = 8
"""of settings within settings"""
LARGEST_COUNT = 2**53
FIRST_YEAR, LAST_YEAR = 1970, 2200
LONG_TEXTS = ("command", "error")
COUNTS = ("pid", "step", "total_steps", "seconds", "process_started", "best_step", "seed")


def part_problem(folder: Path) -> str | None:
    """Why the parts of ``folder`` cannot be those of a run; None if they can. Nothing is opened.

    Raises:
        OSError: if the folder cannot be listed.
    """
    if not _is_text(folder.name):
        return "its name is not valid UTF-8"
    if len(folder.name.encode()) > MAX_FOLDER_BYTES:
        return f"its name has {len(folder.name.encode())} bytes; accepted: up to {MAX_FOLDER_BYTES}"
    parts = {entry.name: entry for entry in os.scandir(folder)}
    for name in (*FILES, *FOLDERS):
        entry = parts.get(name)
        if entry is None:
            continue
        if entry.is_symlink():
            return f"{name} is a link; links out of a run are not followed"
        if not (entry.is_file() if name in FILES else entry.is_dir()):
            return f"{name} is not a {'file' if name in FILES else 'folder'}"
    return None if RUN_FILE in parts else f"it has no {RUN_FILE}"


def implausible(info: RunInfo) -> str | None:
    """What no training writes, as ``field: got ...; accepted: ...``; None if there is no such thing."""
    for field, value in info:
        if isinstance(value, str) and len(value) > (MAX_TEXT if field in LONG_TEXTS else MAX_NAME):
            return f"{field}: {len(value)} characters; accepted: up to {MAX_TEXT if field in LONG_TEXTS else MAX_NAME}"
        problem = unusable(value)
        if problem:
            return f"{field}: {problem}"
    if MARKUP & set(info.metric_name) or not info.metric_name.isprintable():
        return f"metric_name: got {info.metric_name[:60]!r}; accepted: printable characters other than {_LISTED}"
    for field in COUNTS:
        value = getattr(info, field)
        if value is not None and not 0 <= value <= LARGEST_COUNT:
            return f"{field}: got {value:.6g}; accepted: 0 or more"
    counts = {**info.num_parameters, **info.split_sizes}
    for part, count in counts.items():
        if not 0 <= count <= LARGEST_COUNT:
            return f"number of {part}: got {count:.6g}; accepted: 0 or more"
    if any(length > MAX_TOKENS_PER_LAYER for length in info.prefix_lengths):
        return f"prefix_lengths: got {max(info.prefix_lengths)}; accepted: up to {MAX_TOKENS_PER_LAYER} in a layer"
    return _odd_times(info) or _odd_settings(info)


def check_lengths(info: RunInfo, recorded: Sequence[int]) -> None:
    """Refuses gates of another number of layers or virtual tokens than ``run.json`` says.

    Args:
        info: what ``run.json`` says.
        recorded: virtual tokens per layer [L], as the gate log has them; empty while nothing is recorded.

    Raises:
        AptValueError: with both.
    """
    if recorded and list(recorded) != info.prefix_lengths:
        raise bad_value(
            "prefix_lengths",
            info.prefix_lengths,
            f"those of the recorded gates, {list(recorded)}"[:200],
            "run.json and the gates are not of the same run.",
        )


def time_of(text: str) -> datetime | None:
    """A moment in UTC from ISO 8601; None where there is none within ``FIRST_YEAR`` to ``LAST_YEAR``."""
    try:
        moment = datetime.fromisoformat(text)
        moment = (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment if FIRST_YEAR <= moment.year < LAST_YEAR else None


def _odd_times(info: RunInfo) -> str | None:
    for field in ("created_at", "updated_at"):
        text = getattr(info, field)
        if text and time_of(text) is None:
            return f"{field}: got {text[:60]!r}; accepted: a time in ISO 8601 from {FIRST_YEAR} to {LAST_YEAR}"
    heartbeat = time_of(info.updated_at)
    if info.status == "running" and heartbeat and heartbeat > datetime.now(UTC) + timedelta(days=1):
        return f"updated_at: got {info.updated_at!r}; accepted: a time that is past. A heartbeat cannot be to come"
    return None


def _odd_settings(info: RunInfo) -> str | None:
    """Settings that pages calculate with, where they are not of their type."""
    gate, scale = info.apt_config.get("token_gate", "hidden"), info.apt_config.get("layer_scale", True)
    if not isinstance(gate, str):
        return f"apt_config.token_gate: got a {type(gate).__name__}; accepted: hidden, static or none"
    if not isinstance(scale, bool):
        return f"apt_config.layer_scale: got a {type(scale).__name__}; accepted: true or false"
    for name, least in (("epochs", 1), ("seed", 0)):
        value = info.training.get(name, least)
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= LARGEST_COUNT:
            return f"training.{name}: got {str(value)[:60]!r}; accepted: a number, {least} or larger"
    return None


def unusable(value: Any, depth: int = 0) -> str | None:
    """Why a value cannot be shown: too deep, no text that UTF-8 can hold, a count beyond any machine."""
    if depth > MAX_DEPTH:
        return f"nested more than {MAX_DEPTH} deep"
    if isinstance(value, str):
        return None if _is_text(value) else "holds text that is not valid UTF-8"
    if isinstance(value, int):
        return None if abs(value) <= LARGEST_COUNT else "holds a number beyond 2^53"
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        return next((problem for item in value if (problem := unusable(item, depth + 1))), None)
    return None


def _is_text(text: str) -> bool:
    return text.isascii() or not any(0xD800 <= ord(letter) < 0xE000 for letter in text)


def is_finite_number(value: object) -> bool:
    """Whether a value out of a JSON file is a number that can be drawn."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= LARGEST_COUNT
    return isinstance(value, float) and math.isfinite(value)
