"""Pilots on disk: round trip, hostile files, deletion with undo."""

from __future__ import annotations

import json
import os

import pytest

from analysis.pilot_files import (
    create_pilot,
    delete_pilot,
    find_pilots,
    pilot_path,
    read_pilot,
    save_pilot,
    undo_delete,
)
from apt_core.errors import AptError, AptFileExistsError, AptFileNotFoundError, AptValueError
from tests.analysis.pilot_world import PILOT


def test_pilot_comes_back_as_it_was_kept(tmp_path):
    create_pilot(tmp_path, "demo", PILOT)
    assert find_pilots(tmp_path).pilots == {"demo": PILOT}
    changed = PILOT.model_copy(update={"budget": None})
    save_pilot(tmp_path, "demo", changed)
    assert read_pilot(pilot_path(tmp_path, "demo")) == changed
    assert [path.name for path in (tmp_path / ".pilots").iterdir()] == ["demo.json"]


def test_newest_pilot_comes_first(tmp_path):
    for name, day in (("old", 1), ("new", 3), ("middle", 2)):
        create_pilot(tmp_path, name, PILOT.model_copy(update={"created_at": f"2026-03-0{day}T00:00:00+00:00"}))
    assert list(find_pilots(tmp_path).pilots) == ["new", "middle", "old"]


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-flag", " a", "a\nb", "x" * 61, "c:d", "a\\b"])
def test_names_that_are_no_names_are_refused(tmp_path, name):
    with pytest.raises(AptValueError, match="accepted"):
        create_pilot(tmp_path, name, PILOT)


def test_taken_name_is_refused(tmp_path):
    create_pilot(tmp_path, "demo", PILOT)
    with pytest.raises(AptFileExistsError, match="is a pilot already"):
        create_pilot(tmp_path, "demo", PILOT)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "damaged"),
        (b"[1]", "instead of an object"),
        (b"\xff\xfe", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"{}", "Field required"),
        (json.dumps({**PILOT.model_dump(mode="json"), "schema_version": 99}).encode(), "Update this program"),
        (json.dumps({**PILOT.model_dump(mode="json"), "unknown": 1}).encode(), "unknown"),
        (json.dumps({**PILOT.model_dump(mode="json"), "seeds": [1, 1]}).encode(), "different ones"),
        (json.dumps({**PILOT.model_dump(mode="json"), "data": {"x": 1}}).encode(), "x"),
        (b" " * (2**20 + 1), "larger than"),
    ],
)
def test_damaged_file_is_listed_with_the_reason(tmp_path, content, said):
    create_pilot(tmp_path, "good", PILOT)
    pilot_path(tmp_path, "bad").write_bytes(content)
    found = find_pilots(tmp_path)
    assert list(found.pilots) == ["good"]
    assert said in found.rejected[0].reason


def test_links_and_pipes_are_not_followed(tmp_path):
    create_pilot(tmp_path, "good", PILOT)
    pilot_path(tmp_path, "link").symlink_to(pilot_path(tmp_path, "good"))
    os.mkfifo(pilot_path(tmp_path, "pipe"))
    found = find_pilots(tmp_path)
    assert list(found.pilots) == ["good"]
    assert len(found.rejected) == 2


def test_linked_folder_of_pilots_is_left_alone(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".pilots").symlink_to(tmp_path / "elsewhere")
    assert find_pilots(tmp_path) == ({}, [])
    with pytest.raises(AptValueError, match="link"):
        create_pilot(tmp_path, "demo", PILOT)


def test_deleted_pilot_can_be_put_back(tmp_path):
    create_pilot(tmp_path, "demo", PILOT)
    trashed = delete_pilot(tmp_path, "demo")
    assert find_pilots(tmp_path).pilots == {}
    assert undo_delete(tmp_path, trashed) == "demo"
    assert find_pilots(tmp_path).pilots == {"demo": PILOT}
    with pytest.raises(AptError, match="exists again"):
        undo_delete(tmp_path, trashed)
    delete_pilot(tmp_path, "demo")
    with pytest.raises(AptFileNotFoundError, match="no longer there"):
        delete_pilot(tmp_path, "demo")
    with pytest.raises(AptFileNotFoundError, match="no longer in the trash"):
        undo_delete(tmp_path, trashed)
