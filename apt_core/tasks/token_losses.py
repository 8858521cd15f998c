"""Target sub-words: the loss of each, whether it is ranked first, and what follows for an example and a split.

Axes: B batch, T sub-words, V vocabulary or classes, N examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED_LABEL = -100
_CHUNK = 2**24
"""logits that are held in float32 at a time (64 MiB)"""


class TokenCounts(NamedTuple):
    """What is kept of one example of a language modelling task."""

    tokens: int
    """target sub-words that were predicted"""
    right: int
    """of these, how many were ranked first (0 to ``tokens``)"""
    loss: float
    """sum of their negative log-likelihoods, nats, >= 0"""


def first_output(logits: Tensor | tuple) -> Tensor:
    """The logits where transformers' Trainer hands over all outputs of a model, such as encoder states too."""
    return logits[0] if isinstance(logits, tuple | list) else logits


def token_losses(logits: Tensor, labels: Tensor, *, shift: int = 0) -> Tensor:
    """Loss of every label, and whether the model ranks it first.

    Only the labelled positions are turned into float32, some at a time: no second [B, T, V] is made.

    Args:
        logits: [B, T, V], any floating type.
        labels: [B, T]; ``IGNORED_LABEL`` where there is none.
        shift: how many positions before a label the logits for it are: 0, or 1 for causal language models, whose
            first position is predicted by nothing.

    Returns:
        float32 [B, T, 2]: negative log-likelihood in nats (>= 0), and 1 where the label is ranked first, else 0.
        Both are 0 where there is no label or nothing predicts it.
    """
    outcome = torch.zeros(*labels.shape, 2, device=logits.device)
    labels = labels.to(logits.device)
    labelled = (labels[:, shift:] != IGNORED_LABEL).nonzero()  # [labels, 2]: row, position of the logits
    for rows, positions in (part.unbind(dim=1) for part in labelled.split(max(1, _CHUNK // logits.shape[-1]))):
        chosen = logits[rows, positions].float()  # [at most _CHUNK // V, V]
        target = labels[rows, positions + shift]
        loss = F.cross_entropy(chosen, target, reduction="none")
        outcome[rows, positions + shift] = torch.stack([loss, (chosen.argmax(dim=-1) == target).float()], dim=-1)
    return outcome


def mean_losses(outcome: Tensor, labels: Tensor) -> Tensor:
    """Per example [B] the mean loss of its labels in nats; NaN where it has none.

    Args:
        outcome: [B, T, 2] from ``token_losses``.
        labels: [B, T]; those that nothing predicts must be ``IGNORED_LABEL``.
    """
    counts = (labels != IGNORED_LABEL).sum(dim=1).to(outcome.device)
    return outcome[..., 0].sum(dim=1) / counts


def count_tokens(outcome: np.ndarray, label_ids: np.ndarray) -> list[TokenCounts]:
    """Adds up each example's labels; what stands where there is no label (padding) is not looked at.

    Args:
        outcome: [N, T, 2] from ``token_losses``, padded with anything.
        label_ids: [N, T]; those that nothing predicts must be ``IGNORED_LABEL``.
    """
    counted = label_ids != IGNORED_LABEL
    sums = np.where(counted[..., None], outcome, 0).sum(axis=1, dtype=np.float64)  # [N, 2]
    return [
        TokenCounts(tokens, round(right), loss)
        for tokens, (loss, right) in zip(counted.sum(axis=1).tolist(), sums.tolist(), strict=True)
    ]


def split_loss(predicted: Sequence[TokenCounts]) -> float:
    """Mean negative log-likelihood per target sub-word of a whole split, in nats; NaN where there is none."""
    tokens = sum(counts.tokens for counts in predicted)
    return sum(counts.loss for counts in predicted) / tokens if tokens else float("nan")


def token_scores(predicted: Sequence[TokenCounts]) -> dict[str, float]:
    """``perplexity`` (exp of ``split_loss``, >= 1) and ``token_accuracy`` (in [0, 1]) of a whole split."""
    tokens = sum(counts.tokens for counts in predicted)
    right = sum(counts.right for counts in predicted)
    with np.errstate(over="ignore"):  # infinite, not an error, for a model that has diverged
        perplexity = float(np.exp(split_loss(predicted)))
    return {"perplexity": perplexity, "token_accuracy": right / tokens if tokens else float("nan")}
