"""Token classification of one's own data: tables and CoNLL files."""

from __future__ import annotations

import json
from pathlib import Path

import pandas
import pytest

from apt_core.errors import AptError
from apt_core.tasks import load_task
from apt_core.tasks.base import TaskData
from apt_core.tasks.checks import check_task
from apt_core.tasks.source import DataSource

CONLL = "West NNP I-LOC\nBank NNP I-LOC\n# SYM B-LOC\nis VB O\n\nAnn NNP I-PER\n"


def tagged(path: Path, content: str | bytes, **fields) -> TaskData:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_task("token-classification", DataSource(train_file=str(path), validation_file=str(path), **fields))


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("name", ["a.conll", "a.txt", "a.iob", "A.BIO"])
@pytest.mark.parametrize(
    "content",
    [
        CONLL,
        CONLL.replace(" ", "\t"),
        "\ufeff" + CONLL.replace("\n", "\r\n"),
        "-DOCSTART- -X- O\n\n" + CONLL + "\n\n",
    ],
)
def test_conll_files_are_read_in_the_scheme_of_the_train_split(tmp_path, name, content):
    task = tagged(tmp_path / name, content)
    assert [row["tokens"] for row in task.splits["train"]] == [["West", "Bank", "#", "is"], ["Ann"]]
    assert [row["tags"] for row in task.splits["train"]] == [["B-LOC", "I-LOC", "B-LOC", "O"], ["B-PER"]]
    assert task.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert task.notes == ("tags: read as IOB1, which those of the train split follow; see --tag-scheme",)


def test_conll_columns_are_numbers_from_either_end(tmp_path):
    content = "1\tAnn\tB-PER\textra\n2\tis\tO\textra\n"
    for tags in ("2", "-2"):
        task = tagged(tmp_path / "a.conll", content, tokens_column="1", tags_column=tags)
        assert task.splits["train"] == [{"id": "train-1", "tokens": ["Ann", "is"], "tags": ["B-PER", "O"]}]


def test_validation_is_read_in_the_scheme_of_train(tmp_path):
    (tmp_path / "train.conll").write_text("Ann S-PER\nis O\n")
    (tmp_path / "dev.conll").write_text("Bob B-PER\nLee E-PER\n")
    (tmp_path / "test.conll").write_text("Bob I-PER\n")
    task = load_task("token-classification", DataSource(data_dir=str(tmp_path)))
    assert task.splits["validation"][0]["tags"] == ["B-PER", "I-PER"]
    assert task.splits["test"][0]["tags"] == ["B-PER"]


def test_a_given_scheme_goes_before_what_the_tags_look_like(tmp_path):
    task = tagged(tmp_path / "a.conll", CONLL, tag_scheme="iob2")
    assert task.splits["train"][0]["tags"] == ["I-LOC", "I-LOC", "B-LOC", "O"]
    assert task.notes == ()


ROW = {"words": ["Ann", "is"], "ner": ["B-PER", "O"]}


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet", "a.csv"])
def test_tables_hold_lists_or_text_separated_by_spaces(tmp_path, name):
    path = tmp_path / name
    if name == "a.parquet":
        pandas.DataFrame([ROW]).to_parquet(path)
    elif name == "a.csv":
        pandas.DataFrame([{column: " ".join(value) for column, value in ROW.items()}]).to_csv(path, index=False)
    else:
        path.write_text(json.dumps([ROW] if name == "a.json" else ROW))
    task = tagged(path, path.read_bytes(), tokens_column="words", tags_column="ner")
    assert task.splits["train"] == [
        {"id": f"train-{2 if name == 'a.csv' else 1}", "tokens": ["Ann", "is"]} | {"tags": ["B-PER", "O"]}
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.conll", "Ann B-PER\nis NOUN\n", r"a\.conll:2: tag: got 'NOUN'; accepted: IOB2: O, or B-<type>, I-<type>"),
        ("a.conll", "Ann S-PER\n\nis M-PER\n", r"a\.conll:3: tag: got 'M-PER'; accepted: BIOES or BILOU: O, or"),
        ("a.conll", "Ann B-PER\nis\n", r"a\.conll:2: got 'is'; accepted: a token in column 0 and its tag in column -1"),
        ("a.conll", "", r"a\.conll: holds no sentence"),
        ("a.conll", b"\x89PNG\r\n\xff\n", r"a\.conll:1: .*UTF-8"),
        ("a.jsonl", lines({"tokens": ["a"], "tags": []}), r"a\.jsonl:1: 'tags' is empty, as it is in 1 of 1 rows"),
        (
            "a.jsonl",
            lines({"tokens": ["a"], "tags": ["O", "O"]}),
            r"a\.jsonl:1: 1 tokens in 'tokens', 2 tags in 'tags'",
        ),
        (
            "a.jsonl",
            lines({"tokens": ["a", 5], "tags": ["O", "O"]}),
            r"a\.jsonl:1: item 2: tokens: got 5; accepted: te",
        ),
        ("a.jsonl", lines({"tokens": ["a"], "tags": [3]}), r"a\.jsonl:1: item 1: tag: got 3; .*ClassLabel have them"),
        ("a.jsonl", lines({"tokens": 7, "tags": ["O"]}), r"a\.jsonl:1: tokens: got 7; accepted: a list"),
        ("a.jsonl", lines({"tokens": ["a"], "ner_tags": ["O"]}), r"no column 'tags'; found: 'tokens', 'ner_tags'"),
    ],
)
def test_a_token_or_tag_that_cannot_be_used_names_its_place(tmp_path, name, content, message):
    with pytest.raises(AptError, match=message):
        tagged(tmp_path / name, content)


def test_conll_column_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(AptError, match="tags-column: got 'ner'; accepted: in CoNLL files a column's number"):
        tagged(tmp_path / "a.conll", CONLL, tags_column="ner")


@pytest.mark.parametrize(
    "hidden", [{"tokens": ["a"]}, {"tokens": ["a"], "tags": [-1]}, {"tokens": ["a"], "tags": None}]
)
def test_a_test_split_with_hidden_tags_is_left_out_with_a_note(tmp_path, hidden):
    (tmp_path / "train.jsonl").write_text(lines({"tokens": ["a", "b"], "tags": ["B-x", "O"]}))
    (tmp_path / "dev.jsonl").write_text(lines({"tokens": ["a", "b"], "tags": ["B-x", "O"]}))
    (tmp_path / "test.jsonl").write_text(lines(hidden))
    task = load_task("token-classification", DataSource(data_dir=str(tmp_path)))
    assert set(task.splits) == {"train", "validation"}
    assert task.notes == ("test: left out, its labels are hidden",)


def test_sentences_set_aside_leave_every_entity_type_in_train(tmp_path):
    rows = [{"tokens": ["a", "b"], "tags": [f"B-{number % 30}", "O"]} for number in range(31)]
    (tmp_path / "train.jsonl").write_text(lines(*rows))
    task = load_task("token-classification", DataSource(data_dir=str(tmp_path), validation_fraction=0.5))
    assert [row["tags"][0] for row in task.splits["validation"]] == ["B-0"]
    check_task(task)
