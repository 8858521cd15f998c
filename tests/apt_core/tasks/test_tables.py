"""File formats, read through a task: what works whatever it is called, and what is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apt_core.errors import AptError
from apt_core.tasks import load_task
from apt_core.tasks.base import TaskData
from apt_core.tasks.source import DataSource

ROWS = [
    {"Der Text ä": 'a "quoted" one,\nof two lines', "CLASS": "yes"},
    {"Der Text ä": "plain\ttab; semicolon", "CLASS": "no"},
    {"Der Text ä": "漢字 🙂", "CLASS": "yes"},
    {"Der Text ä": "x" * 200_000, "CLASS": "no"},
]
COLUMNS = {"text_column": "Der Text ä", "label_column": "CLASS"}


def as_csv(path: Path, separator: str = ",", **options) -> None:
    pandas.DataFrame(ROWS).to_csv(path, sep=separator, index=False, **options)


WRITERS = {
    "plain.csv": as_csv,
    "bom.csv": lambda path: as_csv(path, encoding="utf-8-sig"),
    "windows.csv": lambda path: path.write_bytes(
        pandas.DataFrame(ROWS).to_csv(index=False, lineterminator="\r\n").encode()
    ),
    "a.tsv": lambda path: as_csv(path, "\t"),
    "UPPER.CSV": as_csv,
    "a.jsonl": lambda path: path.write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8-sig"),
    "lines.json": lambda path: path.write_text("\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)),
    "array.json": lambda path: path.write_text(json.dumps(ROWS, indent=2), encoding="utf-8-sig"),
    "a.parquet": lambda path: pandas.DataFrame(ROWS).to_parquet(path),
    "categories.parquet": lambda path: pandas.DataFrame(ROWS).astype({"CLASS": "category"}).to_parquet(path),
}


def classified(path: Path, **fields) -> TaskData:
    return load_task("text-classification", DataSource(train_file=str(path), validation_file=str(path), **fields))


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_examples(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    task = classified(path, **COLUMNS)
    assert [row["text"] for row in task.splits["train"]] == [row["Der Text ä"] for row in ROWS]
    assert [task.labels[row["label"]] for row in task.splits["train"]] == ["yes", "no", "yes", "no"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", r"a\.csv: is empty"),
        ("a.csv", "\n\r\n", r"a\.csv: is empty"),
        ("a.csv", "text,label\n", r"a\.csv: holds a header and no example"),
        ("a.csv", "text,label\na,1\nb\n", r"a\.csv:3: 1 fields; accepted: 2"),
        ("a.csv", 'text,label\n"a\nb",1\nc,d,2\n', r"a\.csv:4: 3 fields; accepted: 2"),
        ("a.csv", 'text,label\na,1\n"b" c,1\n', r"a\.csv:3: .*double quotes"),
        ("a.csv", 'text,label\n"never closed,1\n', r"a\.csv:2: unexpected end of data"),
        ("a.csv", "text;label\na;1\n", r"a\.csv:1: got one column, 'text;label', which looks separated by ';'"),
        ("a.csv", "text,label,text\na,1,b\n", r"a\.csv: more than one column is named 'text'"),
        ("a.csv", "Text,label\na,1\n", r"a\.csv: no column 'text'; found: 'Text', 'label'. Did you mean 'Text'\?"),
        ("a.csv", "text,label\nCaf\xe9,1\n".encode("latin-1"), r"a\.csv:2: no text in UTF-8"),
        ("a.csv", "text,label\na,1\n".encode("utf-16"), r"a\.csv:1: no text in UTF-8"),
        ("a.csv", b"text,label\na\0,1\n", r"a\.csv:2: holds NUL characters"),
        ("a.tsv", "text,label\na,1\n", r"a\.tsv:1: got one column, 'text,label', which looks separated by ','"),
        ("a.jsonl", "", r"a\.jsonl: holds no example"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": 5, "label": 1}', r"a\.jsonl:2: text: got 5; accepted: text"),
        ("a.jsonl", b"PAR1\x15\x04\x15\x10\n", r"a\.jsonl:1: got"),
        ("a.json", "[]", r"a\.json: holds no example"),
        ("a.json", '[{"text": "a"}, 3]', r"a\.json: row 2: got 3; accepted: a JSON object"),
        ("a.json", '[{"text": "a"', r"a\.json: got .*; accepted: a JSON array"),
        ("a.parquet", "text,label\na,1\n", r"a\.parquet: no Parquet file that can be read"),
        ("a.parquet", "", r"a\.parquet: no Parquet file that can be read"),
        ("a.xlsx", "PK", r"a\.xlsx: got '\.xlsx'; accepted: a file that ends in \.csv, \.tsv"),
        ("a.txt", "a O\n", r"a\.txt: got '\.txt'; .*--task token-classification"),
    ],
)
def test_a_file_that_cannot_be_read_says_where_and_why_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AptError, match=message) as raised:
        classified(path)
    assert "\n" not in str(raised.value)


def test_parquet_without_rows_is_refused(tmp_path):
    pandas.DataFrame({"text": [], "label": []}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(AptError, match=r"a\.parquet: holds no example"):
        classified(tmp_path / "a.parquet")


def test_parquet_without_the_column_lists_what_it_has(tmp_path):
    pandas.DataFrame({f"c{n}": ["a"] for n in range(30)}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(AptError, match=r"no column 'label'; found: 'c0', .* and 10 more\. .*--label-column"):
        classified(tmp_path / "a.parquet")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AptError, match=r"none\.csv: no such file"):
        classified(tmp_path / "none.csv")


CONTENT = st.one_of(
    st.binary(max_size=60),
    st.text(alphabet="ab,;\t\"'\r\n\\{}[]:1O-\ufeff\u2028é", max_size=60).map(str.encode),
    st.lists(st.sampled_from([b"text,label", b'{"text": "a", "label": 1}', b"[", b"]", b",", b"a,1", b"\n"])).map(
        b"".join
    ),
)


@settings(max_examples=300)
@given(content=CONTENT, ending=st.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".parquet", ".conll"]))
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path_factory, content, ending):
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    path.write_bytes(content)
    task = "token-classification" if ending == ".conll" else "text-classification"
    source = DataSource(train_file=str(path), validation_file=str(path))
    said = ""
    try:
        load_task(task, source).fingerprint()
    except AptError as problem:
        said = str(problem)
    assert "\n" not in said
    assert not said or "any" in said
