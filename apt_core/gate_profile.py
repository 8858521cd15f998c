"""One number per layer from a model's gates: as a run recorded them, or as the model holds them.

Axes: L layers, P virtual tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from apt_core.gate_log import GateLog
from apt_core.run_format import GATES_FOLDER, RunInfo

if TYPE_CHECKING:
    from apt_core.model import AptModel

BAR_CELLS = 16
_EIGHTHS = " ▏▎▍▌▋▊▉"


class GateProfile(NamedTuple):
    """Gates by layer; NaN where a layer has no prefix or, of a hidden gate that was not recorded, no known value."""

    layers: list[str]
    """names of the layers [L]"""
    token_gate: np.ndarray  # [L] in (0, 1), mean over the virtual tokens; 1 without token gates
    layer_scale: np.ndarray  # [L] >= 0, absolute value; 1 without layer scale
    source: str
    """where the numbers are from"""
    has_gates: bool

    @property
    def weight(self) -> np.ndarray:
        """What a layer's prefix is multiplied by, on average [L]."""
        return self.token_gate * self.layer_scale

    def columns(self) -> list[tuple[str, list[str]]]:
        """Names and cells of a table: the numbers and a bar; no columns without gates."""
        if not self.has_gates:
            return []
        values = {"mean token gate": self.token_gate, "abs(layer scale)": self.layer_scale, "weight": self.weight}
        return [
            *((name, ["" if np.isnan(cell) else f"{cell:.3f}" for cell in column]) for name, column in values.items()),
            ("", bars(self.weight)),
        ]


def gate_profile(model: AptModel, run: Path | None, info: RunInfo | None) -> GateProfile:
    """The gates of ``model``: recorded up to the run's best step; without a run, its own static ones."""
    config = model.apt_config
    has_gates = config.token_gate != "none" or config.layer_scale
    layers = layer_names(model._apt_kinds)
    log = GateLog(run / GATES_FOLDER) if run is not None else None
    if log is not None and len(log) and log.num_layers == len(layers):
        until = info.best_step if info is not None and info.best_step else log.steps[-1]
        step = int(log.steps[max(0, np.searchsorted(log.steps, until, side="right") - 1)])
        row = log.at(step)
        gates = [layer[~np.isnan(layer)] for layer in row.token_gate]
        means = np.array([gate.mean() if gate.size else np.nan for gate in gates])
        return GateProfile(layers, means, np.abs(row.layer_scale), f"as recorded in training at step {step}", has_gates)
    means = np.full(len(layers), np.nan)
    scales = np.full(len(layers), np.nan)
    for layer, prefix in enumerate(model.prefixes):
        if prefix is None:
            continue
        scales[layer] = 1 if prefix.layer_scale is None else prefix.layer_scale.weight.detach().abs().item()
        if config.token_gate == "none":
            means[layer] = 1
        elif config.token_gate == "static":
            means[layer] = prefix.token_gate.weight.detach().float().sigmoid().mean().item()
    source = "as the model holds them"
    if config.token_gate == "hidden":
        source += "; its token gates depend on the input, and no training was recorded with them"
    return GateProfile(layers, means, scales, source, has_gates)


def layer_names(kinds: tuple[str, ...]) -> list[str]:
    """Numbers from 1 in the order of the backbone, with the kind of attention where there are several."""
    numbers = [kinds[: index + 1].count(kind) for index, kind in enumerate(kinds)]
    several = len(set(kinds)) > 1
    return [f"{kind} {number}" if several else str(number) for kind, number in zip(kinds, numbers, strict=True)]


def bars(values: np.ndarray) -> list[str]:
    """A bar of block characters per value, the largest ``BAR_CELLS`` long; empty for NaN."""
    known = values[np.isfinite(values)]
    highest = known.max() if known.size and known.max() > 0 else 1
    texts = []
    for value in values:
        eighths = round(float(8 * BAR_CELLS * value / highest)) if np.isfinite(value) else 0
        texts.append(("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).strip())
    return texts
