"""Losses of target sub-words; torch's cross-entropy over whole tensors as oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from apt_core.tasks import token_losses
from apt_core.tasks.token_losses import IGNORED_LABEL, TokenCounts, count_tokens, mean_losses, split_loss, token_scores

VOCABULARY = 11


@pytest.fixture
def logits() -> torch.Tensor:
    torch.manual_seed(0)
    return 3 * torch.randn(4, 6, VOCABULARY)


@pytest.fixture
def labels() -> torch.Tensor:
    torch.manual_seed(1)
    labels = torch.randint(VOCABULARY, (4, 6))
    labels[0, :3] = labels[1, 4:] = IGNORED_LABEL
    labels[3] = IGNORED_LABEL
    return labels


@pytest.mark.parametrize("chunk", [1, 2 * VOCABULARY, 2**24])
@pytest.mark.parametrize("shift", [0, 1])
def test_token_losses_equal_cross_entropy_whatever_the_chunk(logits, labels, shift, chunk, monkeypatch):
    monkeypatch.setattr(token_losses, "_CHUNK", chunk)
    outcome = token_losses.token_losses(logits, labels, shift=shift)
    of_labels, of_logits = labels[:, shift:], logits[:, : 6 - shift]
    expected = F.cross_entropy(of_logits.mT, of_labels, reduction="none", ignore_index=IGNORED_LABEL)
    torch.testing.assert_close(outcome[:, shift:, 0], expected)
    torch.testing.assert_close(outcome[:, shift:, 1], (of_logits.argmax(dim=-1) == of_labels).float())
    assert (outcome[:, :shift] == 0).all()
    assert (outcome[labels == IGNORED_LABEL] == 0).all()


def test_token_losses_of_bfloat16_are_computed_in_float32(logits, labels):
    coarse = logits.bfloat16()
    outcome = token_losses.token_losses(coarse, labels)
    assert outcome.dtype == torch.float32
    torch.testing.assert_close(outcome, token_losses.token_losses(coarse.float(), labels), atol=0, rtol=0)


def test_mean_losses_are_per_example_and_nan_without_labels(logits, labels):
    losses = mean_losses(token_losses.token_losses(logits, labels), labels)
    for row in range(3):
        assert losses[row] == pytest.approx(F.cross_entropy(logits[row], labels[row]).item(), abs=1e-6)
    assert math.isnan(losses[3])


def test_count_tokens_does_not_look_at_padding(logits, labels):
    outcome = token_losses.token_losses(logits, labels)
    clean = count_tokens(outcome.numpy(), labels.numpy())
    outcome[labels == IGNORED_LABEL] = -100.0
    padded = np.pad(outcome.numpy(), ((0, 0), (0, 3), (0, 0)), constant_values=np.nan)
    label_ids = np.pad(labels.numpy(), ((0, 0), (0, 3)), constant_values=IGNORED_LABEL)
    assert count_tokens(padded, label_ids) == clean
    assert [counts.tokens for counts in clean] == [3, 4, 6, 0]


def test_scores_weigh_every_token_alike():
    predicted = [TokenCounts(1, 1, 1.0), TokenCounts(3, 0, 9.0), TokenCounts(0, 0, 0.0)]
    assert split_loss(predicted) == 2.5
    assert token_scores(predicted) == {"perplexity": pytest.approx(math.exp(2.5)), "token_accuracy": 0.25}


def test_scores_of_a_diverged_model_are_infinite_and_raise_nothing():
    assert token_scores([TokenCounts(1, 0, 1e4)])["perplexity"] == math.inf
