"""A text made from another, by an encoder and a decoder: summaries, translations, answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
from torch import Tensor
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerBase

from apt_core.errors import AptValueError
from apt_core.tasks.base import Example, TaskData
from apt_core.tasks.causal_lm import padding_right
from apt_core.tasks.token_losses import (
    TokenCounts,
    count_tokens,
    first_output,
    mean_losses,
    split_loss,
    token_losses,
    token_scores,
)


class Seq2SeqLM:
    """Perplexity per target sub-word, and how many are ranked first, both with the true text before them.

    The encoder reads the prompt, the decoder is taught the target; each is cut at ``max_length``, special tokens
    included. The special tokens that the tokenizer puts around a target count as sub-words of it. The decoder's own
    input is made from the labels by the model.
    """

    name = "seq2seq-lm"
    auto_class = "AutoModelForSeq2SeqLM"
    metric_name = "perplexity"
    greater_is_better = False

    def encode(
        self, task: TaskData, split: str, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> datasets.Dataset:
        examples = task.splits[split]
        cut = {"truncation": True, "max_length": max_length}
        encoded = tokenizer([example["prompt"] for example in examples], **cut)
        columns = {name: encoded[name] for name in ("input_ids", "attention_mask")}  # encoders here take no segments
        columns["labels"] = tokenizer(text_target=[example["target"] for example in examples], **cut)["input_ids"]
        columns["length"] = [len(row) for row in encoded["input_ids"]]
        if not any(columns["labels"]):
            raise AptValueError(
                f"data: the {split} split of task {task.name} has no target sub-word; accepted: examples with a target."
            )
        return datasets.Dataset.from_dict(columns)

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict]], dict]:
        return DataCollatorForSeq2Seq(padding_right(tokenizer))

    def reduce(self, logits: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return token_losses(first_output(logits), labels)

    def losses(self, reduced: Tensor, labels: Tensor) -> Tensor:
        return mean_losses(reduced, labels)

    def predictions(self, task: TaskData, split: str, outputs: np.ndarray, label_ids: np.ndarray) -> list[TokenCounts]:
        return count_tokens(outputs, label_ids)

    def score(self, task: TaskData, split: str, predicted: list[TokenCounts]) -> dict[str, float]:
        return token_scores(predicted)

    def mean_loss(self, losses: list[float], predicted: list[TokenCounts]) -> float:
        return split_loss(predicted)

    def row(self, example: Example, predicted: TokenCounts) -> dict[str, Any]:
        return {"tokens": predicted.tokens, "right": predicted.right}
