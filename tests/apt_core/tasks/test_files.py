"""Readers of data files: what they accept, and how they name what is wrong."""

from __future__ import annotations

import pytest

from apt_core.errors import AptError, AptFileNotFoundError
from apt_core.tasks.files import read_conll, read_jsonl


def write(path, content: str | bytes):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_read_jsonl_passes_over_empty_lines_and_byte_order_mark(tmp_path):
    path = write(tmp_path / "a.jsonl", '\ufeff{"x": 1}\r\n\r\n{"x": 2}')
    table = read_jsonl(path, {"x": int})
    assert [row["x"] for row in table.rows] == [1, 2]
    assert table.where(1) == f"{path}:3"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"x": 1}\n{"x": \n', r"a\.jsonl:2: got .* accepted: one JSON object per line"),
        ('{"x": 1}\n[1]\n', r"a\.jsonl:2: got \[1\]"),
        ('{"x": 1}\n{"y": 1}\n', r"a\.jsonl:2: field 'x' is missing; found: y"),
        ('{"x": "1"}\n', r"a\.jsonl:1: x: got '1'; accepted: a value of type int"),
        ('{"x": true}\n', r"a\.jsonl:1: x: got True"),
        ("", r"a\.jsonl: holds no example"),
        ("\n \n", r"a\.jsonl: holds no example"),
        (b'{"x": 1}\n{"x": "\xff"}\n', r"a\.jsonl:2: .*UTF-8"),
        ('{"x": 1}\n{"x": 1, "y": "\\ud83d"}\n', r"a\.jsonl:2: .*whole characters"),
        ("[" * 100_000, r"a\.jsonl:1: got .*recursion"),
    ],
)
def test_read_jsonl_with_a_malformed_line_names_file_and_line(tmp_path, content, message):
    with pytest.raises(AptError, match=message):
        read_jsonl(write(tmp_path / "a.jsonl", content), {"x": int})


def test_read_of_a_missing_file_raises(tmp_path):
    with pytest.raises(AptFileNotFoundError, match="no such file"):
        read_jsonl(tmp_path / "none.jsonl", {})


@pytest.mark.parametrize(
    "content",
    [
        "Paris\tB-location\n!\tO\n\nHi\tO\n",
        "\ufeffParis\tB-location\r\n!\tO\r\n\r\nHi\tO\r\n",
        "Paris B-location\n! O\n\t\nHi O",
        "-DOCSTART-\tO\n\nParis\tB-location\tB-extra\n!\tO\n \n\n\nHi\tO",
    ],
)
def test_read_conll_reads_sentences_whatever_the_line_ends(tmp_path, content):
    table = read_conll(write(tmp_path / "a.conll", content), tag_column=1)
    assert table.rows == [
        {"tokens": ["Paris", "!"], "tags": ["B-location", "O"]},
        {"tokens": ["Hi"], "tags": ["O"]},
    ]


def test_read_conll_takes_columns_from_either_end(tmp_path):
    path = write(tmp_path / "a.conll", "1 Paris NNP B-LOC\n2 # SYM O\n")
    (row,) = read_conll(path, token_column=1, tag_column=-1).rows
    assert row == {"tokens": ["Paris", "#"], "tags": ["B-LOC", "O"]}
    assert read_conll(path, token_column=-3, tag_column=2).rows[0]["tags"] == ["NNP", "SYM"]


def test_read_conll_names_the_line_of_each_token(tmp_path):
    table = read_conll(write(tmp_path / "a.conll", "a O\n\nb O\nc O\n"))
    assert table.where(1, 1) == f"{tmp_path / 'a.conll'}:4"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Paris\tB-location\nHi\n", r"a\.conll:2: got 'Hi'; accepted: a token in column 0 and its tag in column -1"),
        ("Paris\t\n", r"a\.conll:1"),
        ("\tO\n", r"a\.conll:1"),
        ("\n\n", r"a\.conll: holds no sentence"),
        (b"Caf\xe9\tO\n", r"a\.conll:1: .*UTF-8"),
    ],
)
def test_read_conll_with_a_malformed_line_names_file_and_line(tmp_path, content, message):
    with pytest.raises(AptError, match=message):
        read_conll(write(tmp_path / "a.conll", content))
