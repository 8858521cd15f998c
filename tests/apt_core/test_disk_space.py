"""Whether a run folder can be written to and whether the run fits: real small and read-only disks."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apt_core.config import AptConfig, TrainSettings
from apt_core.disk_space import RunSize, check_writable, disk_shortage, remove_empty_folders, run_size
from apt_core.errors import AptError, AptValueError, AptWriteError
from apt_core.gate_writer import GateLogWriter
from apt_core.jobs import LocalJobs
from apt_core.run_format import read_run_info, status_of, update_finished_run
from apt_core.sizes import in_words
from apt_core.tasks.base import TaskData
from apt_core.train import TrainJob, check_output, train

MB = 10**6
NO_EXAMPLES = TaskData("x", "sequence-classification", ("a", "b"), {"train": [], "validation": []})
needs_mount = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can mount a small disk")


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 1.5 MB."""
    yield from mounted(tmp_path / "disk", "size=1500k")


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk of 8 MB."""
    yield from mounted(tmp_path / "disk", "size=8m")


def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> Path:
    """Takes all that is left on a disk; the file that does."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))
    assert shutil.disk_usage(disk).free == 0
    return ballast


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("every", [1, 3])
def test_estimated_gates_are_what_is_written(tmp_path, dtype, every):
    lengths = (16, 0, 40)
    writer = GateLogWriter(tmp_path / "gates", lengths, record_every=every, record_dtype=dtype)
    row = np.full((3, 40), 0.5, np.float32)
    for step in range(every, 901, every):
        writer.append(step, row, row, row[:, 0])
    writer.close()
    written = sum(path.stat().st_size for path in (tmp_path / "gates").iterdir())
    settings = TrainSettings(record_every=every, record_dtype=dtype)
    size = run_size(settings, NO_EXAMPLES, lengths, 900, {"prefix": 0, "frozen": 9})
    open_shard = min(written, 8 * 2**20)  # twice on the disk while it is replaced
    assert written <= size.gates - open_shard <= 1.05 * written + 2048


@pytest.mark.parametrize("task", ["copa", "wnut17"])
def test_estimate_covers_what_a_training_has_on_its_disk_at_any_time(job, task, monkeypatch):
    from apt_core import callback
    from apt_core import train as training

    most = dict.fromkeys(("checkpoints", "snapshots", "predictions", "gates", ""), 0)
    estimated = []

    def look(*_: object) -> None:
        for part in most:
            files = [
                path for path in job.out.rglob("*") if path.is_file() and str(path).startswith(f"{job.out}/{part}")
            ]
            most[part] = max(most[part], sum(path.stat().st_size for path in files))

    def end_step(self: callback.GateRecorder, *given: object, **named: object) -> None:
        end(self, *given, **named)
        look()

    end, keep = callback.GateRecorder.on_step_end, training.run_size
    monkeypatch.setattr(callback.GateRecorder, "on_step_end", end_step)
    monkeypatch.setattr(training, "run_size", lambda *given: estimated.append(keep(*given)) or estimated[-1])
    settings = job.training.model_copy(update={"epochs": 4, "snapshot_steps": (1, 3, 5)})
    train(replace(job, task=task, apt=AptConfig(num_virtual_tokens=512), training=settings), say=lambda line: None)
    look()
    size = estimated[0]
    for part, least in (("checkpoints", 0.4), ("snapshots", 0.7), ("gates", 0.3), ("predictions", 0.3)):
        assert least * getattr(size, part) < most[part] <= getattr(size, part), part
    assert most[""] <= size.total


def test_run_that_does_not_fit_names_its_largest_part_and_what_needs_less(tmp_path):
    parts = {"gates": 0, "checkpoints": 0, "snapshots": 0, "predictions": 0}
    for part, flag in (("gates", "--record-every"), ("snapshots", "--snapshot-steps"), ("predictions", "validation")):
        problem = str(disk_shortage(tmp_path / "new", RunSize(**{**parts, part: 10**18})))
        assert f"of which {part} take 1,000,000,000 GB" in problem
        assert flag in problem
    assert disk_shortage(tmp_path / "new", RunSize(1, 1, 1, 1)) is None


@needs_mount
def test_what_a_resumed_run_has_written_is_not_needed_again(disk):
    (disk / "run").mkdir()
    (disk / "run" / "gates").write_bytes(bytes(4 * MB))
    size = RunSize(gates=4 * MB, checkpoints=0, snapshots=0, predictions=0)
    assert disk_shortage(disk / "run", size) is None
    assert "2.0 MB" not in str(disk_shortage(disk / "run", size))
    assert "free; accepted: a folder on one with 6.0 MB" in str(disk_shortage(disk / "other", size))


@needs_mount
def test_training_on_a_disk_that_is_too_small_is_refused_and_leaves_nothing(job, small_disk):
    with pytest.raises(
        AptError, match=r"on a disk with 1\.\d MB free; accepted: a folder on one with \d\.\d MB, of whi"
    ):
        train(replace(job, out=small_disk / "runs" / "a"), say=lambda line: None)
    assert list(small_disk.iterdir()) == []


@needs_mount
def test_full_disk_is_refused_with_the_systems_words(job, small_disk):
    fill(small_disk)
    with pytest.raises(AptError, match=r"out: got .*disk cannot be: No space left on device"):
        train(replace(job, out=small_disk / "a"), say=lambda line: None)
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


@needs_mount
def test_read_only_disk_is_refused_also_for_root(job, disk):
    (disk / "kept").write_text("kept")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for out in (disk / "a", disk / "b" / "c"):
        with pytest.raises(AptError, match=r"out: got "):
            train(replace(job, out=out), say=lambda line: None)
    with pytest.raises(AptError, match="cannot be: Read-only file system"):
        check_writable(disk / "a")
    assert [path.name for path in disk.iterdir()] == ["kept"]


@pytest.fixture
def not_root(tmp_path) -> Iterator[Path]:
    """A folder of a user who is not root, as whom the test goes on."""
    if os.name != "posix":
        pytest.skip("Windows has other permissions")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are for one user
        user = os.geteuid()
        if user == 0:
            os.chown(folder, 65534, -1)
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)


def test_folder_without_permission_is_refused(not_root):
    for name, mode in (("unwritable", 0o500), ("unreadable", 0o000)):
        locked = not_root / name
        locked.mkdir(mode=mode)
        for out in (locked, locked / "new", locked / "a" / "b"):
            with pytest.raises(AptValueError, match=f"^out: got .*{name}.*; accepted: a folder that can be"):
                check_output(out, resume=False)
        with pytest.raises(AptValueError, match=f"^out: got .*{name}"):
            check_output(locked, resume=True)
    with pytest.raises(AptValueError, match=r"cannot be: Permission denied"):
        check_writable(not_root / "unwritable")


def test_folder_with_a_name_that_no_disk_takes_is_refused(tmp_path):
    with pytest.raises(AptValueError, match=r"^out: got .*File name too long"):
        check_output(tmp_path / ("x" * 300), resume=False)


@needs_mount
def test_disk_that_fills_up_while_training_is_said_and_the_run_goes_on_once_there_is_space(job, disk, monkeypatch):
    from apt_core import callback

    job = replace(job, out=disk / "run")
    record, ballast = callback.GateRecorder.record, []

    def fill_and_record(self: callback.GateRecorder, step: int) -> None:
        if step == 7:  # in the second epoch
            ballast.append(fill(disk))
        record(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(callback.GateRecorder, "record", fill_and_record)
        with pytest.raises(AptWriteError, match=r"gates cannot be written .*No space left on device"):
            train(job, say=lambda line: None)
    before = read_run_info(job.out)
    assert status_of(before) in ("failed", "running")  # written, or this process still lives
    ballast[0].unlink()
    if before.status == "running":
        update_finished_run(job.out, status="interrupted")  # as it counts once the process has ended
    said = []
    assert train(TrainJob.from_run(job.out), resume=True, say=said.append).status == "finished"
    assert any("after step 5" in line for line in said)


@needs_mount
def test_job_cannot_be_queued_on_a_full_disk_and_nothing_is_left(small_disk, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ballast = fill(small_disk)
    jobs = LocalJobs(small_disk / ".jobs", program=["true"])
    with pytest.raises(AptWriteError, match=r"jobs: nothing was queued: .*No space left on device"):
        jobs.submit(["train", "--device", "cpu", "--out", "x"], tmp_path / "x")
    assert jobs.list() == []
    assert not (tmp_path / "x").exists()
    ballast.unlink()
    job = jobs.submit(["train", "--device", "cpu", "--out", "x"], tmp_path / "x")
    assert jobs.list() == [job]
    jobs.cancel(job.id)


def test_folder_that_is_made_in_vain_is_removed_with_those_above_it_that_are_empty(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a" / "b").mkdir(parents=True)
    remove_empty_folders(tmp_path / "there" / "a" / "b", tmp_path / "there")
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
    (tmp_path / "there" / "a" / "b").mkdir(parents=True)
    (tmp_path / "there" / "a" / "file").write_text("kept")
    remove_empty_folders(tmp_path / "there" / "a" / "b", tmp_path / "there")
    assert [path.name for path in (tmp_path / "there" / "a").iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("count", "words"),
    [(-5, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (12.4e6, "12 MB"), (3.21e9, "3.2 GB"), (2e13, "20,000 GB")],
)
def test_bytes_are_said_in_words(count, words):
    assert in_words(count) == words
