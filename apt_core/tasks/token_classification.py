"""A tag for every word: the first sub-word of a word carries its label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
from nervaluate import Evaluator
from torch import Tensor
from transformers import DataCollatorForTokenClassification, PreTrainedTokenizerBase

from apt_core.tasks.base import Example, TaskData
from apt_core.tasks.tags import well_formed
from apt_core.tasks.token_losses import IGNORED_LABEL, first_output, mean_losses, token_losses


class TokenClassification:
    """Strict entity F1: a predicted entity counts if type and both ends are right (nervaluate's ``strict``, which on
    well-formed IOB2 equals seqeval's strict mode).

    Words that do not fit into ``max_length`` sub-words count as predicted ``O``.
    """

    name = "token-classification"
    auto_class = "AutoModelForTokenClassification"
    metric_name = "entity_f1"
    greater_is_better = True

    def encode(
        self, task: TaskData, split: str, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> datasets.Dataset:
        examples = task.splits[split]
        index = {label: position for position, label in enumerate(task.labels)}
        visible = _visible_words({token for example in examples for token in example["tokens"]}, tokenizer)
        encoded = tokenizer(
            [[visible[token] for token in example["tokens"]] for example in examples],
            is_split_into_words=True,
            truncation=True,
            max_length=max_length,
        )
        columns = {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}
        columns["labels"] = []
        for row, example in enumerate(examples):
            words = encoded.word_ids(row)
            first = [word is not None and word != before for word, before in zip(words, [None, *words], strict=False)]
            labels = [
                index[example["tags"][word]] if is_first else IGNORED_LABEL
                for word, is_first in zip(words, first, strict=True)
            ]
            columns["labels"].append(labels)
        columns["length"] = [len(row) for row in encoded["input_ids"]]
        return datasets.Dataset.from_dict(columns)

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict]], dict]:
        return DataCollatorForTokenClassification(tokenizer)

    def reduce(self, logits: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return first_output(logits)

    def losses(self, reduced: Tensor, labels: Tensor) -> Tensor:
        return mean_losses(token_losses(reduced, labels), labels)

    def predictions(self, task: TaskData, split: str, outputs: np.ndarray, label_ids: np.ndarray) -> list[list[str]]:
        predicted = []
        for example, best, labels in zip(task.splits[split], np.argmax(outputs, axis=-1), label_ids, strict=True):
            tags = [task.labels[label] for label in best[labels != IGNORED_LABEL]]
            predicted.append(tags + ["O"] * (len(example["tags"]) - len(tags)))
        return predicted

    def score(self, task: TaskData, split: str, predicted: list[list[str]]) -> dict[str, float]:
        gold = [well_formed(example["tags"]) for example in task.splits[split]]
        predicted = [well_formed(tags) for tags in predicted]
        types = sorted({label[2:] for label in task.labels if label != "O"})
        result = Evaluator(gold, predicted, tags=types, loader="list").evaluate()
        overall = result["overall"]["strict"]
        scores = {"entity_f1": overall.f1, "entity_precision": overall.precision, "entity_recall": overall.recall}
        by_type = {name: found["strict"].f1 for name, found in result["entities"].items()}
        scores |= {f"entity_f1_{name}": by_type.get(name, 0.0) for name in types}
        return {name: float(value) for name, value in scores.items()}

    def mean_loss(self, losses: list[float], predicted: list[list[str]]) -> float:
        return float(np.nanmean(losses))

    def row(self, example: Example, predicted: list[str]) -> dict[str, Any]:
        return {"gold": example["tags"], "predicted": predicted}


def _visible_words(words: set[str], tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Every word to itself, or to the unknown token where the tokenizer makes nothing of it (a control character)."""
    known = sorted(words)
    pieces = tokenizer(known, add_special_tokens=False)["input_ids"]
    nothing = tokenizer.unk_token or "?"
    return {word: word if ids else nothing for word, ids in zip(known, pieces, strict=True)}
