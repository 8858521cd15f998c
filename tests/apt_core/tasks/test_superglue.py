"""SuperGLUE's files, in full and in the few-shot protocol."""

from __future__ import annotations

import json

import pytest

from apt_core.errors import AptError
from apt_core.tasks import load_task
from apt_core.tasks.source import DataSource

ROWS = {
    "boolq": ({"question": "is it", "passage": "It is."}, [True, False], ("is it", "It is.")),
    "cb": ({"premise": "P", "hypothesis": "H"}, ["entailment", "contradiction", "neutral"], ("P", "H")),
    "rte": ({"premise": "P", "hypothesis": "H"}, ["entailment", "not_entailment"], ("P", "H")),
    "wic": ({"word": "w", "sentence1": "A w.", "sentence2": "B w."}, [True, False], ("w: A w.", "B w.")),
    "wsc": (
        {"text": "Tom said he came.", "target": {"span1_text": "Tom", "span2_text": "he"}},
        [True, False],
        ("Tom said he came.", "he refers to Tom"),
    ),
}


def write(folder, name: str, stems: tuple[str, ...], **changes):
    row, labels, _ = ROWS[name]
    folder.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        rows = [{**row, "label": label, **changes} for label in labels]
        (folder / f"{stem}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return folder


@pytest.mark.parametrize("name", ROWS)
def test_texts_and_labels_are_read(tmp_path, name):
    task = load_task(name, DataSource(data_dir=str(write(tmp_path, name, ("train", "validation", "test")))))
    _, labels, texts = ROWS[name]
    train = task.splits["train"]
    assert [(row["text"], row["text_pair"]) for row in train] == [texts] * len(labels)
    assert [task.labels[row["label"]] for row in train] == [str(label).lower() for label in labels]
    assert set(task.splits) == {"train", "validation", "test"}


def test_few_shot_folder_selects_on_dev32_and_tests_on_validation(tmp_path):
    folder = write(tmp_path, "rte", ("train", "dev32"))
    write(folder, "rte", ("validation",), premise="the real thing")
    task = load_task("rte", DataSource(data_dir=str(folder)))
    assert task.splits["validation"][0]["id"] == "dev32-1"
    assert task.splits["test"][0]["text"] == "the real thing"


def test_few_shot_folder_of_copa_follows_the_same_protocol(tmp_path):
    row = {"premise": "It rained.", "choice1": "Wet.", "choice2": "Dry.", "question": "effect", "label": 0}
    for stem in ("train", "dev32", "validation"):
        (tmp_path / f"{stem}.jsonl").write_text(json.dumps({**row, "choice1": stem}) + "\n")
    task = load_task("copa", DataSource(data_dir=str(tmp_path)))
    chosen = {split: examples[0]["choices"][0] for split, examples in task.splits.items()}
    assert chosen == {"train": "train", "validation": "dev32", "test": "validation"}


def test_few_shot_folder_without_validation_is_refused(tmp_path):
    with pytest.raises(AptError, match=r"validation\.jsonl: no such file; with dev32\.jsonl it is the test split"):
        load_task("rte", DataSource(data_dir=str(write(tmp_path, "rte", ("train", "dev32")))))


def test_integer_labels_of_the_hub_are_read(tmp_path):
    task = load_task("rte", DataSource(data_dir=str(write(tmp_path, "rte", ("train", "validation"), label=1))))
    assert {row["label"] for row in task.splits["train"]} == {1}


@pytest.mark.parametrize("label", ["maybe", 2, -1, None, 0.5])
def test_unknown_label_names_the_example(tmp_path, label):
    folder = write(tmp_path, "rte", ("train", "validation"), label=label)
    with pytest.raises(AptError, match=r"train\.jsonl:1: label: got .*; accepted: entailment or not_entailment"):
        load_task("rte", DataSource(data_dir=str(folder)))


def test_missing_field_names_file_and_line(tmp_path):
    folder = write(tmp_path, "cb", ("validation",))
    (folder / "train.jsonl").write_text('{"premise": "P", "label": "neutral"}\n')
    with pytest.raises(AptError, match=r"train\.jsonl:1: field 'hypothesis' is missing"):
        load_task("cb", DataSource(data_dir=str(folder)))
