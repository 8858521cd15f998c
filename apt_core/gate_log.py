"""Reads the gates of a run, finished or growing: any step, any range, any token over all steps. No torch.

The log is a folder of shards (``gate_shard``), written by ``gate_writer``. Axes: S recorded steps, L layers, P virtual
tokens of the longest prefix; NaN where a layer has no such token.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from apt_core.errors import AptValueError, bad_value
from apt_core.gate_shard import Identity, Shard, replaced
from apt_core.shard_header import ARRAYS

__all__ = ["ARRAYS", "GateLog", "GateRow", "shard_paths"]

_SHARD_NAME = re.compile(r"gates-(\d{1,18})\.safetensors", re.ASCII)


class GateRow(NamedTuple):
    """The gates of one optimizer step. L layers, P virtual tokens; NaN where a layer has no such token."""

    step: int
    token_gate: np.ndarray  # [L, P] in (0, 1), mean over the batch
    token_gate_std: np.ndarray  # [L, P] >= 0, over the batch
    layer_scale: np.ndarray  # [L]


def shard_paths(folder: Path) -> list[tuple[int, Path]]:
    """(first step, path) of every shard in ``folder``, in order of steps; links are passed over."""
    return [(step, path) for step, path, _ in _listed(folder)]


def _listed(folder: Path) -> list[tuple[int, Path, Identity]]:
    if folder.is_symlink():
        raise AptValueError(f"{folder}: is a link; links in a run folder are not followed.")
    if not folder.is_dir():
        return []
    found = {}  # a name can come twice while its file is replaced
    with os.scandir(folder) as entries:
        for entry in entries:
            match = _SHARD_NAME.fullmatch(entry.name)
            if match and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    found[entry.name] = (int(match.group(1)), Identity.of(os.stat(entry.path, follow_symlinks=False)))
    return sorted((step, folder / name, identity) for name, (step, identity) in found.items())


class GateLog:
    """The gates that a run has recorded so far. It does not change; a newer one is cheap with ``previous``.

    Args:
        folder: the run's ``gates`` folder.
        previous: a log of the same folder; its shards that have not changed since are not checked again.

    Attributes:
        folder: as given.
        steps: [S] int64, the recorded steps, rising.
        num_layers: L.
        num_virtual_tokens: P.
        prefix_lengths: virtual tokens per layer [L].
        shards: the checked files.
        record_every: every how many steps the run is recorded.
        record_dtype: how token gates are stored, float32 or float16; what is read is float32 always.

    Raises:
        AptValueError: naming the shard and what is wrong with it.
    """

    def __init__(self, folder: Path, previous: GateLog | None = None) -> None:
        known = previous.shards if previous is not None and previous.folder == folder else []
        self.folder = folder
        self.shards = _shards(folder, {shard.path.name: shard for shard in known})
        last = self.shards[-1] if self.shards else None
        self.prefix_lengths = last.header.prefix_lengths if last else ()
        self.num_layers = len(self.prefix_lengths)
        self.num_virtual_tokens = max(self.prefix_lengths, default=0)
        self.record_every = last.header.record_every if last else 1
        self.record_dtype = last.dtype if last else "float32"
        self.steps = np.concatenate([np.zeros(0, np.int64), *(shard.steps for shard in self.shards)])
        self._starts = np.cumsum([0, *(len(shard.steps) for shard in self.shards)])  # [shards + 1]

    def __len__(self) -> int:
        return len(self.steps)

    def at(self, step: int) -> GateRow:
        """The gates of one recorded step.

        Raises:
            AptValueError: if that step was not recorded, or its shard is gone.
        """
        index = int(np.searchsorted(self.steps, step))
        if index == len(self) or self.steps[index] != step:
            span = f"{self.steps[0]} to {self.steps[-1]}" if len(self) else "none yet"
            raise AptValueError(f"step: got {step}; accepted: a recorded step, {span}.")
        found = self.rows([index])
        return GateRow(int(step), *(found[name][0] for name in ARRAYS[1:]))

    def rows(self, indices: Sequence[int] | np.ndarray, names: Iterable[str] = ARRAYS[1:]) -> dict[str, np.ndarray]:
        """Exact rows in the order given: ``token_gate`` and ``token_gate_std`` [n, L, P], ``layer_scale`` [n, L].

        Args:
            indices: [n] places in ``steps``, negative ones from the end.
            names: arrays to read.

        Raises:
            AptValueError: on an index outside ``steps``, or if a shard is gone.
        """
        indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        outside = indices[(indices < -len(self)) | (indices >= len(self))]
        if outside.size:
            raise bad_value("index", int(outside[0]), f"a place among the {len(self)} recorded steps")
        indices = np.where(indices < 0, indices + len(self), indices)
        result = self._empty(names, len(indices))
        owner = np.searchsorted(self._starts, indices, side="right") - 1  # [n] shard of each row
        for number in np.unique(owner):
            places = np.flatnonzero(owner == number)
            shard = self.shards[number]
            _ask(shard.path, shard.read_rows, indices[places] - self._starts[number], result, places)
        return result

    def read(self, names: Iterable[str] = ARRAYS[1:], start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """Whole arrays of a range of places in ``steps``, shaped as in ``rows``.

        Raises:
            AptValueError: if a shard is gone.
        """
        start, stop, _ = slice(start, stop).indices(len(self))
        result = self._empty(names, max(0, stop - start))
        for number, shard in enumerate(self.shards):
            first, last = max(start, self._starts[number]), min(stop, self._starts[number + 1])
            for name, array in result.items() if first < last else ():
                target = array[first - start : last - start]
                _ask(shard.path, shard.read, name, int(first - self._starts[number]), target)
        return result

    def trace(
        self, tokens: Sequence[tuple[int, int]], names: Iterable[str] = ("token_gate", "layer_scale")
    ) -> dict[str, np.ndarray]:
        """Chosen tokens over all steps, [S, n] each; ``layer_scale`` is the scale of each token's layer.

        Args:
            tokens: [n] pairs of layer and virtual token, counted from 0.
            names: arrays to read.

        Raises:
            AptValueError: on a token outside [L, P], or if a shard is gone.
        """
        pairs = np.asarray(tokens, dtype=np.int64).reshape(-1, 2)
        for layer, token in pairs:
            if not (0 <= layer < self.num_layers and 0 <= token < self.num_virtual_tokens):
                accepted = f"layers 0 to {self.num_layers - 1}, tokens 0 to {self.num_virtual_tokens - 1}"
                raise bad_value("token", (int(layer), int(token)), accepted)
        flat = pairs[:, 0] * self.num_virtual_tokens + pairs[:, 1]
        wanted = {name: pairs[:, 0] if name == "layer_scale" else flat for name in _known(names)}
        result = {name: np.empty((len(self), len(pairs)), np.float32) for name in wanted}
        for number, shard in enumerate(self.shards if len(pairs) else ()):
            rows = slice(self._starts[number], self._starts[number + 1])
            parts = {name: array[rows] for name, array in result.items()}
            _ask(shard.path, shard.trace, wanted, parts, sealed=number + 1 < len(self.shards))
        return result

    def thinned(self, at_most_bytes: int, names: Iterable[str] = ARRAYS[1:]) -> np.ndarray:
        """Evenly spaced places in ``steps``, first and last among them, whose rows take ``at_most_bytes`` as float32.

        A log of two steps or more gives two places at least, whatever they take.
        """
        row = sum(array.nbytes for array in self._empty(names, 1).values())
        count = min(len(self), max(2, at_most_bytes // max(1, row)))
        return np.unique(np.linspace(0, len(self) - 1, count).round().astype(np.int64)) if count else self.steps[:0]

    def _empty(self, names: Iterable[str], num_rows: int) -> dict[str, np.ndarray]:
        shape = (num_rows, self.num_layers, self.num_virtual_tokens)
        return {name: np.empty(shape[:2] if name == "layer_scale" else shape, np.float32) for name in _known(names)}


def _known(names: Iterable[str]) -> tuple[str, ...]:
    names = tuple(names)
    for name in names:
        if name not in ARRAYS[1:]:
            raise bad_value("names", name, ", ".join(ARRAYS[1:]))
    return names


def _shards(folder: Path, known: dict[str, Shard]) -> list[Shard]:
    """Every shard, checked; where the folder changed during the first look, a second one decides."""
    listed = _listed(folder)
    try:
        return _checked(listed, known)
    except AptValueError:
        again = _listed(folder)
        if again == listed:
            raise
    return _checked(again, known)


def _checked(listed: Iterable[tuple[int, Path, Identity]], known: dict[str, Shard]) -> list[Shard]:
    shards: list[Shard] = []
    for _, path, identity in listed:
        shard = known.get(path.name)
        if shard is None or shard.identity != identity:
            shard = _ask(path, Shard.open, path)
        header, last = shard.header, int(shards[-1].steps[-1]) if shards else 0
        if shards and header.prefix_lengths != shards[-1].header.prefix_lengths:
            raise AptValueError(f"{path.name}: its shape or prefix lengths differ from the shards before it.")
        if header.steps[0] <= last:
            raise AptValueError(f"{path.name}: steps are repeated or out of order: {header.steps[0]} after {last}.")
        if header.previous_step is not None and header.previous_step != last:
            raise AptValueError(
                f"{path.name}: steps are missing before it: got {last or 'none'}; accepted: {header.previous_step}, "
                "the last step that its writer had written."
            )
        shards.append(shard)
    return shards


def _ask(path: Path, read: Callable[..., Shard | None], *arguments: Any, **named: Any) -> Shard | None:
    """Reads from a shard; once more if its file went away, which a file system may show while it is replaced."""
    try:
        return read(*arguments, **named)
    except OSError:
        try:
            return read(*arguments, **named)
        except FileNotFoundError as problem:
            raise replaced(path) from problem
        except OSError as problem:
            raise AptValueError(f"{path.name}: cannot be read ({problem}).") from problem
