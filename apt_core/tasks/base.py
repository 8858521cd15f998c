"""What every task is made of: named splits of plain examples, labels, and how a family turns them into tensors.

No torch here. An example is a plain dict; which keys it has depends on the family:

- ``sequence-classification``: ``id``, ``text``, ``text_pair`` (may be absent), ``label`` (int)
- ``token-classification``:    ``id``, ``tokens`` (list of str), ``tags`` (list of str, IOB2)
- ``multiple-choice``:         ``id``, ``context``, ``choices`` (list of str), ``label`` (int)
- ``causal-lm``:               ``id``, ``prompt`` (may be empty: all text is target then), ``target``
- ``seq2seq-lm``:              ``id``, ``prompt``, ``target``
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Example = dict[str, Any]


@dataclass(frozen=True)
class TaskData:
    """The text and labels of one task.

    Attributes:
        name: the name given to ``--task``.
        family: key into ``apt_core.tasks.FAMILIES``.
        labels: label names; the position is the class index. For token classification the IOB2 tags, ``O`` first.
            Empty for multiple choice and language modelling.
        splits: ``train`` and ``validation``, and ``test`` where there is one.
        description: one sentence on what is predicted from what.
        notes: what a person should know about how the data was read, a sentence each; no part of the fingerprint.
    """

    name: str
    family: str
    labels: tuple[str, ...]
    splits: Mapping[str, Sequence[Example]]
    description: str = ""
    notes: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """SHA-256 (hex) over all splits and labels: equal exactly when a model would see the same data."""
        digest = hashlib.sha256()
        digest.update(json.dumps([self.family, self.labels]).encode())
        for split in sorted(self.splits):
            digest.update(split.encode())
            for example in self.splits[split]:
                digest.update(json.dumps(example, sort_keys=True, ensure_ascii=False).encode())
        return digest.hexdigest()


class Family(Protocol):
    """One kind of task: which head, how text becomes tensors, how logits become predictions and a score.

    Axes: N examples, B of them in a batch, T sub-words (padded), C labels or choices, V vocabulary.
    """

    name: str
    auto_class: str  # name of the transformers class that carries the head
    metric_name: str  # the number that chooses the best checkpoint
    greater_is_better: bool  # whether that is the largest

    def encode(
        self, task: TaskData, split: str, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> datasets.Dataset:
        """Tokenised, unpadded examples in split order, with a ``length`` column (sub-words) for length grouping."""

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict]], dict]:
        """Pads the examples of one batch to its longest; ``tokenizer`` must have a padding token."""

    def reduce(self, logits: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """What is kept of a batch for ``losses`` and ``predictions``, on the device, first axis B.

        Classification: the logits, [B, C] or [B, T, C]. Language modelling: float32 [B, T, 2], per label its negative
        log-likelihood and whether it is ranked first, not [B, T, V]. Where a Trainer hands over a tuple of outputs,
        the logits are its first.
        """

    def losses(self, reduced: Tensor, labels: Tensor) -> Tensor:
        """Per example [B] the mean cross-entropy of its labels in nats, from what ``reduce`` kept; NaN without labels.

        A gradient flows through it.
        """

    def predictions(self, task: TaskData, split: str, outputs: np.ndarray, label_ids: np.ndarray) -> list:
        """Per example, in split order, the predicted class index, choice, list of tags, or ``TokenCounts``.

        Args:
            outputs: what ``reduce`` kept of all batches, [N, ...]; padded with anything where ``label_ids`` is -100.
            label_ids: [N] or [N, T].
        """

    def score(self, task: TaskData, split: str, predicted: list) -> dict[str, float]:
        """Metrics in [0, 1], perplexity >= 1; contains ``metric_name``."""

    def mean_loss(self, losses: list[float], predicted: list) -> float:
        """Cross-entropy of a whole split in nats: a mean over examples, or over target sub-words."""

    def row(self, example: Example, predicted: Any) -> dict[str, Any]:
        """What a run keeps of one prediction besides id, loss and gates: names and numbers, no text."""
