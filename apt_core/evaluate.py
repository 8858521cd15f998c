"""Runs a trained model over one split: metrics, and per example what was predicted, its loss and its gates."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from apt_core.gate_tally import GateTally
from apt_core.model import AptModel
from apt_core.tasks import family_of
from apt_core.tasks.base import TaskData
from apt_core.tasks.token_losses import IGNORED_LABEL


class Evaluation(NamedTuple):
    """Result of one split."""

    metrics: dict[str, float]
    """metrics of the task's family, and ``loss`` (cross-entropy, nats)"""
    predictions: list[dict[str, Any]]
    """per example: id, what ``Family.row`` gives (gold and predicted, or tokens and right), loss (its own mean),
    layer_gates[L] (token gate averaged over the layer's virtual tokens)"""


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
            if not model.config.is_encoder_decoder:  # there, the decoder's input is made from them
                del batch["labels"]  # elsewhere they only make the model compute a loss, in another copy of its logits
            reduced = family.reduce(model(**batch).logits, labels).float()
            losses = family.losses(reduced, labels)
            gates = _layer_gates(tally.take(), len(indices))
            kept, label_ids = reduced.cpu().numpy(), labels.cpu().numpy()
            for row, index in enumerate(indices):
                outputs[index] = (kept[row], label_ids[row], losses[row], gates[row])
    model.train(was_training)
    rows = [outputs[index] for index in range(len(order))]
    kept = _padded([row[0] for row in rows], 0.0)
    label_ids = _padded([row[1] for row in rows], IGNORED_LABEL)
    predicted = family.predictions(task, split, kept, label_ids)
    metrics = family.score(task, split, predicted)
    metrics["loss"] = family.mean_loss([row[2] for row in rows], predicted)
    predictions = [
        {
            "id": example["id"],
            **family.row(example, guess),
            "loss": None if np.isnan(row[2]) else round(row[2], 6),
            "layer_gates": row[3],
        }
        for example, guess, row in zip(task.splits[split], predicted, rows, strict=True)
    ]
    return Evaluation(metrics, predictions)


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
