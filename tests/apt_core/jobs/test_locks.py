"""Locks that end with their process, and that a child inherits."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from apt_core.errors import AptValueError
from apt_core.jobs import locks

HOLDER = "import sys; print('ready', flush=True); sys.stdin.readline()"


def test_lock_is_one_holders_until_it_lets_go(tmp_path):
    path = tmp_path / "made" / "lock"
    assert not locks.is_held(path)
    descriptor = locks.take(path)
    assert locks.is_held(path)
    assert locks.take(path) is None
    os.close(descriptor)
    assert not locks.is_held(path)
    os.close(locks.take(path))


@pytest.mark.parametrize("end", ["kill", "finish"])
def test_child_that_inherits_a_lock_keeps_it_to_its_end(tmp_path, end):
    path = tmp_path / "lock"
    descriptor = locks.take(path)
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(descriptor,)
    )
    child.stdout.readline()
    os.close(descriptor)
    assert locks.is_held(path)
    if end == "kill":
        child.kill()
    child.communicate(b"\n")
    assert not locks.is_held(path)


def test_child_does_not_inherit_what_is_not_handed_to_it(tmp_path):
    descriptor = locks.take(tmp_path / "lock")
    child = subprocess.Popen([sys.executable, "-S", "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    os.close(descriptor)
    assert not locks.is_held(tmp_path / "lock")
    child.communicate(b"\n")


def test_looking_at_a_lock_does_not_hinder_others_who_look(tmp_path):
    path = tmp_path / "lock"
    os.close(locks.take(path))
    results = []
    lookers = [threading.Thread(target=lambda: results.extend(locks.is_held(path) for _ in range(200))) for _ in "abcd"]
    for looker in lookers:
        looker.start()
    for looker in lookers:
        looker.join()
    assert results == [False] * 800


def test_waiting_ends_when_the_holder_lets_go_or_removes_the_file(tmp_path):
    for let_go in (lambda path, descriptor: os.close(descriptor), locks.remove):
        descriptor = locks.take(tmp_path / "lock")
        waiter = threading.Thread(target=locks.wait_until_free, args=(tmp_path / "lock",))
        waiter.start()
        assert waiter.is_alive()
        let_go(tmp_path / "lock", descriptor)
        waiter.join(60)
        assert not waiter.is_alive()


def test_lock_whose_file_was_removed_meanwhile_is_that_of_the_next_file(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    flock = locks.fcntl.flock
    removals = [path]

    def flock_too_late(descriptor: int, kind: int) -> None:
        while removals:  # between opening the file and locking it
            removals.pop().unlink()
        flock(descriptor, kind)

    monkeypatch.setattr(locks.fcntl, "flock", flock_too_late)
    descriptor = locks.take(path)
    assert os.path.samestat(os.fstat(descriptor), path.stat())
    assert locks.take(path) is None
    os.close(descriptor)


def test_link_is_not_followed(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        locks.take(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()


def test_system_without_locks_is_said(monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    with pytest.raises(AptValueError, match="need Linux, macOS or WSL"):
        locks.check_locks()
