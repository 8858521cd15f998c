"""Notes, names and the trash: only real folders in the given folders of runs, and always the state of now."""

from __future__ import annotations

import json
import os

import pytest

from analysis.run_edits import check_name, delete, empty_trash, rename, save_notes, trashed, undo
from analysis.run_notes import MAX_NOTES_BYTES, Notes, changed_notes, read_notes, write_notes
from analysis.runs import find_runs
from apt_core.errors import AptError, AptFileExistsError, AptFileNotFoundError, AptValueError
from apt_core.run_format import RunInfo, read_run_info
from apt_core.run_writer import RunWriter


@pytest.fixture
def root(tmp_path, record_run):
    record_run(tmp_path / "runs" / "a", steps=2)
    return tmp_path / "runs"


@pytest.fixture
def running(root):
    writer = RunWriter(root / "live", RunInfo(num_layers=1, prefix_lengths=[1], parent="a"))
    yield root / "live"
    writer.finish()


def test_notes_of_a_run_without_any_are_empty(root):
    assert read_notes(root / "a") == Notes()


def test_save_notes_changes_one_thing_and_keeps_the_others(root):
    save_notes([root], root / "a", tags=["good", "paper"], notes="seed 3 is odd")
    save_notes([root], root / "a", hidden=True)
    notes = read_notes(root / "a")
    assert (notes.tags, notes.notes, notes.hidden) == (("good", "paper"), "seed 3 is odd", True)
    assert {path.name for path in (root / "a").iterdir()} == {"run.json", "gates", "notes.json"}


@pytest.mark.parametrize("tag", ["", " x", "a,b", "x" * 41, "two\nlines", "\u202e"])
def test_tag_that_is_not_accepted_raises(tag):
    with pytest.raises(AptValueError, match=r"tag: got .*accepted: 1 to 40 printable characters"):
        changed_notes(Notes(), tags=[tag])


def test_too_many_tags_and_too_long_notes_raise():
    with pytest.raises(AptValueError, match="tags"):
        changed_notes(Notes(), tags=[str(number) for number in range(21)])
    with pytest.raises(AptValueError, match="notes"):
        changed_notes(Notes(), notes="x" * 10_001)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "damaged"),
        ("[" * 10_000, "damaged"),
        ("[]", "valid dictionary|instance of Notes"),
        ('{"tags": "x"}', "tags"),
        ('{"hidden": "yes"}', "hidden"),
        ('{"schema_version": 2}', "schema_version: got 2; accepted: up to 1"),
        ('{"colour": "red"}', "colour"),
        (" " * (MAX_NOTES_BYTES + 1), "accepted: up to"),
    ],
)
def test_damaged_notes_are_refused_and_never_overwritten(root, content, reason):
    (root / "a" / "notes.json").write_text(content)
    with pytest.raises(AptValueError, match=reason):
        read_notes(root / "a")
    with pytest.raises(AptValueError, match=reason):
        save_notes([root], root / "a", hidden=True)
    assert (root / "a" / "notes.json").read_text() == content


def test_write_notes_does_not_write_through_a_link(root, tmp_path):
    (tmp_path / "outside.json").write_text("outside")
    (root / "a" / "notes.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(AptValueError, match="not a regular file"):
        read_notes(root / "a")
    write_notes(root / "a", Notes(notes="mine"))
    assert (tmp_path / "outside.json").read_text() == "outside"
    assert read_notes(root / "a").notes == "mine"


def test_rename_moves_the_folder_and_tells_finished_children(root, record_run):
    record_run(root / "child", steps=1, parent="a")
    record_run(root / "other", steps=1, parent="b")
    assert rename([root], root / "a", "better name") == root / "better name"
    assert read_run_info(root / "child").parent == "better name"
    assert read_run_info(root / "other").parent == "b"
    assert sorted(run.name for run in find_runs([root]).runs) == ["better name", "child", "other"]


def test_rename_leaves_children_of_a_namesake_elsewhere(root, record_run, tmp_path):
    other = tmp_path / "other"
    record_run(other / "a", steps=1)
    record_run(other / "child", steps=1, parent="a")
    rename([root, other], root / "a", "b")
    assert read_run_info(other / "child").parent == "a"


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "../a", "x:y", " a", "a\n", "x" * 121, "é" * 128]
)
def test_name_that_is_not_accepted_raises(root, name):
    with pytest.raises(AptValueError, match="name: got"):
        rename([root], root / "a", name)
    assert (root / "a" / "run.json").is_file()


def test_name_of_another_language_is_accepted():
    check_name("试验 3 (naïve)")


def test_rename_to_a_name_that_exists_raises(root, record_run):
    record_run(root / "b", steps=1)
    (root / "c").symlink_to("nowhere")
    for name in ("b", "c"):
        with pytest.raises(AptFileExistsError, match="accepted: a name that is free"):
            rename([root], root / "a", name)


def test_running_run_is_neither_renamed_nor_deleted(root, running):
    for act in (lambda: rename([root], running, "b"), lambda: delete([root], running)):
        with pytest.raises(AptValueError, match="accepted: a run that is not running"):
            act()
    assert running.is_dir()


def test_parent_of_a_running_run_is_not_renamed(root, running):
    info = json.loads((root / "a" / "run.json").read_text())
    (root / "a" / "run.json").write_text(json.dumps({**info, "task": ""}))
    with pytest.raises(AptValueError, match="'runs/live' is running: finish or delete it first"):
        rename([root], root / "a", "b")
    assert (root / "a").is_dir()


def test_rename_that_cannot_tell_a_child_changes_nothing(root, record_run, monkeypatch):
    record_run(root / "child", steps=1, parent="a")

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("analysis.run_edits.update_finished_run", fail)
    with pytest.raises(OSError, match="disk full"):
        rename([root], root / "a", "b")
    assert (root / "a").is_dir()
    assert read_run_info(root / "child").parent == "a"


def test_child_with_a_planted_temporary_file_is_not_written(root, record_run, tmp_path):
    record_run(root / "child", steps=1, parent="a")
    (tmp_path / "outside").write_text("outside")
    (root / "child" / "run.json.tmp").symlink_to(tmp_path / "outside")
    with pytest.raises(AptValueError, match="delete that file first"):
        rename([root], root / "a", "b")
    assert (tmp_path / "outside").read_text() == "outside"


def test_deleted_run_is_in_the_trash_until_undone(root):
    item = delete([root], root / "a")
    assert not (root / "a").exists()
    assert find_runs([root]) == ([], [])
    assert trashed([root]) == [item]
    assert undo([root], item) == root / "a"
    assert [run.name for run in find_runs([root]).runs] == ["a"]
    assert trashed([root]) == []
    with pytest.raises(AptFileNotFoundError, match="in the trash"):
        undo([root], item)


def test_undo_onto_a_name_taken_meanwhile_raises(root, record_run):
    item = delete([root], root / "a")
    record_run(root / "a", steps=1)
    with pytest.raises(AptFileExistsError, match=r"exists in .* again"):
        undo([root], item)
    second = delete([root], root / "a")
    assert {item, second} == set(trashed([root]))


def test_empty_trash_removes_runs_but_not_what_they_link_to(root, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    (root / "a" / "link").symlink_to(tmp_path / "outside")
    delete([root], root / "a")
    (root / ".trash" / "planted").symlink_to(tmp_path / "outside")
    assert empty_trash([root], []) == 0
    assert empty_trash([root], trashed([root])) == 1
    assert trashed([root]) == []
    assert (tmp_path / "outside" / "kept").exists()


def test_trash_that_is_a_link_is_not_used(root, tmp_path):
    (tmp_path / "outside").mkdir()
    (root / ".trash").symlink_to(tmp_path / "outside")
    with pytest.raises(AptValueError, match="link or a file"):
        delete([root], root / "a")
    assert list((tmp_path / "outside").iterdir()) == []
    assert trashed([root]) == []
    assert (root / "a").is_dir()


def test_only_real_folders_directly_in_the_roots_are_touched(root, record_run, tmp_path):
    outside = record_run(tmp_path / "outside", steps=1)
    inner = record_run(root / "a" / "inner", steps=1)
    os.symlink(outside, root / "linked")
    (root / "no-run").mkdir()
    places = [
        outside,
        inner,
        root / "linked",
        root / "no-run",
        root / "a" / ".." / "a",
        root / "..",
        root,
        root / "gone",
    ]
    for place in places:
        for act in (
            lambda place=place: delete([root], place),
            lambda place=place: rename([root], place, "b"),
            lambda place=place: save_notes([root], place, hidden=True),
        ):
            with pytest.raises(AptError):
                act()
    assert outside.is_dir()
    assert inner.is_dir()
    assert not (outside / "notes.json").exists()


def test_trash_is_emptied_of_what_was_listed_and_not_of_what_came_later(root, record_run):
    first = delete([root], root / "a")
    record_run(root / "b", steps=2)
    later = delete([root], root / "b")
    assert empty_trash([root], [first]) == 1
    assert trashed([root]) == [later]


def test_runs_of_a_sweep_take_notes_but_keep_their_place(root, record_run):
    folder = record_run(root / "grid" / "c", steps=2)
    (root / "grid" / "sweep.json").write_text("{}")
    save_notes([root], folder, tags=["kept"])
    assert read_notes(folder).tags == ("kept",)
    for change in (lambda: delete([root], folder), lambda: rename([root], folder, "d")):
        with pytest.raises(AptValueError, match="a run directly inside a folder of runs"):
            change()
    opened_as_the_sweep_says = [root / "grid"]
    save_notes(opened_as_the_sweep_says, folder, tags=["kept", "too"])
    for change in (delete, lambda *place: rename(*place, "d")):
        with pytest.raises(AptValueError, match="which is of a sweep"):
            change(opened_as_the_sweep_says, folder)
    with pytest.raises(AptValueError, match="a run directly inside a folder of runs"):
        save_notes([root / "elsewhere"], folder, tags=["x"])
