"""``inference.json`` of a run: how well and how fast its model predicts with fewer virtual tokens than it has.

No torch. Written by ``python -m apt_core bench-inference RUN``, read by the dashboard. Every time is of one forward
pass of one batch, and every ratio of two passes over the same batch that were timed in turn. Axes: L layers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from apt_core.errors import AptFileNotFoundError, bad_value
from apt_core.files import write_atomic
from apt_core.json_files import named, read_model

INFERENCE_FILE = "inference.json"
INFERENCE_VERSION = 1
MAX_INFERENCE_BYTES = 4 * 2**20
KINDS = {
    "backbone": "the frozen backbone with the trained head, without prefixes",
    "full": "the run as it is",
    "folded": "the run, its gates multiplied into keys and values",
    "pruned": "the virtual tokens with the largest mean weight, the same for every input, not retrained",
    "switched": "the virtual tokens whose gate for this input reaches a threshold",
    "uniform": "as many virtual tokens as the run, equal in every layer, untrained: for its time only",
    "longer": "more virtual tokens than the run, untrained: for its time only",
}
"""kind of a variant; what it is"""
Kind = Literal["backbone", "full", "folded", "pruned", "switched", "uniform", "longer"]


class Spread(NamedTuple):
    """A median over repetitions and the interval that it is in (95 %, by order statistics, no shape assumed)."""

    median: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat

    def holds(self, value: float) -> bool:
        """Whether the interval contains ``value``: then the difference from it may be noise."""
        return self.low <= value <= self.high


class Quality(BaseModel):
    """What a variant predicts, on the examples that all variants were given."""

    model_config = ConfigDict(extra="ignore")

    metric: FiniteFloat | None
    """the run's metric over all examples; None where it is not defined"""
    loss: FiniteFloat | None
    """mean over examples of the mean cross-entropy of each, nats"""
    loss_difference: FiniteFloat | None = None
    """from the full run, mean over the examples; None for the full run"""
    loss_difference_half: FiniteFloat | None = None
    """half length of its 95 % interval (Student's t over the examples); None where there is none"""

    @property
    def within_noise(self) -> bool:
        """Whether the examples do not tell its loss from the full run's."""
        return (
            self.loss_difference is not None
            and self.loss_difference_half is not None
            and abs(self.loss_difference) <= self.loss_difference_half
        )


class Variant(BaseModel):
    """One way to run the model."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(max_length=200)
    kind: Kind
    prefix_lengths: list[int]
    """[L] virtual tokens it holds"""
    threshold: FiniteFloat | None = None
    """of a switched one"""
    tokens: float = Field(ge=0, allow_inf_nan=False)
    """virtual tokens attended to, over all layers; of a switched one the mean over inputs (or over their positions)"""
    layers: float = Field(ge=0, allow_inf_nan=False)
    """layers with any; of a switched one the mean over inputs"""
    milliseconds: Spread
    """of one forward pass of one batch"""
    against_backbone: Spread
    """ratio of its time to the frozen backbone's"""
    against_full: Spread
    """ratio of its time to the full run's"""
    quality: Quality | None = None
    """None for what is not trained"""


class Inference(BaseModel):
    """All that was measured."""

    model_config = ConfigDict(extra="ignore")

    schema_version: int = INFERENCE_VERSION
    created_at: str = Field("", max_length=100)
    """UTC, ISO 8601"""
    seconds: float = Field(0.0, ge=0, allow_inf_nan=False)
    """spent in all"""
    seed: int = 0
    """which examples were drawn, and the order of each repetition"""
    split: str = Field("validation", max_length=100)
    data_hash: str = Field("", max_length=200)
    adapter_sha256: str = Field("", max_length=200)
    """of adapter_model.safetensors; another one means that the run has changed since"""
    metric_name: str = Field("", max_length=200)
    greater_is_better: bool = True
    prefix_lengths: list[int] = Field(default_factory=list)
    """[L] of the run"""
    num_examples: int = Field(0, ge=0)
    """that quality was measured on"""
    device: str = Field("", max_length=200)
    """cpu, or the GPU's name"""
    num_threads: int = Field(0, ge=0)
    """of torch on the CPU"""
    attention: str = Field("", max_length=100)
    """attention implementation: sdpa, eager, ..."""
    batch_size: int = Field(0, ge=0)
    """examples in each timed pass"""
    batch_shape: list[int] = Field(default_factory=list, max_length=3)
    """sequences (several of an example with choices) and sub-words of the longest timed batch"""
    repetitions: int = Field(0, ge=0)
    variants: list[Variant] = Field(default_factory=list, max_length=500)
    token_cost: Spread | None = None
    """milliseconds that a virtual token adds to a pass, mean over layers"""
    layer_cost: Spread | None = None
    """milliseconds that having a prefix at all adds to a pass, per layer that has one"""
    token_milliseconds: list[FiniteFloat] | None = None
    """[L] of one more virtual token of each layer; None where ``token_cost`` cannot be told from 0"""
    layer_milliseconds: FiniteFloat | None = None
    """of a layer's first virtual token beyond that; 0 where ``layer_cost`` cannot be told from 0"""
    notes: list[str] = Field(default_factory=list, max_length=100)
    """what was left out or cannot be told, a sentence each"""

    @property
    def full(self) -> Variant:
        """The run as it is."""
        return next(variant for variant in self.variants if variant.kind == "full")

    def check(self, prefix_lengths: list[int]) -> None:
        """Refuses what does not fit a run's lengths, or itself.

        Raises:
            AptValueError: naming the field.
        """
        num_layers = len(prefix_lengths)
        if self.prefix_lengths != prefix_lengths:
            raise bad_value("prefix_lengths", self.prefix_lengths, f"those of the run, {prefix_lengths}")
        if [variant.kind for variant in self.variants].count("full") != 1:
            raise bad_value("variants", f"{len(self.variants)} of them", "exactly one of kind 'full' among them")
        for variant in self.variants:
            if len(variant.prefix_lengths) != num_layers or min(variant.prefix_lengths, default=0) < 0:
                raise bad_value(f"variant {variant.name}: prefix_lengths", variant.prefix_lengths, f"{num_layers}")
            for spread in (variant.milliseconds, variant.against_backbone, variant.against_full):
                if not 0 < spread.low <= spread.median <= spread.high:
                    raise bad_value(f"variant {variant.name}", tuple(spread), "median within its interval, over 0")
        if self.token_milliseconds is not None and len(self.token_milliseconds) != num_layers:
            raise bad_value("token_milliseconds", len(self.token_milliseconds), f"{num_layers} numbers")


def write_inference(folder: Path, inference: Inference) -> None:
    """Writes ``inference.json`` of a run in one go, over an earlier one."""
    text = json.dumps(inference.model_dump(mode="json"), indent=1, allow_nan=False)
    write_atomic(folder / INFERENCE_FILE, (text + "\n").encode())


def read_inference(folder: Path, prefix_lengths: list[int]) -> Inference:
    """Reads ``inference.json`` of a run.

    Args:
        folder: of the run.
        prefix_lengths: what ``run.json`` says [L].

    Raises:
        AptFileNotFoundError: if there is none, with the command that makes it.
        AptValueError: if it is a link, damaged, too large, of a newer version, or does not fit the run.
    """
    try:
        inference = read_model(folder / INFERENCE_FILE, Inference, MAX_INFERENCE_BYTES, INFERENCE_VERSION)
    except FileNotFoundError as problem:
        raise AptFileNotFoundError(
            f"{folder}: inference not measured yet. 'python -m apt_core bench-inference {folder}' does it."
        ) from problem
    with named(folder / INFERENCE_FILE, f"'python -m apt_core bench-inference {folder}' writes it anew."):
        inference.check(prefix_lengths)
    return inference
