"""Text classification of one's own data, read from files as a person would write them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from apt_core.errors import AptError
from apt_core.tasks import load_task
from apt_core.tasks.base import TaskData
from apt_core.tasks.checks import check_task
from apt_core.tasks.source import DataSource


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def labelled(*labels, **more) -> list[dict]:
    return [{"text": f"text {number}", "label": label, **more} for number, label in enumerate(labels)]


def load(folder: Path, fields: dict | None = None, **splits: list[dict]) -> TaskData:
    files = {f"{split}_file": write(folder / f"{split}.jsonl", rows) for split, rows in splits.items()}
    return load_task("text-classification", DataSource(**files, **(fields or {})))


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["b", "a", "b", " a "], ("a", "b")),
        ([10, 9, 10, 9], ("9", "10")),
        ([1.0, 0.0, 1.0, 0], ("0", "1")),
        ([True, False, True, False], ("False", "True")),
        (["10", "9", "1.0", "9.0"], ("1", "9", "10")),
        ([-1, 0, 1, 1], ("-1", "0", "1")),
        (["1", "zwei", "1", "2.5"], ("1", "2.5", "zwei")),
    ],
)
def test_classes_are_sorted_by_name_or_by_number(tmp_path, values, classes):
    task = load(tmp_path, train=labelled(*values), validation=labelled(*values))
    assert task.labels == classes
    assert task.family == "sequence-classification"
    assert {row["label"] for row in task.splits["train"]} == set(range(len(classes)))


def test_examples_carry_text_pair_label_and_an_id_with_the_line(tmp_path):
    rows = [{"a b": "one", "ß": None, "y": "p"}, {"a b": "two", "ß": "three", "y": "q"}]
    fields = {"text_column": "a b", "text_pair_column": "ß", "label_column": "y"}
    task = load(tmp_path, fields, train=rows, validation=rows)
    assert task.splits["train"] == [
        {"id": "train-1", "text": "one", "text_pair": "", "label": 0},
        {"id": "train-2", "text": "two", "text_pair": "three", "label": 1},
    ]


@pytest.mark.parametrize(
    ("split", "rows", "message"),
    [
        ("train", labelled("a", None, "b", ""), r"train\.jsonl:2: 'label' is empty, as it is in 2 of 4 rows"),
        ("validation", labelled("a", float("nan")), r"validation\.jsonl:2: 'label' is empty, as it is in 1 of 2"),
        ("validation", labelled("a", "c"), r"validation\.jsonl:2: label: got 'c'; accepted: .* train split: a, b"),
        ("test", labelled("a", None), r"test\.jsonl:2: 'label' is empty"),
        ("train", labelled("a", 0.5), r"train\.jsonl:2: label: got 0\.5; accepted: a class.*scores are not supported"),
        ("train", labelled("0.5", "1"), r"train\.jsonl:1: label: got '0\.5'"),
        ("train", labelled("a", ["b"]), r"train\.jsonl:2: label: got \['b'\]"),
        ("train", [{"text": "a"}], r"train\.jsonl: no column 'label'; found: 'text'\."),
        ("train", [{"text": " ", "label": 1}], r"train\.jsonl:1: 'text' is empty"),
    ],
)
def test_a_label_or_text_that_cannot_be_used_names_the_row(tmp_path, split, rows, message):
    splits = {"train": labelled("a", "b"), "validation": labelled("a", "b"), split: rows}
    with pytest.raises(AptError, match=message):
        load(tmp_path, **splits)


@pytest.mark.parametrize(
    "test", [labelled(None, ""), labelled(-1, -1), labelled("-1", "-1"), [{"text": "no label column"}]]
)
def test_a_test_split_with_hidden_labels_is_left_out_with_a_note(tmp_path, test):
    task = load(tmp_path, train=labelled("a", "b"), validation=labelled("a", "b"), test=test)
    assert set(task.splits) == {"train", "validation"}
    assert task.notes == ("test: left out, its labels are hidden",)
    assert task.notes[0] in check_task(task)


def test_minus_one_in_test_is_a_class_where_train_has_it(tmp_path):
    task = load(tmp_path, train=labelled(-1, 1), validation=labelled(1), test=labelled(-1))
    assert task.splits["test"][0]["label"] == 0


def test_without_validation_a_share_of_every_class_is_set_aside(tmp_path):
    train = labelled(*["a"] * 80, *["b"] * 20, "c")
    test = labelled("a", "b")
    task = load(tmp_path, {"validation_fraction": 0.2}, train=train, test=test)
    assert Counter(row["label"] for row in task.splits["validation"]) == {0: 16, 1: 4}
    assert Counter(row["label"] for row in task.splits["train"]) == {0: 64, 1: 16, 2: 1}
    assert [row["text"] for row in task.splits["test"]] == ["text 0", "text 1"]
    assert task.notes == ("validation: 20 of 101 train examples set aside, the same for every seed",)
    assert load(tmp_path, {"validation_fraction": 0.2}, train=train, test=test).fingerprint() == task.fingerprint()


def test_too_few_examples_to_set_any_aside_are_refused(tmp_path):
    with pytest.raises(AptError, match=r"none of the 2 train examples can be set aside.*give a validation file"):
        load(tmp_path, train=labelled("a", "b"))


def test_one_class_is_refused_by_the_checks(tmp_path):
    with pytest.raises(AptError, match=r"holds one class only \(a\)"):
        check_task(load(tmp_path, train=labelled("a", "a"), validation=labelled("a")))


def test_a_class_for_every_example_is_doubted(tmp_path):
    rows = labelled(*(f"class {number}" for number in range(30)))
    notes = check_task(load(tmp_path, train=rows, validation=rows[:1]))
    assert "train: 30 classes for 30 examples; are the labels the right column?" in notes


@pytest.mark.parametrize("validation", ["validation.CSV", "dev.jsonl", "valid.tsv"])
def test_data_dir_finds_splits_by_name_and_ending(tmp_path, validation):
    separator = "\t" if validation.endswith("tsv") else ","
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\n")
    content = '{"text": "c", "label": "x"}\n' if "json" in validation else f"text{separator}label\nc{separator}x\n"
    (tmp_path / validation).write_text(content)
    (tmp_path / "README.md").write_text("not data")
    task = load_task("text-classification", DataSource(data_dir=str(tmp_path)))
    assert [row["text"] for row in task.splits["validation"]] == ["c"]
    assert task.notes == ()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train.csv", "train.jsonl"], r"several files for the train split: train\.csv, train\.jsonl"),
        (["train.csv", "dev.csv", "valid.csv"], r"several files for the validation split: dev\.csv, valid\.csv"),
        (["dev.csv"], r"no train file that can be read; accepted: train with .*\.csv.*; found: dev\.csv"),
        (["train.csv", "validation.xlsx"], r"no validation file that can be read.*found: train\.csv, validation\.xlsx"),
        ([], "no train file that can be read.*found: nothing"),
    ],
)
def test_data_dir_with_ambiguous_or_missing_files_is_refused(tmp_path, files, message):
    for name in files:
        (tmp_path / name).write_text("text,label\na,x\n")
    with pytest.raises(AptError, match=message):
        load_task("text-classification", DataSource(data_dir=str(tmp_path)))
