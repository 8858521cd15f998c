"""What a person is told about usable data: majority, repetitions, lengths."""

from __future__ import annotations

import pytest

from apt_core.tasks.base import TaskData
from apt_core.tasks.checks import check_task, length_note


def texts(train: list[tuple[str, int]], validation: list[tuple[str, int]]) -> TaskData:
    splits = {
        split: [{"id": f"{split}-{n}", "text": text, "label": label} for n, (text, label) in enumerate(rows)]
        for split, rows in (("train", train), ("validation", validation))
    }
    return TaskData("made", "sequence-classification", ("no", "yes"), splits)


def test_majority_is_told_where_it_exceeds_an_equal_share():
    train = [(f"a{n}", n % 2) for n in range(10)]
    validation = [(f"b{n}", int(n < 11)) for n in range(20)]
    assert check_task(texts(train, validation)) == ["validation: majority class 'yes' is 55%"]


def test_repeated_and_contradicting_texts_are_counted():
    train = [("a", 0), ("a", 0), ("a", 1), ("b", 1)]
    assert check_task(texts(train, [("c", 0), ("d", 1)])) == [
        "1 of 4 train examples repeat another, label included",
        "1 train texts occur with different labels",
    ]


def test_the_most_frequent_choice_is_counted_from_one():
    rows = [{"id": str(n), "context": str(n), "choices": ["a", "b"], "label": int(n > 0)} for n in range(4)]
    task = TaskData("made", "multiple-choice", (), {"train": rows, "validation": rows[:2]})
    assert "train: majority class 'choice 2' is 75%" in check_task(task)


CAT = "the cat sat"  # 3 words of the tokenizer's vocabulary


@pytest.mark.parametrize(
    ("family", "example", "length"),
    [
        ("sequence-classification", {"text": CAT}, 5),
        ("sequence-classification", {"text": CAT, "text_pair": CAT}, 9),
        ("token-classification", {"tokens": CAT.split(), "tags": ["O"] * 3}, 5),
        ("multiple-choice", {"context": CAT, "choices": ["the", "the cat"]}, 8),
        ("causal-lm", {"prompt": "", "target": CAT}, 5),
        ("seq2seq-lm", {"prompt": "the", "target": "cat sat"}, 4),
    ],
)
def test_lengths_are_those_of_the_encoded_text(tokenizer, family, example, length):
    task = TaskData("made", family, (), {"train": [example] * 3})
    expected = f"train texts: {length} sub-words in the median, {length} in the longest; none is cut at 16"
    assert length_note(task, tokenizer, 16) == expected


def test_a_line_of_ten_thousand_tokens_is_measured_without_a_warning(tokenizer, caplog, capfd):
    long = {"tokens": ["cat"] * 10_000, "tags": ["O"] * 10_000}
    short = {"tokens": ["cat"], "tags": ["O"]}
    task = TaskData("made", "token-classification", ("O",), {"train": [short, short, long]})
    tokenizer.deprecation_warnings.clear()
    before, tokenizer.model_max_length = tokenizer.model_max_length, 64
    try:
        note = length_note(task, tokenizer, 64)
    finally:
        tokenizer.model_max_length = before
    assert note == "train texts: 3 sub-words in the median, 10002 in the longest; 1 of 3 are cut at 64"
    assert not caplog.records
    assert capfd.readouterr().err == ""


def test_length_of_no_examples_is_none(tokenizer):
    assert length_note(TaskData("made", "causal-lm", (), {"train": []}), tokenizer, 64) is None
