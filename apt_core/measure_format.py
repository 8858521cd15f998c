"""``measures.json`` of a run: what each virtual token was measured to be worth, and what removing tokens does.

No torch. Written by ``python -m apt_core measure RUN``, read by the dashboard. Everything in it comes from one set
of examples of one split and the adapter that the run kept. Axes: L layers, P virtual tokens of a layer, N examples.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from apt_core.errors import AptFileNotFoundError, bad_value
from apt_core.files import write_atomic
from apt_core.json_files import named, read_model
from apt_core.run_format import ADAPTER_FILE, ADAPTER_FOLDER

MEASURES_FILE = "measures.json"
MEASURES_VERSION = 1
MAX_MEASURES_BYTES = 64 * 2**20
LARGEST = 1e30
"""importance that is read; sums of such numbers stay finite"""
IMPORTANCES = {
    "gate": "gate mass: |layer scale| x mean token gate (the paper's eq. 4)",
    "norm": "gate mass x norm of the value vector",
    "attention": "attention mass the token is given, mean over heads, queries and examples",
    "effect": "first-order effect: |change of the loss by taking the token out|, from gradients, mean over examples",
}
"""importance of a virtual token, each 0 or larger; what a larger number means"""
REVERSED = " reversed"
RANDOM = "random "


class Point(BaseModel):
    """The model with some of its virtual tokens."""

    model_config = ConfigDict(extra="ignore", ser_json_inf_nan="constants")

    metric: float | None
    """of the run's metric over all N examples; None where it is not defined"""
    losses: list[float | None]
    """[N] mean cross-entropy of each example, nats; None for an example without labels"""


class Curve(BaseModel):
    """Virtual tokens taken away in one order, without retraining."""

    model_config = ConfigDict(extra="ignore")

    order: str
    """which tokens go first: a key of ``IMPORTANCES`` (the least important first), that key + ``REVERSED`` (the most
    important first), or ``RANDOM`` + number"""
    kept: list[int]
    """virtual tokens left over all layers, falling; the first is all of them, the last 0"""
    points: list[Point]
    """one for each of ``kept``"""


class Measures(BaseModel):
    """All that was measured."""

    model_config = ConfigDict(extra="ignore")

    schema_version: int = MEASURES_VERSION
    created_at: str = ""
    """UTC, ISO 8601"""
    seconds: float = 0.0
    cost: float = 0.0
    """passes made, in training epochs: one epoch is a forward and a backward pass per training example, counted as 2
    forward passes because frozen weights need no gradient"""
    seed: int = 0
    """which examples were drawn, and the random orders"""
    split: str = "validation"
    data_hash: str = ""
    adapter_sha256: str = ""
    """of adapter_model.safetensors; another one means that the run has changed since"""
    metric_name: str = ""
    greater_is_better: bool = True
    prefix_lengths: list[int] = Field(default_factory=list)
    """[L]"""
    example_ids: list[str] = Field(default_factory=list)
    """[N]"""
    examples_available: int = 0
    """in the split"""
    importance: dict[str, list[list[float]]] = Field(default_factory=dict)
    """key of ``IMPORTANCES`` -> [L][P]"""
    full: Point
    """with all virtual tokens"""
    empty: Point
    """with none"""
    layers: list[Point | None] = Field(default_factory=list)
    """[L] without the tokens of that layer; None where it has none"""
    tokens: list[list[Point]] | None = None
    """[L][P] without that token; None: not measured, it takes a pass for every token"""
    curves: list[Curve] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    """what was left out and how to have it, a sentence each"""

    def check(self, prefix_lengths: list[int]) -> None:
        """Refuses measures that do not fit a run's lengths, or themselves.

        Raises:
            AptValueError: naming the field.
        """
        num_layers, num_examples, total = len(prefix_lengths), len(self.example_ids), sum(prefix_lengths)
        if self.prefix_lengths != prefix_lengths:
            raise bad_value("prefix_lengths", self.prefix_lengths, f"those of the run, {prefix_lengths}")
        for name, importance in self.importance.items():
            if [len(layer) for layer in importance] != prefix_lengths:
                raise bad_value(f"importance {name}", [len(layer) for layer in importance], f"{prefix_lengths} numbers")
            odd = next((value for layer in importance for value in layer if not 0 <= value <= LARGEST), None)
            if odd is not None:
                raise bad_value(f"importance {name}", odd, f"numbers from 0 to {LARGEST:g}")
        if len(self.layers) != num_layers:
            raise bad_value("layers", len(self.layers), f"{num_layers} of them")
        if self.tokens is not None and [len(layer) for layer in self.tokens] != prefix_lengths:
            raise bad_value("tokens", [len(layer) for layer in self.tokens], f"{prefix_lengths} of them")
        for curve in self.curves:
            falling = all(more > fewer for more, fewer in zip(curve.kept, curve.kept[1:], strict=False))
            if len(curve.kept) != len(curve.points) or not falling or curve.kept[:1] != [total] or curve.kept[-1] != 0:
                raise bad_value(f"curve {curve.order}: kept", curve.kept, f"falling from {total} to 0, one per point")
        points = [self.full, self.empty, *filter(None, self.layers)]
        points += [point for layer in self.tokens or () for point in layer]
        points += [point for curve in self.curves for point in curve.points]
        for point in points:
            if len(point.losses) != num_examples:
                raise bad_value("losses", f"{len(point.losses)} numbers", f"{num_examples}, one per example")


def write_measures(folder: Path, measures: Measures) -> None:
    """Writes ``measures.json`` of a run in one go, over an earlier one.

    Args:
        folder: of the run.
        measures: of the adapter in it; where they do not say which one, its hash is taken now.
    """
    adapter = folder / ADAPTER_FOLDER / ADAPTER_FILE
    if not measures.adapter_sha256 and adapter.is_file():
        measures.adapter_sha256 = hashlib.sha256(adapter.read_bytes()).hexdigest()
    text = json.dumps(measures.model_dump(mode="json"), separators=(",", ":"))
    write_atomic(folder / MEASURES_FILE, (text + "\n").encode())


def read_measures(folder: Path, prefix_lengths: list[int]) -> Measures:
    """Reads ``measures.json`` of a run.

    Args:
        folder: of the run.
        prefix_lengths: what ``run.json`` says [L].

    Raises:
        AptFileNotFoundError: if there is none, with the command that makes it.
        AptValueError: if it is a link, damaged, too large, of a newer version, or does not fit the run.
    """
    try:
        measures = read_model(folder / MEASURES_FILE, Measures, MAX_MEASURES_BYTES, MEASURES_VERSION)
    except FileNotFoundError as problem:
        raise AptFileNotFoundError(
            f"{folder}: not measured yet. 'python -m apt_core measure {folder}' does it."
        ) from problem
    with named(folder / MEASURES_FILE, f"'python -m apt_core measure {folder}' writes it anew."):
        measures.check(prefix_lengths)
    return measures
