"""The same examples through a model again and again: encoded and collated once, in batches of similar length.

Axes: N examples, B of them in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from apt_core.evaluate import padded
from apt_core.measure_format import Point
from apt_core.model import AptModel
from apt_core.tasks import family_of
from apt_core.tasks.base import TaskData
from apt_core.tasks.token_losses import IGNORED_LABEL

MOST_PADDING = 1.2
"""times its own length to which an example is padded on a CPU, where a padded sub-word takes as long as a real one"""
LOSS_DIGITS = 6
"""after the point, of a loss as it is kept"""


class Batch(NamedTuple):
    """Some of the examples, padded, on the model's device."""

    indices: list[int]
    """of the examples among the N"""
    inputs: dict[str, Any]
    """of the model; labels only where it makes the decoder's input from them"""
    labels: Tensor


class Outcome(NamedTuple):
    """What a model made of a batch."""

    reduced: Tensor
    """what ``Family.reduce`` keeps, first axis B"""
    losses: Tensor
    """[B] mean cross-entropy of each example, nats; NaN without labels"""


class Passes:
    """N examples of one split, ready to be run.

    Args:
        model: from ``get_apt_model``; the batches go to its device.
        task: their data.
        split: which of its splits.
        indices: which examples of the split (N integers); the metric is that of these alone.
        tokenizer: of the model.
        max_length: sub-words per text; longer ones are cut.
    """

    def __init__(
        self,
        model: AptModel,
        task: TaskData,
        split: str,
        indices: np.ndarray,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
    ) -> None:
        self.family = family_of(task)
        self._model, self._split = model, split
        self._task = replace(task, splits={split: [task.splits[split][index] for index in indices]})
        self._encoded = self.family.encode(self._task, split, tokenizer, max_length)
        self._collate = self.family.collator(tokenizer)

    @property
    def example_ids(self) -> list[str]:
        """[N]"""
        return [str(example["id"]) for example in self._task.splits[self._split]]

    def batches(self, batch_size: int, *, whole: bool = False) -> list[Batch]:
        """All examples, the longest first, at most ``batch_size`` at a time.

        Args:
            whole: as many in every batch but the last; otherwise on a CPU fewer, rather than pad much.
        """
        lengths = np.asarray(self._encoded["length"])
        saves = self._model.device.type == "cpu" and not whole
        groups: list[list[int]] = []
        for index in np.argsort(lengths, kind="stable")[::-1].tolist():
            group = groups[-1] if groups else []
            much = saves and bool(group) and lengths[group[0]] > MOST_PADDING * lengths[index]
            if not group or len(group) == batch_size or much:
                groups.append(group := [])
            group.append(index)
        rows = self._encoded.select_columns([name for name in self._encoded.column_names if name != "length"])
        return [self._batch(rows, group) for group in groups]

    def run(self, batch: Batch) -> Outcome:
        """One forward pass of one batch."""
        reduced = self.family.reduce(self._model(**batch.inputs).logits, batch.labels).float()
        return Outcome(reduced, self.family.losses(reduced, batch.labels))

    def point(self, batches: list[Batch]) -> Point:
        """Loss of each example, and the metric over all, of the model as it is now: one forward pass over all N."""
        with torch.inference_mode():
            return self.point_of(batches, (self.run(batch) for batch in batches))

    def point_of(self, batches: list[Batch], outcomes: Iterator[Outcome]) -> Point:
        """The same from outcomes, one for each batch and in their order."""
        kept: dict[int, tuple[np.ndarray, np.ndarray, float]] = {}
        for batch, outcome in zip(batches, outcomes, strict=True):
            columns = outcome.reduced.detach().cpu().numpy(), batch.labels.cpu().numpy(), outcome.losses.tolist()
            kept |= {index: row for index, *row in zip(batch.indices, *columns, strict=True)}
        reduced, labels, losses = zip(*(kept[index] for index in range(len(kept))), strict=True)
        predicted = self.family.predictions(
            self._task, self._split, padded(list(reduced), 0.0), padded(list(labels), IGNORED_LABEL)
        )
        metric = self.family.score(self._task, self._split, predicted)[self.family.metric_name]
        return Point(
            metric=metric if math.isfinite(metric) else None,
            losses=[None if math.isnan(loss) else round(loss, LOSS_DIGITS) for loss in losses],
        )

    def _batch(self, rows: Any, indices: list[int]) -> Batch:
        tensors = self._collate([rows[index] for index in indices])
        inputs = {name: value.to(self._model.device) for name, value in tensors.items()}
        labels = inputs["labels"]
        if not self._model.config.is_encoder_decoder:
            del inputs["labels"]  # they would make the model compute a loss, in another copy of its logits
        return Batch(indices, inputs, labels)
