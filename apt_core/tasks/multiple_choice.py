"""The best of several continuations of a context."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import datasets
import numpy as np
import torch.nn.functional as F
from sklearn.metrics import accuracy_score
from torch import Tensor
from transformers import DataCollatorForMultipleChoice, PreTrainedTokenizerBase

from apt_core.tasks.base import Example, TaskData
from apt_core.tasks.token_losses import first_output


class MultipleChoice:
    """Accuracy (scikit-learn). Every example has the same number of choices, C."""

    name = "multiple-choice"
    auto_class = "AutoModelForMultipleChoice"
    metric_name = "accuracy"
    greater_is_better = True

    def encode(
        self, task: TaskData, split: str, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> datasets.Dataset:
        examples = task.splits[split]
        num_choices = len(examples[0]["choices"])
        contexts = list(chain.from_iterable([example["context"]] * num_choices for example in examples))
        choices = list(chain.from_iterable(example["choices"] for example in examples))
        encoded = tokenizer(contexts, choices, truncation=True, max_length=max_length)
        columns = {
            name: [encoded[name][start : start + num_choices] for start in range(0, len(choices), num_choices)]
            for name in tokenizer.model_input_names
            if name in encoded
        }
        columns["labels"] = [example["label"] for example in examples]
        columns["length"] = [max(map(len, rows)) for rows in columns["input_ids"]]
        return datasets.Dataset.from_dict(columns)

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict]], dict]:
        return DataCollatorForMultipleChoice(tokenizer)

    def reduce(self, logits: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return first_output(logits)

    def losses(self, reduced: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(reduced.float(), labels, reduction="none")

    def predictions(self, task: TaskData, split: str, outputs: np.ndarray, label_ids: np.ndarray) -> list[int]:
        return np.argmax(outputs, axis=-1).tolist()

    def score(self, task: TaskData, split: str, predicted: list[int]) -> dict[str, float]:
        gold = [example["label"] for example in task.splits[split]]
        return {"accuracy": float(accuracy_score(gold, predicted))}

    def mean_loss(self, losses: list[float], predicted: list[int]) -> float:
        return float(np.mean(losses))

    def row(self, example: Example, predicted: int) -> dict[str, Any]:
        return {"gold": example["label"], "predicted": predicted}
