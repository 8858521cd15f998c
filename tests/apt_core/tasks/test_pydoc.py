"""The built-in tasks: real docstrings, balanced, no module in two splits, labels that the code supports."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from apt_core.tasks import load_task
from apt_core.tasks.base import TaskData
from apt_core.tasks.checks import check_task
from apt_core.tasks.pydoc_entities import _example, _names_of
from apt_core.tasks.pydoc_source import docstrings, read_modules, split_by_module


@pytest.fixture(scope="module", params=["pydoc-topic", "pydoc-entities"])
def task(request) -> TaskData:
    return load_task(request.param)


def test_no_module_is_in_two_splits(task):
    modules = {split: {row["id"].partition(":")[0] for row in rows} for split, rows in task.splits.items()}
    assert not modules["train"] & modules["validation"]
    assert not modules["train"] & modules["test"]
    assert not modules["validation"] & modules["test"]


def test_texts_are_many_and_pass_the_checks(task):
    assert sum(map(len, task.splits.values())) >= 2_000
    assert not [note for note in check_task(task) if "that is in train" in note or "majority" in note]
    ids = [row["id"] for rows in task.splits.values() for row in rows]
    assert len(ids) == len(set(ids))


def test_building_twice_gives_the_same_data(task):
    assert load_task(task.name).fingerprint() == task.fingerprint()


def test_topics_are_exactly_balanced():
    task = load_task("pydoc-topic")
    assert 8 <= len(task.labels) <= 10
    for rows in task.splits.values():
        counts = Counter(row["label"] for row in rows)
        assert len(counts) == len(task.labels)
        assert len(set(counts.values())) == 1


SOURCE = '''
class PartialReader(Base):
    """A reader that uses other_reader and raises ReadError."""

class ReadError(Exception):
    """Never mind, this one says nothing of note."""

def copy_all(source, *, keep, limit=None):
    """Call read_one() for source, keep an int and a list of str, raise ValueError or ReadError.

    A set of limit items goes to PartialReader; see os.path.join and self.keep_all, print and print(x).
    """
    raise OSError(keep)

def read_one(): pass
'''


def test_entities_are_labelled_from_the_code():
    tree = ast.parse(SOURCE)
    found = {row.name: row for row in docstrings("module", tree, min_words=5)}
    example = _example(found["copy_all"], _names_of(tree))
    labelled = [(token, tag) for token, tag in zip(example["tokens"], example["tags"], strict=True) if tag != "O"]
    assert labelled == [
        ("read_one", "B-CALL"),
        ("source", "B-PARAM"),
        ("keep", "B-PARAM"),
        ("int", "B-TYPE"),
        ("str", "B-TYPE"),
        ("ValueError", "B-EXC"),
        ("ReadError", "B-EXC"),
        ("limit", "B-PARAM"),
        ("PartialReader", "B-TYPE"),
        ("print", "B-CALL"),
    ]


def test_docstrings_are_cleaned_and_named_by_where_they_stand():
    found = list(docstrings("module", ast.parse(SOURCE), min_words=5))
    assert [row.id for row in found] == ["module:PartialReader", "module:ReadError", "module:copy_all"]
    assert "\n" not in found[2].text
    assert "  " not in found[2].text


def test_read_modules_of_an_unknown_name_is_empty():
    assert list(read_modules(["no_such_module_of_the_library"])) == []


def test_split_by_module_keeps_modules_whole():
    tree = ast.parse('"""one two three four five"""')
    found = [row for index in range(40) for row in docstrings(f"m{index}", tree, 5)]
    splits = split_by_module(found)
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 30, "validation": 4, "test": 6}
