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
    token_gates: np.ndarray | None = None
    """[n, L, P] float32 of the split's first n examples, if asked for; NaN where a layer has no such virtual token"""


def evaluate(
    model: AptModel,
    task: TaskData,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int,
    max_length: int,
    progress: bool = True,
    keep_token_gates: int = 0,
) -> Evaluation:
    """Evaluates ``model`` on ``task.splits[split]``, in batches of similar length, in evaluation mode.

    Args:
        batch_size: examples per forward pass.
        max_length: sub-words per text; longer ones are cut.
        progress: show a bar on stderr.
        keep_token_gates: of how many examples, from the first, the gate of every virtual token is kept.
    """
    family = family_of(task)
    encoded = family.encode(task, split, tokenizer, max_length)
    collate = family.collator(tokenizer)
    order = np.argsort(encoded["length"], kind="stable")[::-1]
    columns = [name for name in encoded.column_names if name != "length"]
    outputs: dict[int, tuple[np.ndarray, np.ndarray, float, list[float | None]]] = {}
    lengths = model.apt_config.prefix_lengths
    shape = (min(keep_token_gates, len(order)), len(lengths), max(lengths))
    token_gates = np.full(shape, np.nan, np.float32) if keep_token_gates else None
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
            losses = family.losses(reduced, labels).tolist()
            taken = _of_examples(tally.take(), len(indices))
            gates = _layer_gates(taken, len(indices))
            if token_gates is not None:
                _put(token_gates, indices, taken)
            kept, label_ids = reduced.cpu().numpy(), labels.cpu().numpy()
            for row, index in enumerate(indices):
                outputs[index] = (kept[row], label_ids[row], losses[row], gates[row])
    model.train(was_training)
    rows = [outputs[index] for index in range(len(order))]
    kept = padded([row[0] for row in rows], 0.0)
    label_ids = padded([row[1] for row in rows], IGNORED_LABEL)
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
    return Evaluation(metrics, predictions, token_gates)


def _of_examples(taken: list[Tensor | None], batch: int) -> list[Tensor | None]:
    """Per layer [batch, P of the layer] from [sequences or 1, P]; of several sequences (choices) their mean."""
    found: list[Tensor | None] = []
    for gate in taken:
        if gate is not None:
            gate = gate.float()
            gate = gate.expand(batch, -1) if len(gate) == 1 else gate.view(batch, -1, gate.shape[1]).mean(dim=1)
        found.append(gate)
    return found


def _layer_gates(taken: list[Tensor | None], batch: int) -> list[list[float | None]]:
    """[batch][L] mean gate of each layer."""
    columns = [
        [None] * batch if gate is None else [round(value, 6) for value in gate.mean(dim=1).tolist()] for gate in taken
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def _put(target: np.ndarray, indices: list[int], taken: list[Tensor | None]) -> None:
    """Puts the gates of one batch at the places of its examples, of those that ``target`` has room for."""
    rows = [row for row, index in enumerate(indices) if index < len(target)]
    places = [indices[row] for row in rows]
    for layer, gate in enumerate(taken):
        if gate is not None:
            target[places, layer, : gate.shape[1]] = gate.cpu().numpy()[rows]


def padded(arrays: list[np.ndarray], filler: float) -> np.ndarray:
    """Stacks arrays whose first axis may differ in length."""
    if arrays[0].ndim == 0 or len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    longest = max(array.shape[0] for array in arrays)
    stacked = np.full((len(arrays), longest, *arrays[0].shape[1:]), filler, arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[: array.shape[0]] = array
    return stacked
