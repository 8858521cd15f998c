"""Measures how well and how fast a finished run predicts with fewer virtual tokens: quality against latency.

Quality is that of all examples drawn; latency that of a forward pass over batches of them of middle length, because
what is switched off depends on the input. Nothing is trained. Axes: L layers, P virtual tokens of a layer, V variants.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from apt_core.callback import backbone_fields
from apt_core.errors import bad_value
from apt_core.estimates import paired
from apt_core.evaluate_run import load_run_with_data
from apt_core.gate_tally import GateTally
from apt_core.inference_format import Inference, Quality, Variant, write_inference
from apt_core.inference_plan import choose_thresholds, choose_totals, look_at_gates, make_variants
from apt_core.latency import added_cost, interleaved, paired_ratio, spread
from apt_core.measure_format import Point
from apt_core.model import WEIGHTS_FILE, AptModel
from apt_core.passes import Batch, Outcome, Passes
from apt_core.run_format import ADAPTER_FOLDER, update_finished_run, utc_now
from apt_core.tasks.source import DataSource
from apt_core.train import SHORTEST_TEXT
from apt_core.variants import ModelVariant, running

TRAINED = ("backbone", "full", "folded", "pruned", "switched")
"""kinds whose quality is measured"""
GATED_ALIKE = ("backbone", "full", "pruned", "uniform", "longer")
"""kinds from whose times the cost of a virtual token is taken: those with the gates of the run"""
TIMED_BATCHES = 4
"""of different examples, because what is switched off depends on them"""


def bench_inference(
    folder: Path,
    *,
    split: str = "validation",
    thresholds: Sequence[float] | None = None,
    totals: Sequence[int] | None = None,
    batch_size: int | None = None,
    length: int | None = None,
    examples: int = 200,
    seconds: float = 60.0,
    seed: int = 0,
    data: DataSource | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Inference:
    """Measures a run and writes its ``inference.json``; an older run is told the shapes of its layers.

    Args:
        folder: folder of a finished run with at least one virtual token.
        split: a split of the run's task.
        thresholds: token gates under which tokens are switched off, 0 or larger; None: three, from the gates.
        totals: virtual tokens that pruned variants keep, under the run's total; None: 3/4, 1/2 and 1/4 of it.
        batch_size: examples of a timed pass; None: as in training.
        length: sub-words per text; longer ones are cut; None: as in training.
        examples: that quality is measured on, at most; drawn from the split.
        seconds: spent on timing.
        seed: which examples are drawn, and the order of each repetition.
        data: where the data is now, if not where the training found it.
        device: auto, cpu or cuda; None: as in training.
        progress: show bars on stderr.

    Raises:
        AptError: if the run is not finished, has no virtual token or does not name its task, a number is out of
            range, or the data is not to be found.
    """
    for field, value, least in (("batch-size", batch_size, 1), ("length", length, SHORTEST_TEXT)):
        if value is not None and value < least:
            raise bad_value(field, value, f"{least} or more")
    if examples < 1:
        raise bad_value("examples", examples, "1 or more")
    if not seconds >= 0:
        raise bad_value("seconds", seconds, "seconds to spend on timing, such as 60")
    run = load_run_with_data(folder, split, data=data, device=device)
    begin = time.perf_counter()
    model, total, available = run.model.eval(), run.info.total_tokens, len(run.task.splits[split])
    if total == 0:
        raise bad_value("run", str(folder), "a run with virtual tokens; without, there is nothing to leave out")
    drawn = np.sort(np.random.default_rng(seed).permutation(available)[:examples])
    max_length = min(length or run.max_length, run.max_length)
    passes = Passes(model, run.task, split, drawn, run.tokenizer, max_length=max_length)
    batches = passes.batches(2 * run.job.training.batch_size)
    gates = look_at_gates(model, passes, batches)
    variants = make_variants(model, gates, choose_totals(totals, total), choose_thresholds(thresholds, model, gates))
    qualities = measure_quality(model, passes, batches, variants, progress=progress)
    timed = middle_batches(passes.batches(batch_size or run.job.training.batch_size, whole=True))
    times = measure_latency(model, timed, variants, seconds=seconds, seed=seed, progress=progress)
    inference = summarise(model, variants, qualities, times)
    inference = inference.model_copy(
        update={
            "created_at": utc_now(),
            "seconds": round(time.perf_counter() - begin, 3),
            "seed": seed,
            "split": split,
            "data_hash": run.task.fingerprint(),
            "adapter_sha256": hashlib.sha256((folder / ADAPTER_FOLDER / WEIGHTS_FILE).read_bytes()).hexdigest(),
            "metric_name": passes.family.metric_name,
            "greater_is_better": passes.family.greater_is_better,
            "num_examples": len(drawn),
            "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type,
            "num_threads": torch.get_num_threads(),
            "attention": model.config._attn_implementation or "eager",
            "batch_size": len(timed[0].indices),
            "batch_shape": _shape_of(timed[0]),
        }
    )
    inference.notes.extend(_notes(model, inference, available))
    write_inference(folder, inference)
    if not run.info.layer_shapes:
        update_finished_run(folder, **backbone_fields(model))
    return inference


class Attended(NamedTuple):
    """What a variant attends to, over all layers; of a switched one means over inputs, or over their positions."""

    tokens: float
    layers: float


def measure_quality(
    model: AptModel, passes: Passes, batches: list[Batch], variants: Sequence[ModelVariant], *, progress: bool
) -> list[tuple[Point, Attended] | None]:
    """Losses, metric and tokens attended to of each variant [V]; None for those that are not trained."""
    found: list[tuple[Point, Attended] | None] = []
    for variant in tqdm(variants, desc="quality", unit="variant", file=sys.stderr, disable=not progress, leave=False):
        if variant.kind not in TRAINED:
            found.append(None)
            continue
        with running(model, variant), torch.inference_mode():
            seen = _Attention(variant)
            found.append((passes.point_of(batches, _outcomes(model, passes, batches, seen)), seen.attended()))
    return found


def measure_latency(
    model: AptModel,
    batches: list[Batch],
    variants: Sequence[ModelVariant],
    *,
    seconds: float,
    seed: int,
    progress: bool,
) -> np.ndarray:
    """Milliseconds of a forward pass [R, V]; the batches are taken in turn, every variant gets the same."""

    def forward(repetition: int) -> None:
        with torch.inference_mode():
            model(**batches[repetition % len(batches)].inputs)

    setups = [partial(running, model, variant) for variant in variants]
    return interleaved(setups, forward, seconds=seconds, device=model.device, seed=seed, progress=progress)


def middle_batches(batches: list[Batch]) -> list[Batch]:
    """Up to ``TIMED_BATCHES`` of the middle of those as large as the first, which are sorted by length."""
    whole = [batch for batch in batches if len(batch.indices) == len(batches[0].indices)]
    start = max(0, (len(whole) - TIMED_BATCHES) // 2)
    return whole[start : start + TIMED_BATCHES]


def summarise(
    model: AptModel,
    variants: Sequence[ModelVariant],
    qualities: Sequence[tuple[Point, Attended] | None],
    times: np.ndarray,
) -> Inference:
    """Times [R, V] and qualities [V] as they are kept."""
    kinds = [variant.kind for variant in variants]
    backbone, full = kinds.index("backbone"), kinds.index("full")
    rows = []
    for index, (variant, quality) in enumerate(zip(variants, qualities, strict=True)):
        held = Attended(sum(variant.lengths), sum(length > 0 for length in variant.lengths))
        rows.append(
            Variant(
                name=variant.name,
                kind=variant.kind,
                prefix_lengths=variant.lengths,
                threshold=variant.threshold,
                **(held if quality is None else quality[1])._asdict(),
                milliseconds=spread(times[:, index]),
                against_backbone=paired_ratio(times, index, backbone),
                against_full=paired_ratio(times, index, full),
                quality=None if quality is None else _quality(quality[0], qualities[full][0], variant.kind),
            )
        )
    work = np.array([shape.num_query_heads * (shape.key_size + shape.value_size) for shape in model._apt_shapes])
    weight = work / work.mean()  # [L]
    alike = [index for index, kind in enumerate(kinds) if kind in GATED_ALIKE]
    lengths = np.array([variants[index].lengths for index in alike])
    cost = added_cost(times[:, alike], lengths @ weight, (lengths > 0).sum(axis=1))
    inference = Inference(prefix_lengths=variants[full].lengths, repetitions=len(times), variants=rows)
    if cost is None:
        return inference
    token, layer = cost
    clear = token.low > 0
    return inference.model_copy(
        update={
            "token_cost": token,
            "layer_cost": layer,
            "token_milliseconds": (token.median * weight).tolist() if clear else None,
            "layer_milliseconds": (layer.median if layer.low > 0 else 0.0) if clear else None,
        }
    )


class _Attention:
    """Counts what a variant attends to, batch by batch."""

    def __init__(self, variant: ModelVariant) -> None:
        self._variant = variant
        self._rows = np.zeros(len(variant.lengths))
        self._tokens = np.zeros(len(variant.lengths))
        self._layers = np.zeros(len(variant.lengths))

    def add(self, gates: list[Tensor | None]) -> None:
        """Per layer [rows, P], or None."""
        for layer, gate in enumerate(gates):
            if gate is not None and self._variant.threshold is not None:
                kept = gate >= self._variant.threshold
                self._rows[layer] += len(kept)
                self._tokens[layer] += kept.sum().item()
                self._layers[layer] += kept.any(dim=1).sum().item()

    def attended(self) -> Attended:
        """Means over the rows seen."""
        if self._variant.threshold is None:
            lengths = self._variant.lengths
            return Attended(sum(lengths), sum(length > 0 for length in lengths))
        rows = np.maximum(self._rows, 1)
        return Attended(float((self._tokens / rows).sum()), float((self._layers / rows).sum()))


def _outcomes(model: AptModel, passes: Passes, batches: list[Batch], seen: _Attention) -> Iterator[Outcome]:
    with GateTally(model, training=False) as tally:
        for batch in batches:
            outcome = passes.run(batch)
            seen.add(tally.take())
            yield outcome


def _quality(point: Point, full: Point, kind: str) -> Quality:
    known = [loss for loss in point.losses if loss is not None]
    difference = None if kind == "full" else paired(point.losses, full.losses)
    return Quality(
        metric=point.metric,
        loss=float(np.mean(known)) if known else None,
        loss_difference=None if difference is None else difference.mean,
        loss_difference_half=None if difference is None else difference.half,
    )


def _shape_of(batch: Batch) -> list[int]:
    """Sequences and sub-words of a batch; several sequences of an example with choices."""
    *sequences, length = batch.inputs["input_ids"].shape
    return [int(np.prod(sequences)), length]


def _notes(model: AptModel, inference: Inference, available: int) -> list[str]:
    notes = [
        "One forward pass without generation; pruned variants were not retrained; retrained ones are usually better."
    ]
    if inference.num_examples < available:
        notes.append(f"{inference.num_examples} of {available} examples were drawn; --examples takes more.")
    gate = model.apt_config.token_gate
    if gate == "none":
        notes.append("Without token gates there is nothing to switch by.")
    elif gate == "static":
        notes.append("Static gates are the same for every input, so switching by them is pruning.")
    elif inference.batch_size > 1:
        notes.append(
            "Switching cuts out what no sequence of a batch keeps and masks the rest; a batch of 1 has all the saving."
        )
    if gate == "hidden":
        notes.append("Hidden gates depend on the input and cannot be folded into the prefix.")
    if inference.token_milliseconds is None:
        notes.append("What a virtual token adds cannot be told from 0; more --seconds, or a longer --length, may.")
    return notes
