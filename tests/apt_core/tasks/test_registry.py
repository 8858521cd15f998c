"""Task names to data."""

from __future__ import annotations

import subprocess
import sys

import pytest

from apt_core.errors import AptError
from apt_core.tasks import load_task
from apt_core.tasks.source import DataSource

COPA = '{"premise": "It rained.", "choice1": "Wet.", "choice2": "Dry.", "question": "effect", "label": 0, "idx": 7}\n'
COPA_CAUSE = COPA.replace("effect", "cause").replace('"label": 0', '"label": 1').replace("7", "8")
CONLL = "Paris\tB-location\n\nHi\tO\n"


def write_copa(folder, lines: str = COPA + COPA_CAUSE, splits: tuple[str, ...] = ("train", "validation", "test")):
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        (folder / f"{split}.jsonl").write_text(lines)
    return folder


@pytest.mark.parametrize("inside", [True, False])
def test_load_task_finds_the_tasks_folder_or_its_parent(tmp_path, inside):
    folder = write_copa(tmp_path / "copa")
    task = load_task("copa", DataSource(data_dir=str(folder if inside else tmp_path)))
    assert {split: len(rows) for split, rows in task.splits.items()} == {"train": 2, "validation": 2, "test": 2}


def test_copa_example_joins_premise_and_question(tmp_path):
    effect, cause = load_task("copa", DataSource(data_dir=str(write_copa(tmp_path)))).splits["train"]
    assert effect == {
        "id": "train-7",
        "context": "It rained. What happened as a result?",
        "choices": ["Wet.", "Dry."],
        "label": 0,
    }
    assert cause["context"].endswith("What was the cause of this?")


def test_copa_without_test_split_has_none(tmp_path):
    assert set(
        load_task("copa", DataSource(data_dir=str(write_copa(tmp_path, splits=("train", "validation"))))).splits
    ) == {
        "train",
        "validation",
    }


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (COPA.replace("effect", "why"), "question: got 'why'; accepted: cause or effect"),
        (COPA.replace('"label": 0', '"label": 2'), "label: got 2; accepted: 0 or 1"),
        (COPA.replace('"premise": "It rained.", ', ""), r"train\.jsonl:1: field 'premise' is missing"),
    ],
)
def test_copa_with_an_unusable_example_says_where(tmp_path, lines, message):
    with pytest.raises(AptError, match=message):
        load_task("copa", DataSource(data_dir=str(write_copa(tmp_path, lines))))


def test_wnut17_labels_are_iob2_tags_with_o_first(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / f"{split}.conll").write_text(CONLL)
    task = load_task("wnut17", DataSource(data_dir=str(tmp_path)))
    assert task.labels == ("O", "B-location", "I-location")
    assert task.splits["train"][1] == {"id": "train-3", "tokens": ["Hi"], "tags": ["O"]}


@pytest.mark.parametrize(
    ("name", "data_dir", "message"),
    [
        ("sst9", None, "task: got 'sst9'; accepted: pydoc-topic, "),
        ("copa", None, "task copa reads files; give --data-dir"),
        ("copa", "no/such/folder", "data-dir: got 'no/such/folder', which is not a folder"),
    ],
)
def test_load_task_with_bad_arguments_raises(name, data_dir, message):
    with pytest.raises(AptError, match=message):
        load_task(name, DataSource(data_dir=data_dir))


def test_load_task_of_a_folder_without_the_files_names_the_first(tmp_path):
    with pytest.raises(AptError, match=r"train\.jsonl: no such file"):
        load_task("copa", DataSource(data_dir=str(tmp_path)))


def test_fingerprint_changes_with_one_letter(tmp_path):
    one = load_task("copa", DataSource(data_dir=str(write_copa(tmp_path / "a"))))
    same = load_task("copa", DataSource(data_dir=str(write_copa(tmp_path / "b"))))
    other = load_task(
        "copa", DataSource(data_dir=str(write_copa(tmp_path / "c", (COPA + COPA_CAUSE).replace("Wet", "Web"))))
    )
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


def test_importing_the_registry_loads_nothing_heavy():
    heavy = ("torch", "transformers", "datasets", "sklearn")
    script = f"import sys, apt_core.tasks; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
