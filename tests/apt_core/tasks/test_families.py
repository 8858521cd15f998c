"""Heads, tokenisation and scores of the task families; seqeval and scikit-learn as oracles."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report, f1_score, precision_score, recall_score
from seqeval.scheme import IOB2
from sklearn.metrics import f1_score as sklearn_f1

from apt_core.errors import AptError
from apt_core.tasks import family_of
from apt_core.tasks.base import TaskData
from apt_core.tasks.checks import check_task
from apt_core.tasks.shots import take_shots
from apt_core.tasks.tags import well_formed

LABELS = ("O", "B-a", "I-a", "B-b", "I-b")
TAGS = st.lists(st.lists(st.sampled_from(LABELS), min_size=6, max_size=6), min_size=3, max_size=3)


def tagged(sentences: list[list[str]], words: list[list[str]] | None = None) -> TaskData:
    words = words or [[f"w{index}" for index in range(len(tags))] for tags in sentences]
    rows = [{"id": str(n), "tokens": w, "tags": t} for n, (w, t) in enumerate(zip(words, sentences, strict=True))]
    return TaskData("made", "token-classification", LABELS, {"train": rows, "validation": rows})


@settings(max_examples=60)
@given(gold=TAGS, predicted=TAGS)
def test_entity_scores_equal_seqeval_in_strict_mode(gold, predicted):
    gold = [well_formed(tags) for tags in gold]
    task = tagged(gold)
    scores = family_of(task).score(task, "validation", predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns where a score is undefined
        strict = {"mode": "strict", "scheme": IOB2}
        report = classification_report(gold, predicted, output_dict=True, zero_division=0, **strict)
        expected = {
            "entity_f1": f1_score(gold, predicted, **strict),
            "entity_precision": precision_score(gold, predicted, **strict),
            "entity_recall": recall_score(gold, predicted, **strict),
        }
    for name in ("a", "b"):
        expected[f"entity_f1_{name}"] = report.get(name, {"f1-score": 0.0})["f1-score"]
    assert scores == pytest.approx(expected)


def test_first_sub_word_carries_the_label(tokenizer):
    task = tagged([["B-a", "O", "I-b"]], [["visits", "the", "unrelated"]])
    encoded = family_of(task).encode(task, "train", tokenizer, 32)
    assert encoded["labels"][0] == [-100, 1, -100, 0, 4, -100, -100]  # [CLS] visit ##s the un ##related [SEP]
    assert encoded["length"][0] == 7


def test_words_that_the_tokenizer_drops_keep_tags_in_line(tokenizer):
    words = [["paris", "\u200d", "\x01", "mat"]]
    task = tagged([["B-a", "O", "O", "B-b"]], words)
    family = family_of(task)
    labels = np.array(family.encode(task, "train", tokenizer, 32)["labels"])
    perfect = np.eye(len(LABELS))[np.maximum(labels, 0)]
    assert family.predictions(task, "train", perfect, labels) == [["B-a", "O", "O", "B-b"]]


def test_words_cut_off_by_max_length_count_as_missed(tokenizer):
    task = tagged([["B-a", "O", "B-b"]], [["paris", "the", "mat"]])
    family = family_of(task)
    labels = np.array(family.encode(task, "train", tokenizer, 4)["labels"])
    perfect = np.eye(len(LABELS))[np.maximum(labels, 0)]
    predicted = family.predictions(task, "train", perfect, labels)
    assert predicted == [["B-a", "O", "O"]]
    assert family.score(task, "train", predicted)["entity_recall"] == 0.5


def test_collated_tokens_are_padded_with_ignored_labels(tokenizer):
    task = tagged([["O", "O"], ["B-a"]], [["the", "cat"], ["paris"]])
    family = family_of(task)
    encoded = family.encode(task, "train", tokenizer, 32)
    rows = [{name: row[name] for name in encoded.column_names if name != "length"} for row in encoded]
    assert family.collator(tokenizer)(rows)["labels"].tolist() == [[-100, 0, 0, -100], [-100, 1, -100, -100]]


def sentences(labels: list[int], **more) -> TaskData:
    rows = [{"id": str(n), "text": f"the cat {n}", "label": label, **more} for n, label in enumerate(labels)]
    return TaskData("made", "sequence-classification", ("x", "y", "z"), {"train": rows, "validation": rows})


def test_sentence_scores_equal_scikit_learn():
    task = sentences([0, 1, 2, 2, 1])
    scores = family_of(task).score(task, "validation", [0, 1, 1, 2, 2])
    assert scores["accuracy"] == 0.6
    assert scores["macro_f1"] == pytest.approx(sklearn_f1([0, 1, 2, 2, 1], [0, 1, 1, 2, 2], average="macro"))


def test_text_pairs_are_encoded_as_two_segments(tokenizer):
    task = sentences([0, 1], text_pair="on the mat")
    encoded = family_of(task).encode(task, "train", tokenizer, 32)
    assert encoded["token_type_ids"][0].count(1) == 4  # on the mat [SEP]


def choices(labels: list[int]) -> TaskData:
    rows = [
        {"id": str(n), "context": "the cat", "choices": ["sat on mat", "sat"], "label": label}
        for n, label in enumerate(labels)
    ]
    return TaskData("made", "multiple-choice", (), {"train": rows, "validation": rows})


def test_choices_are_encoded_and_padded_together(tokenizer):
    task = choices([0, 1, 1])
    family = family_of(task)
    encoded = family.encode(task, "train", tokenizer, 32)
    rows = [{name: row[name] for name in encoded.column_names if name != "length"} for row in encoded]
    batch = family.collator(tokenizer)(rows)
    assert batch["input_ids"].shape == (3, 2, 8)
    assert batch["labels"].tolist() == [0, 1, 1]
    assert family.score(task, "train", [0, 1, 0])["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("task", [sentences([2, 0]), choices([1, 0])], ids=["sentences", "choices"])
def test_reduce_keeps_the_logits_and_losses_are_cross_entropy(task):
    family = family_of(task)
    torch.manual_seed(0)
    logits = torch.randn(2, len(task.labels) or 2)
    labels = torch.tensor([example["label"] for example in task.splits["train"]])
    assert family.reduce(logits, labels) is logits
    assert family.reduce((logits, torch.zeros(2, 7, 4)), labels) is logits
    losses = family.losses(logits, labels).tolist()
    assert losses == pytest.approx([F.cross_entropy(logits[row], labels[row]).item() for row in range(2)])
    assert family.mean_loss(losses, [0, 0]) == pytest.approx(F.cross_entropy(logits, labels).item())


def test_losses_of_tags_are_means_over_words_and_nan_without_any():
    family = family_of(tagged([["O"]]))
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 4, len(LABELS)), torch.tensor([[-100, 0, 3, 1], [2, -100, -100, -100], [-100] * 4])
    assert family.reduce((logits, "attentions"), labels) is logits
    losses = family.losses(logits, labels).tolist()
    assert losses[:2] == pytest.approx([F.cross_entropy(logits[row], labels[row]).item() for row in (0, 1)])
    assert np.isnan(losses[2])
    assert family.mean_loss(losses, []) == pytest.approx(np.mean(losses[:2]))


@pytest.mark.parametrize(
    ("task", "guess", "row"),
    [
        (sentences([2, 0]), 1, {"gold": 2, "predicted": 1}),
        (choices([1, 0]), 0, {"gold": 1, "predicted": 0}),
        (tagged([["O", "B-a"]]), ["O", "O"], {"gold": ["O", "B-a"], "predicted": ["O", "O"]}),
    ],
    ids=["sentences", "choices", "tags"],
)
def test_row_holds_gold_and_predicted_and_higher_scores_are_better(task, guess, row):
    family = family_of(task)
    assert family.row(task.splits["train"][0], guess) == row
    assert family.greater_is_better


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (TaskData("made", "multiple-choice", (), {"train": []}), "the train split of task made holds no example"),
        (TaskData("made", "multiple-choice", (), {"train": [{"label": 0}]}), "the validation split"),
        (sentences([1, 1]), r"holds one class only \(y\)"),
    ],
)
def test_check_task_refuses_data_nothing_can_be_learned_from(task, message):
    with pytest.raises(AptError, match=message):
        check_task(task)


def test_check_task_refuses_labels_that_train_lacks():
    task = sentences([0, 1])
    extra = [{"id": "9", "text": "new", "label": 2}]
    with pytest.raises(AptError, match="validation split of task made has labels that train lacks: z"):
        check_task(TaskData("made", task.family, task.labels, {"train": task.splits["train"], "validation": extra}))


def test_check_task_reports_texts_shared_with_train():
    assert check_task(sentences([0, 1])) == ["2 of 2 validation examples have a text that is in train too"]


def test_take_shots_keeps_so_many_of_each_class():
    task = take_shots(sentences([0] * 9 + [1] * 5 + [2] * 7), shots=4, seed=1)
    assert [row["label"] for row in task.splits["train"]] == [0] * 4 + [1] * 4 + [2] * 4
    assert len(task.splits["validation"]) == 21
    assert take_shots(sentences([0] * 9 + [1] * 5 + [2] * 7), 4, 1).fingerprint() == task.fingerprint()


def test_take_shots_without_classes_counts_in_all():
    assert len(take_shots(choices([0, 1, 0, 1]), shots=3, seed=1).splits["train"]) == 3


def test_take_shots_of_more_than_there_are_raises():
    with pytest.raises(AptError, match="shots: got 5; accepted: at most 2 per class"):
        take_shots(sentences([0, 0, 1, 1, 1]), shots=5, seed=1)
