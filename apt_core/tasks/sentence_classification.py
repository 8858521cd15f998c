"""One label for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from apt_core.tasks.base import Example, TaskData
from apt_core.tasks.token_losses import first_output


class SentenceClassification:
    """Accuracy and macro F1 over the classes (scikit-learn)."""

    name = "sequence-classification"
    auto_class = "AutoModelForSequenceClassification"
    metric_name = "accuracy"
    greater_is_better = True

    def encode(
        self, task: TaskData, split: str, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> datasets.Dataset:
        examples = task.splits[split]
        pairs = [example.get("text_pair") for example in examples]
        texts = [
            [example["text"] for example in examples],
            *([pairs] if all(pair is not None for pair in pairs) else []),
        ]
        encoded = tokenizer(*texts, truncation=True, max_length=max_length)
        columns = {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}
        columns["labels"] = [example["label"] for example in examples]
        columns["length"] = [len(row) for row in encoded["input_ids"]]
        return datasets.Dataset.from_dict(columns)

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict]], dict]:
        return DataCollatorWithPadding(tokenizer)

    def reduce(self, logits: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return first_output(logits)

    def losses(self, reduced: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(reduced.float(), labels, reduction="none")

    def predictions(self, task: TaskData, split: str, outputs: np.ndarray, label_ids: np.ndarray) -> list[int]:
        return np.argmax(outputs, axis=-1).tolist()

    def score(self, task: TaskData, split: str, predicted: list[int]) -> dict[str, float]:
        gold = [example["label"] for example in task.splits[split]]
        return {
            "accuracy": float(accuracy_score(gold, predicted)),
            "macro_f1": float(f1_score(gold, predicted, average="macro", zero_division=0)),
        }

    def mean_loss(self, losses: list[float], predicted: list[int]) -> float:
        return float(np.mean(losses))

    def row(self, example: Example, predicted: int) -> dict[str, Any]:
        return {"gold": example["label"], "predicted": predicted}
