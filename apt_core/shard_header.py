"""The header of a shard of the gate log: written, and checked before anything larger is read. No torch.

A shard is a safetensors file: eight bytes with the size of a JSON header, the header, the arrays. The same layout is
read by ``safetensors.safe_open``; here it is read without it, because a page maps the arrays into memory by their
place in the file. ``docs/run-format.md`` has the header's fields and the limits.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from io import FileIO
from math import prod
from typing import Any, NamedTuple

import numpy as np

from apt_core.errors import AptValueError
from apt_core.files import read_into

SCHEMA_VERSION = 1
ARRAYS = ("step", "token_gate", "token_gate_std", "layer_scale")
MAX_LAYERS = 10_000
MAX_TOKENS_PER_LAYER = 1024
MAX_ROWS = 65_536
MAX_HEADER_BYTES = 256 * 2**10
_NAMES = {np.dtype("<i8"): "I64", np.dtype("<f4"): "F32", np.dtype("<f2"): "F16", np.dtype("u1"): "U8"}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


class Column(NamedTuple):
    """Where one array lies in its file."""

    dtype: np.dtype
    offset: int
    """bytes from the start of the file"""
    shape: tuple[int, ...]
    """first axis: rows"""


class Header(NamedTuple):
    """What a shard says of itself. n rows."""

    columns: dict[str, Column]
    steps: np.ndarray  # [n] int64, rising
    prefix_lengths: tuple[int, ...]
    record_every: int
    previous_step: int | None
    """last step recorded before this shard; None if the shard does not say"""


def bytes_of(array: np.ndarray) -> memoryview:
    """The memory of a contiguous array, not copied."""
    return memoryview(array.reshape(-1).view(np.uint8))


def shard_parts(
    columns: dict[str, np.ndarray], prefix_lengths: Sequence[int], record_every: int, previous_step: int | None
) -> list[bytes | memoryview]:
    """A shard as the parts of its file: the safetensors header, then the arrays, which are not copied."""
    steps = columns["step"]
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "prefix_lengths": list(prefix_lengths),
        "record_every": record_every,
        "previous_step": previous_step,
        "num_steps": len(steps),
        "last_step": int(steps[-1]),
    }
    header: dict[str, Any] = {
        "__metadata__": {name: json.dumps(value) for name, value in metadata.items() if value is not None}
    }
    end = 0
    for name, array in columns.items():
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": array.shape,
            "data_offsets": [end, end := end + array.nbytes],
        }
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)  # arrays start at a multiple of 8 bytes, as the format asks
    return [struct.pack("<Q", len(content)), content, *(bytes_of(array) for array in columns.values())]


def read_header(file: FileIO, file_size: int) -> Header:
    """Reads and checks the header and the steps of a shard.

    Raises:
        AptValueError: saying what is wrong.
        OSError: if the file cannot be read.
    """
    entries, data_start = read_entries(file, file_size)
    metadata = _checked_metadata(entries.pop("__metadata__", None))
    columns = _checked_columns(entries, data_start, file_size)
    steps = _checked_steps(file, columns["step"], metadata)
    lengths = _checked_lengths(metadata, *columns["token_gate"].shape[1:])
    previous_step = _number(metadata, "previous_step", None)
    if previous_step is not None and previous_step >= steps[0]:
        raise AptValueError(f"starts with step {steps[0]}, but says that {previous_step} was before it.")
    return Header(columns, steps, lengths, _number(metadata, "record_every", 1), previous_step)


def read_entries(file: FileIO, file_size: int) -> tuple[dict[str, Any], int]:
    """The JSON header of any safetensors file and where its data starts, not checked further.

    Raises:
        AptValueError: if there is no header, or one larger than ``MAX_HEADER_BYTES``.
        OSError: if the file cannot be read.
    """
    start = file.read(8)
    size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= size <= min(MAX_HEADER_BYTES, file_size - 8):
        raise AptValueError("cannot be read (no safetensors file, or one that was cut off).")
    content = bytearray(size)
    read_into(file, 8, memoryview(content))
    try:
        header = json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise AptValueError("cannot be read (its header is not JSON).") from problem
    if not isinstance(header, dict):
        raise AptValueError("cannot be read (its header is not an object).")
    return header, 8 + size


def _checked_metadata(metadata: object) -> dict[str, str]:
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        raise AptValueError("its metadata is not an object.")
    version = _number(metadata, "schema_version", SCHEMA_VERSION)
    if version > SCHEMA_VERSION:
        raise AptValueError(
            f"written by a newer version of this program: schema_version: got {version}; accepted: up to "
            f"{SCHEMA_VERSION}. Update this program to read it."
        )
    return metadata


def _number(metadata: dict[str, Any], field: str, default: int | None) -> int | None:
    value = metadata.get(field)
    if value is None:
        return default
    if not isinstance(value, str) or not re.fullmatch(r"\d{1,18}", value, re.ASCII):
        raise AptValueError(f"{field}: got {str(value)[:40]!r}; accepted: a whole number.")
    return int(value)


def _checked_columns(header: dict[str, Any], data_start: int, file_size: int) -> dict[str, Column]:
    missing = set(ARRAYS) - set(header)
    if missing:
        raise AptValueError(f"lacks {', '.join(sorted(missing))}.")
    columns = {
        name: checked_column(name, header[name], ("I64",) if name == "step" else ("F32", "F16"), data_start, file_size)
        for name in ARRAYS
    }
    shapes = {name: column.shape for name, column in columns.items()}
    n, num_layers, num_tokens = shapes["token_gate"] if len(shapes["token_gate"]) == 3 else (0, 0, 0)
    expected = {
        "step": (n,),
        "token_gate": (n, num_layers, num_tokens),
        "token_gate_std": (n, num_layers, num_tokens),
        "layer_scale": (n, num_layers),
    }
    if shapes != expected:
        raise AptValueError(f"shapes {shapes} do not fit step[n], token_gate[n,L,P].")
    limits = ((n, MAX_ROWS, "steps"), (num_layers, MAX_LAYERS, "layers"), (num_tokens, MAX_TOKENS_PER_LAYER, "tokens"))
    for size, limit, what in limits:
        if size > limit:
            raise AptValueError(f"{what}: got {size}; accepted: up to {limit}.")
    return columns


def checked_column(name: str, entry: object, accepted: Sequence[str], data_start: int, file_size: int) -> Column:
    """Where an array lies, from its entry in the header.

    Args:
        name: for the error.
        entry: as in the header; None if there is none.
        accepted: types, as safetensors calls them.
        data_start, file_size: in bytes.

    Raises:
        AptValueError: if the type is another one, or the shape does not fit the place.
    """
    entry = entry if isinstance(entry, dict) else {}
    shape, offsets, dtype = entry.get("shape"), entry.get("data_offsets"), entry.get("dtype")
    if dtype not in accepted:
        raise AptValueError(f"{name} has type {str(dtype)[:40]!r}; accepted: {' or '.join(accepted)}.")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise AptValueError(f"{name} has no readable shape or place in the file.")
    size = prod(shape) * _DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != size or data_start + offsets[1] > file_size:
        raise AptValueError(f"{name}: shape {shape} does not fit its place in a file of {file_size} bytes.")
    return Column(_DTYPES[dtype], data_start + offsets[0], tuple(shape))


def _are_sizes(values: object) -> bool:
    if not isinstance(values, list) or len(values) > 3:
        return False
    return all(type(value) is int and 0 <= value < 2**62 for value in values)


def _checked_steps(file: FileIO, column: Column, metadata: dict[str, str]) -> np.ndarray:
    steps = np.empty(column.shape, column.dtype)
    try:
        read_into(file, column.offset, bytes_of(steps))
    except OSError as problem:
        raise AptValueError(f"cannot be read ({problem}).") from problem
    if steps.size == 0 or steps[0] < 1 or (steps[1:] <= steps[:-1]).any():
        raise AptValueError("steps are missing, repeated or out of order.")
    noted = (_number(metadata, "num_steps", len(steps)), _number(metadata, "last_step", int(steps[-1])))
    if noted != (len(steps), steps[-1]):
        raise AptValueError(
            f"steps are missing: got {len(steps)} up to {steps[-1]}; accepted: {noted[0]} up to {noted[1]}, as written."
        )
    return steps


def _checked_lengths(metadata: dict[str, Any], num_layers: int, num_tokens: int) -> tuple[int, ...]:
    """Virtual tokens per layer."""
    try:
        lengths = json.loads(metadata["prefix_lengths"])
    except (KeyError, TypeError, ValueError, RecursionError) as problem:
        raise AptValueError("its header does not say the prefix lengths.") from problem
    is_list = isinstance(lengths, list) and all(type(length) is int and length >= 0 for length in lengths)
    if not is_list or len(lengths) != num_layers or max(lengths, default=0) != num_tokens:
        raise AptValueError(
            f"prefix_lengths: got {str(lengths)[:80]}; accepted: {num_layers} numbers, {num_tokens} the largest."
        )
    return tuple(lengths)
