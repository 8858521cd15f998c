"""Runs a trained model over one split: metrics, and per example the prediction, its loss and its gates."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from apt_core.gate_tally import GateTally
from apt_core.model import AptModel
from apt_core.tasks import family_of
from apt_core.tasks.base import TaskData

IGNORED_LABEL = -100


class Evaluation(NamedTuple):
    """Result of one split."""

    metrics: dict[str, float]
    """metrics of the task's family in [0, 1], and ``loss`` (cross-entropy, nats)"""
    predictions: list[dict[str, Any]]
    """per example: id, gold, predicted, loss, layer_gates[L] (token gate averaged over the layer's virtual tokens)"""


def evaluate(
    model: AptModel,
    task: TaskData,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int,
    max_length: int,
    progress: bool = True,
) -> Evaluation:
    """Evaluates ``model`` on ``task.splits[split]``, in batches of similar length, in evaluation mode.

    Args:
        batch_size: examples per forward pass.
        max_length: sub-words per text; longer ones are cut.
        progress: show a bar on stderr.
    """
    family = family_of(task)
    encoded = family.encode(task, split, tokenizer, max_length)
    collate = family.collator(tokenizer)
    order = np.argsort(encoded["length"], kind="stable")[::-1]
    columns = [name for name in encoded.column_names if name != "length"]
    outputs: dict[int, tuple[np.ndarray, np.ndarray, float, list[float | None]]] = {}
    was_training = model.training
    model.eval()
    with torch.inference_mode(), GateTally(model, training=False, per_sequence=True) as tally:
        starts = range(0, len(order), batch_size)
        for start in tqdm(starts, desc=f"evaluate {split}", unit="batch", disable=not progress, leave=False):
            indices = [int(index) for index in order[start : start + batch_size]]
            batch = collate([{name: encoded[index][name] for name in columns} for index in indices])
            batch = {name: value.to(model.device) for name, value in batch.items()}
            labels = batch["labels"]
            logits = model(**batch).logits.float()
            losses = _loss_per_example(logits, labels)
            gates = _layer_gates(tally.take(), len(indices))
            for row, index in enumerate(indices):
                outputs[index] = (logits[row].cpu().numpy(), labels[row].cpu().numpy(), losses[row], gates[row])
    model.train(was_training)
    rows = [outputs[index] for index in range(len(order))]
    logits = _padded([row[0] for row in rows], 0.0)
    label_ids = _padded([row[1] for row in rows], IGNORED_LABEL)
    predicted = family.predictions(task, split, logits, label_ids)
    metrics = family.score(task, split, predicted)
    metrics["loss"] = float(np.nanmean([row[2] for row in rows]))
    examples = task.splits[split]
    predictions = [
        {
            "id": example["id"],
            "gold": example["tags"] if "tags" in example else example["label"],
            "predicted": guess,
            "loss": None if np.isnan(row[2]) else round(row[2], 6),
            "layer_gates": row[3],
        }
        for example, guess, row in zip(examples, predicted, rows, strict=True)
    ]
    return Evaluation(metrics, predictions)


def _loss_per_example(logits: Tensor, labels: Tensor) -> list[float]:
    """Cross-entropy in nats, averaged over the labelled positions of an example; NaN where there is none."""
    if labels.dim() == 1:
        return F.cross_entropy(logits, labels, reduction="none").tolist()
    losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED_LABEL)
    return (losses.sum(dim=1) / (labels != IGNORED_LABEL).sum(dim=1)).tolist()


def _layer_gates(taken: list[Tensor | None], batch: int) -> list[list[float | None]]:
    """[batch][L] mean gate of each layer; where an example is several sequences (choices), their mean."""
    columns: list[list[float | None]] = []
    for gate in taken:
        if gate is None:
            columns.append([None] * batch)
        else:
            mean = gate.float().mean(dim=1)  # [sequences or 1]
            mean = mean.expand(batch) if mean.numel() == 1 else mean.view(batch, -1).mean(dim=1)
            columns.append([round(value, 6) for value in mean.tolist()])
    return [list(row) for row in zip(*columns, strict=True)]


def _padded(arrays: list[np.ndarray], filler: float) -> np.ndarray:
    """Stacks arrays whose first axis may differ in length."""
    if arrays[0].ndim == 0 or len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    longest = max(array.shape[0] for array in arrays)
    stacked = np.full((len(arrays), longest, *arrays[0].shape[1:]), filler, arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[: array.shape[0]] = array
    return stacked
