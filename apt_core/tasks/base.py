"""What every task is made of: named splits of plain examples, labels, and how a family turns them into tensors.

No torch here. An example is a plain dict; which keys it has depends on the family:

- ``sequence-classification``: ``id``, ``text``, ``text_pair`` (may be absent), ``label`` (int)
- ``token-classification``:    ``id``, ``tokens`` (list of str), ``tags`` (list of str, IOB2)
- ``multiple-choice``:         ``id``, ``context``, ``choices`` (list of str), ``label`` (int)
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
    from transformers import PreTrainedTokenizerBase

Example = dict[str, Any]


@dataclass(frozen=True)
class TaskData:
    """The text and labels of one task.

    Attributes:
        name: the name given to ``--task``.
        family: key into ``apt_core.tasks.FAMILIES``.
        labels: label names; the position is the class index. For token classification the IOB2 tags, ``O`` first.
            Empty for multiple choice.
        splits: ``train`` and ``validation``, and ``test`` where there is one.
        description: one sentence on what is predicted from what.
    """

    name: str
    family: str
    labels: tuple[str, ...]
    splits: Mapping[str, Sequence[Example]]
    description: str = ""

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

    Axes: N examples, T sub-words (padded), C labels or choices.
    """

    name: str
    auto_class: str  # name of the transformers class that carries the head
    metric_name: str  # the number that chooses the best checkpoint; higher is better

    def encode(
        self, task: TaskData, split: str, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> datasets.Dataset:
        """Tokenised, unpadded examples in split order, with a ``length`` column (sub-words) for length grouping."""

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict]], dict]:
        """Pads the examples of one batch to its longest."""

    def predictions(self, task: TaskData, split: str, logits: np.ndarray, label_ids: np.ndarray) -> list:
        """Predicted class index (or choice, or list of tags) per example, in split order."""

    def score(self, task: TaskData, split: str, predicted: list) -> dict[str, float]:
        """Metrics in [0, 1]; contains ``metric_name``."""
