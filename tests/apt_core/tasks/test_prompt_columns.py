"""Language modelling of one's own data: prompts and what is to be written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apt_core.errors import AptError
from apt_core.tasks import load_task
from apt_core.tasks.checks import check_task
from apt_core.tasks.shots import take_shots
from apt_core.tasks.source import DataSource

PAIRS = [{"prompt": f"question {number}", "target": f"answer {number % 3}"} for number in range(20)]


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("name", ["causal-lm", "seq2seq-lm"])
def test_prompt_and_target_are_read_and_a_share_is_set_aside(tmp_path, name):
    fields = {"prompt_column": "prompt"} if name == "causal-lm" else {}
    task = load_task(name, DataSource(train_file=write(tmp_path / "a.jsonl", PAIRS), **fields))
    assert (task.family, task.labels) == (name, ())
    assert {split: len(rows) for split, rows in task.splits.items()} == {"train": 18, "validation": 2}
    rows = sorted((row for split in task.splits.values() for row in split), key=lambda row: int(row["id"][6:]))
    assert rows[4] == {"id": "train-5", "prompt": "question 4", "target": "answer 1"}
    assert check_task(task) == ["validation: 2 of 20 train examples set aside, the same for every seed"]


def test_causal_lm_of_one_column_has_empty_prompts(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"Body": "once"}, {"Body": "upon"}])
    task = load_task("causal-lm", DataSource(train_file=path, validation_file=path, text_column="Body"))
    assert task.splits["train"][1] == {"id": "train-2", "prompt": "", "target": "upon"}
    assert check_task(task) == ["2 of 2 validation examples have a text that is in train too"]


@pytest.mark.parametrize(
    ("name", "row", "fields", "message"),
    [
        ("causal-lm", {"body": "a"}, {}, r"a\.jsonl: no column 'text'; found: 'body'\..*--text-column"),
        ("causal-lm", {"prompt": "a"}, {"prompt_column": "prompt"}, "no column 'target'.*--target-column"),
        ("causal-lm", {"text": ""}, {}, r"a\.jsonl:1: 'text' is empty"),
        ("seq2seq-lm", {"prompt": "a", "target": None}, {}, r"a\.jsonl:1: 'target' is empty"),
        ("seq2seq-lm", {"prompt": "", "target": "a"}, {}, r"a\.jsonl:1: 'prompt' is empty"),
        ("seq2seq-lm", {"prompt": {"a": 1}, "target": "a"}, {}, r"a\.jsonl:1: prompt: got .*accepted: text"),
    ],
)
def test_a_text_that_cannot_be_used_names_the_row(tmp_path, name, row, fields, message):
    with pytest.raises(AptError, match=message):
        load_task(name, DataSource(train_file=write(tmp_path / "a.jsonl", [row]), **fields))


def test_a_prompt_may_be_empty_for_a_decoder(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"prompt": None, "target": "a"}, {"prompt": "", "target": "b"}])
    task = load_task("causal-lm", DataSource(train_file=path, validation_file=path, target_column="target"))
    assert [row["prompt"] for row in task.splits["train"]] == ["", ""]


def test_a_test_split_without_targets_is_left_out(tmp_path):
    train = write(tmp_path / "a.jsonl", PAIRS)
    test = write(tmp_path / "b.jsonl", [{"prompt": "a"}])
    task = load_task("seq2seq-lm", DataSource(train_file=train, validation_file=train, test_file=test))
    assert set(task.splits) == {"train", "validation"}
    assert task.notes == ("test: left out, its labels are hidden",)


def test_shots_of_language_modelling_are_counted_in_all(tmp_path):
    path = write(tmp_path / "a.jsonl", PAIRS)
    task = load_task("seq2seq-lm", DataSource(train_file=path, validation_file=path))
    assert len(take_shots(task, shots=5, seed=1).splits["train"]) == 5
    with pytest.raises(AptError, match="shots: got 21; accepted: at most 20 in all"):
        take_shots(task, shots=21, seed=1)
