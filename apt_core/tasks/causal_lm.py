"""A text that goes on from a prompt, by a decoder: the loss is on the continuation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
from torch import Tensor
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerBase

from apt_core.errors import AptValueError
from apt_core.tasks.base import Example, TaskData
from apt_core.tasks.token_losses import (
    IGNORED_LABEL,
    TokenCounts,
    count_tokens,
    first_output,
    mean_losses,
    split_loss,
    token_losses,
    token_scores,
)


class CausalLM:
    """Perplexity per target sub-word, and how many are ranked first, both with the true text before them.

    The model reads what its tokenizer puts before a text (often one token, or nothing), the prompt, the target and
    the end-of-text token, where there is one. Labels are on target and end only. Prompt and target are tokenised
    apart: a space between them has to be in one of them.

    What exceeds ``max_length`` is cut from the beginning of the prompt, whose end matters most; once no prompt is
    left, from the end of the target. The first sub-word of all has nothing before it and is not predicted: that is
    the target's own first where the prompt is empty and the tokenizer puts nothing before a text.
    """

    name = "causal-lm"
    auto_class = "AutoModelForCausalLM"
    metric_name = "perplexity"
    greater_is_better = False

    def encode(
        self, task: TaskData, split: str, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> datasets.Dataset:
        examples = task.splits[split]
        start = _tokens_before_a_text(tokenizer)
        end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        bare = {"add_special_tokens": False, "verbose": False}
        prompts = tokenizer([example["prompt"] for example in examples], **bare)["input_ids"]
        targets = tokenizer([example["target"] for example in examples], **bare)["input_ids"]
        columns: dict[str, list[Any]] = {"input_ids": [], "attention_mask": [], "labels": [], "length": []}
        for prompt, target in zip(prompts, targets, strict=True):
            predicted = [*target, *end][: max(0, max_length - len(start))]
            room = max_length - len(start) - len(predicted)
            given = start + prompt[max(0, len(prompt) - room) :]
            labels = [IGNORED_LABEL] * len(given) + predicted
            columns["input_ids"].append(given + predicted)
            columns["attention_mask"].append([1] * len(labels))
            # nothing predicts the first: with a label, some would count it when they divide a loss by their number
            columns["labels"].append([IGNORED_LABEL, *labels[1:]])
            columns["length"].append(len(labels))
        if not any(label != IGNORED_LABEL for labels in columns["labels"] for label in labels):
            raise AptValueError(
                f"data: the {split} split of task {task.name} has no target sub-word with something before it; "
                "accepted: examples with a prompt and a target, or with a target of two sub-words or more."
            )
        return datasets.Dataset.from_dict(columns)

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict]], dict]:
        return DataCollatorForSeq2Seq(padding_right(tokenizer))

    def reduce(self, logits: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return token_losses(first_output(logits), labels, shift=1)

    def losses(self, reduced: Tensor, labels: Tensor) -> Tensor:
        return mean_losses(reduced[:, 1:], labels[:, 1:])

    def predictions(self, task: TaskData, split: str, outputs: np.ndarray, label_ids: np.ndarray) -> list[TokenCounts]:
        return count_tokens(outputs[:, 1:], label_ids[:, 1:])

    def score(self, task: TaskData, split: str, predicted: list[TokenCounts]) -> dict[str, float]:
        return token_scores(predicted)

    def mean_loss(self, losses: list[float], predicted: list[TokenCounts]) -> float:
        return split_loss(predicted)

    def row(self, example: Example, predicted: TokenCounts) -> dict[str, Any]:
        return {"tokens": predicted.tokens, "right": predicted.right}


def padding_right(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer that pads at the end, whatever it does for generation; the one given stays as it is."""
    if tokenizer.padding_side == "right":
        return tokenizer
    tokenizer = copy.copy(tokenizer)
    tokenizer.padding_side = "right"
    return tokenizer


def _tokens_before_a_text(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts in front of any text: a begin-of-text token, or nothing."""
    with_special = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = (start for start in range(len(with_special)) if with_special[start : start + len(bare)] == bare)
    return with_special[: next(starts, 0)]
