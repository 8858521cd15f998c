"""A run's copy in storage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from apt_core.errors import AptError
from apt_core.jobs.run_copy import RunCopy


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "run"
    (folder / "gates" / "deep").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "gates" / "deep" / "shard").write_bytes(b"\x00" * 100_000)
    (folder / "empty").write_text("")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def storage(tmp_path: Path) -> str:
    return (tmp_path / "a storage").as_uri()


def test_copy_comes_back(folder, tmp_path):
    RunCopy(storage(tmp_path), "0001-a").save(folder)
    assert RunCopy(storage(tmp_path), "0001-a").load(tmp_path / "back")
    assert contents(tmp_path / "back") == contents(folder) == contents(tmp_path / "a storage" / "0001-a")


def test_what_changes_is_copied_again_and_what_goes_is_removed(folder, tmp_path, monkeypatch):
    copy = RunCopy(storage(tmp_path), "a")
    copy.save(folder)
    written = []
    write = RunCopy._write
    monkeypatch.setattr(RunCopy, "_write", lambda self, name, source: (written.append(name), write(self, name, source)))
    (folder / "new").write_text("new")
    (folder / "run.json").write_text("{1}")
    (folder / "empty").unlink()
    os.utime(folder / "new", ns=(1, 2**62))
    copy.save(folder)
    copy.save(folder)
    assert written == ["run.json", "new"]  # the oldest first: what says that others are whole comes after them
    assert contents(tmp_path / "a storage" / "a") == contents(folder)


def test_links_are_passed_over(folder, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "folder").symlink_to(tmp_path)
    RunCopy(storage(tmp_path), "a").save(folder)
    assert set(contents(tmp_path / "a storage" / "a")) == {"run.json", "gates/deep/shard", "empty"}


def test_copy_of_nothing_is_there_and_empty(tmp_path):
    copy = RunCopy(storage(tmp_path), "a")
    assert not copy.exists()
    assert not copy.load(tmp_path / "back")
    copy.remove()
    copy.save(tmp_path / "missing")
    assert copy.exists()
    assert not copy.load(tmp_path / "back")
    copy.remove()
    assert not list((tmp_path / "a storage").iterdir())
    assert not (tmp_path / "back").exists()


def test_removed_copy_is_gone_and_others_stay(folder, tmp_path):
    for place in ("a", "b"):
        RunCopy(storage(tmp_path), place).save(folder)
    RunCopy(storage(tmp_path), "a").remove()
    assert [path.name for path in (tmp_path / "a storage").iterdir()] == ["b"]


@pytest.mark.parametrize("address", ["", "runs", "/mnt/runs", "nope://x", "s3://key:very-secret@bucket/runs"])
def test_storage_that_is_none_is_refused_without_its_login(address):
    with pytest.raises(
        AptError, match=r"storage: got .*; accepted: a folder that this machine and the nodes reach"
    ) as no:
        RunCopy(address, "a")
    assert "very-secret" not in str(no.value)


def test_storage_that_takes_nothing_says_so(folder, tmp_path):
    (tmp_path / "a storage").write_text("a file")
    with pytest.raises(OSError, match="a storage"):
        RunCopy(storage(tmp_path), "a").save(folder)


def test_what_goes_after_it_was_loaded_is_removed_and_the_rest_not_copied_again(folder, tmp_path, monkeypatch):
    """As on a node that goes on with a run: steps after its checkpoint are dropped."""
    RunCopy(storage(tmp_path), "a").save(folder)
    node = RunCopy(storage(tmp_path), "a")
    assert node.load(tmp_path / "node")
    (tmp_path / "node" / "gates" / "deep" / "shard").unlink()
    monkeypatch.setattr(RunCopy, "_write", lambda self, name, source: pytest.fail(f"copied again: {name}"))
    node.save(tmp_path / "node")
    assert contents(tmp_path / "a storage" / "a") == contents(tmp_path / "node")
