"""Texts of a run's examples, from where the user's data is now; a run holds none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from analysis.example_texts import entity_rows, load_texts, needs_network, place_of, source_of, whole_text
from apt_core.errors import AptError, AptFileNotFoundError, AptValueError
from apt_core.run_format import RunInfo
from apt_core.tasks import load_task
from apt_core.tasks.shots import take_shots
from apt_core.tasks.source import DataSource

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def csv(tmp_path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for split, count in (("train", 12), ("validation", 6)):
        lines = [f"{split} text {number},{'ab'[number % 2]}" for number in range(count)]
        (folder / f"{split}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return folder


def run_on(folder: Path, **fields) -> RunInfo:
    files = {"train_file": str(folder / "train.csv"), "validation_file": str(folder / "validation.csv")}
    task = load_task("text-classification", DataSource(**files))
    fields = {"data": files, "data_hash": task.fingerprint(), **fields}
    return RunInfo(task="text-classification", labels=["a", "b"], **fields)


def test_texts_come_from_where_the_run_says_and_match_its_hash(csv):
    info = run_on(csv)
    source = source_of(info)
    assert place_of(source) == str(csv / "train.csv")
    found = load_texts(info, source)
    assert found.same_data
    assert whole_text(found.by_id["validation-2"]) == "validation text 0"  # line 2 of the file
    assert not load_texts(run_on(csv, data_hash="other"), source).same_data


def test_data_that_moved_is_found_in_the_folder_given(csv, tmp_path):
    info = run_on(csv)
    moved = csv.rename(tmp_path / "moved")
    with pytest.raises(AptFileNotFoundError, match="no such file"):
        load_texts(info, source_of(info))
    assert load_texts(info, source_of(info, str(moved))).same_data
    with pytest.raises(AptValueError, match="no folder on this machine"):
        source_of(info, str(tmp_path / "nowhere"))


def test_few_shot_run_knows_its_data_again(csv):
    whole = load_task("text-classification", source_of(run_on(csv)))
    info = run_on(csv, data_hash=take_shots(whole, 2, 7).fingerprint(), training={"shots": 2, "seed": 7})
    assert load_texts(info, source_of(info)).same_data


def test_built_in_task_needs_no_folder_and_unknown_tasks_are_refused():
    assert place_of(source_of(RunInfo(task="pydoc-topic"), "anything")) == ""
    with pytest.raises(AptValueError, match="task: got 'mine'"):
        source_of(RunInfo(task="mine"))
    with pytest.raises(AptError, match="nonsense"):
        source_of(RunInfo(task="copa", data={"nonsense": 1}))


def test_dataset_that_is_no_folder_is_known_to_need_the_network(csv):
    hub = source_of(RunInfo(task="text-classification", data={"dataset_name": "someone/something"}))
    assert needs_network(hub)
    assert not needs_network(source_of(RunInfo(task="text-classification", data={"dataset_name": str(csv)})))


def test_reading_texts_loads_no_torch(csv):
    script = (
        "import sys\n"
        "from analysis.pages import errors\n"
        "from analysis.example_texts import load_texts, source_of\n"
        "from apt_core.run_format import RunInfo\n"
        f"for data in ({{'train_file': {str(csv / 'train.csv')!r}}}, {{'dataset_name': {str(csv)!r}}}):\n"
        "    info = RunInfo(task='text-classification', data=data)\n"
        "    print(len(load_texts(info, source_of(info)).by_id) > 0)\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert result.stdout.splitlines() == ["True", "True", "[]"]


def test_whole_text_of_every_kind_of_example():
    assert whole_text({"text": "one", "text_pair": "two"}) == "one\ntwo"
    assert whole_text({"tokens": ["a", "b"]}) == "a b"
    assert whole_text({"context": "so", "choices": ["x", "y"]}) == "so\nchoice 1: x\nchoice 2: y"
    assert whole_text({"prompt": "", "target": "t"}) == "t"
    assert whole_text({"prompt": "p", "target": "t"}) == "prompt: p\ntarget: t"


def test_entities_of_an_example_are_listed_with_their_words():
    rows = entity_rows(["New", "York", "in", "May"], ["B-x", "I-x", "O", "O"], ["B-x", "I-x", "O", "B-y"])
    assert [(each["words"], each["type"], each["outcome"]) for each in rows] == [
        ("New York", "x", "right"),
        ("May", "y", "not there"),
    ]
