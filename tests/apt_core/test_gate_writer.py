"""The writer of the gate log: every row reaches the disk, few are lost in a crash, errors of its thread are raised."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file

from apt_core.errors import AptValueError, AptWriteError
from apt_core.gate_log import GateLog
from apt_core.gate_writer import FLUSH_STEPS, MAX_SHARD_BYTES, MAX_SHARD_STEPS, GateLogWriter
from tests.apt_core.gate_rows import row, written


def check_rows(log: GateLog, lengths: tuple[int, ...], atol: float = 0.0) -> None:
    """Every row of the log is the one that was appended at its step."""
    columns = log.read()
    for index, step in enumerate(log.steps):
        for name, expected in zip(columns, row(int(step), lengths), strict=True):
            np.testing.assert_allclose(columns[name][index], expected, rtol=0, atol=atol)


def copy_if_there(source: str, target: str) -> None:
    """A file that is being replaced may be gone by the time it is copied."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(source, target)


@settings(max_examples=25)
@given(
    num_steps=st.integers(0, MAX_SHARD_STEPS + 40),
    more=st.integers(0, 40),
    every=st.integers(1, 7),
    dtype=st.sampled_from(["float32", "float16"]),
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any).map(tuple),
    keep=st.floats(0, 1),
    crash=st.floats(0, 1),
)
def test_rows_survive_crash_and_resume_as_appended(
    tmp_path_factory, num_steps, more, every, dtype, lengths, keep, crash
):
    """The folder is copied at any moment, as a SIGKILL leaves it; the copy is resumed from a step it kept."""
    folder = tmp_path_factory.mktemp("gates")
    steps = [every * number for number in range(1, num_steps + 1)]
    killed_at = int(crash * num_steps)
    writer = GateLogWriter(folder / "first", lengths, record_every=every, record_dtype=dtype)
    for number, step in enumerate(steps):
        if number == killed_at:
            shutil.copytree(folder / "first", folder / "killed", copy_function=copy_if_there)
        writer.append(step, *row(step, lengths))
    writer.close()
    atol = 0 if dtype == "float32" else 5e-4
    whole = GateLog(folder / "first")
    assert whole.steps.tolist() == steps
    assert whole.prefix_lengths == (lengths if steps else ())
    check_rows(whole, lengths, atol)
    if killed_at == num_steps:
        return
    survived = GateLog(folder / "killed")
    assert killed_at - FLUSH_STEPS < len(survived) <= killed_at
    check_rows(survived, lengths, atol)
    kept = int(keep * len(survived))
    last = int(survived.steps[kept - 1]) if kept else 0
    other = GateLogWriter(folder / "killed", lengths, last, record_every=every, record_dtype="float32")
    for step in range(last + 1, last + 1 + more):
        other.append(step, *row(step, lengths))
    other.close()
    resumed = GateLog(folder / "killed")
    assert resumed.steps.tolist() == steps[:kept] + list(range(last + 1, last + 1 + more))
    check_rows(resumed, lengths, atol)
    assert not list((folder / "killed").glob("*.tmp"))


@pytest.mark.parametrize("num_steps", [1, 7, 8, 9, 255, 256, 257, 300])
def test_unflushed_rows_lost_in_a_crash_are_at_most_a_flush_apart(tmp_path, num_steps):
    written(tmp_path, num_steps)  # nothing flushes it again
    assert num_steps - FLUSH_STEPS < len(GateLog(tmp_path)) <= num_steps


def test_sealed_shards_are_never_written_again(tmp_path):
    writer = written(tmp_path, MAX_SHARD_STEPS)
    writer.flush()
    (sealed,) = tmp_path.iterdir()
    before = (sealed.stat().st_mtime_ns, sealed.read_bytes())
    for step in range(MAX_SHARD_STEPS + 1, 2 * MAX_SHARD_STEPS):
        writer.append(step, *row(step))
    writer.close()
    assert (sealed.stat().st_mtime_ns, sealed.read_bytes()) == before
    assert len(load_file(sealed)["step"]) == MAX_SHARD_STEPS


def test_shards_of_wide_models_stay_under_the_size_limit(tmp_path):
    writer = GateLogWriter(tmp_path, (1024,) * 96)
    wide = np.full((96, 1024), 0.5, np.float32)
    for step in range(1, 25):
        writer.append(step, wide, wide, np.ones(96, np.float32))
    writer.flush()
    assert len(GateLog(tmp_path)) == 24
    assert max(path.stat().st_size for path in tmp_path.iterdir()) <= MAX_SHARD_BYTES + 1000


def test_log_of_a_run_without_any_virtual_token_is_readable(tmp_path):
    writer = GateLogWriter(tmp_path, (0, 0))
    writer.append(1, np.zeros((2, 0)), np.zeros((2, 0)), np.full(2, np.nan))
    writer.flush()
    assert GateLog(tmp_path).at(1).token_gate.shape == (2, 0)


@pytest.mark.parametrize("keep", [0, 1, 100, 256, 257, 299])
def test_resumed_writer_drops_later_rows_and_goes_on(tmp_path, keep):
    written(tmp_path, 300).flush()
    writer = GateLogWriter(tmp_path, (3, 0, 2), keep_until=keep)
    for step in range(keep + 1, 311):
        writer.append(step, *row(step))
    writer.flush()
    assert GateLog(tmp_path).steps.tolist() == list(range(1, 311))


def test_torn_shard_of_later_steps_does_not_keep_a_run_from_going_on(tmp_path):
    """As a machine leaves it that lost its power; steps before the checkpoint are needed, and a torn one is told."""
    written(tmp_path, 300).close()
    later, earlier = tmp_path / "gates-00000257.safetensors", tmp_path / "gates-00000001.safetensors"
    later.write_bytes(b"")
    GateLogWriter(tmp_path, (3, 0, 2), keep_until=200).close()
    assert GateLog(tmp_path).steps.tolist() == list(range(1, 201))
    earlier.write_bytes(b"")
    with pytest.raises(AptValueError, match="gates-00000001"):
        GateLogWriter(tmp_path, (3, 0, 2), keep_until=200)
    assert earlier.exists()


def test_append_of_an_earlier_step_raises(tmp_path):
    writer = written(tmp_path, 3)
    with pytest.raises(AptValueError, match="step: got 3; accepted: a step after 3"):
        writer.append(3, *row(3))


def test_append_of_another_shape_raises(tmp_path):
    with pytest.raises(AptValueError, match="gates: got shapes"):
        GateLogWriter(tmp_path, (3, 0, 2)).append(1, np.zeros((2, 3)), np.zeros((2, 3)), np.zeros(2))


def test_resumed_writer_of_other_lengths_raises_and_drops_nothing(tmp_path):
    written(tmp_path, 20).close()
    with pytest.raises(AptValueError, match=r"prefix_lengths: got \(3, 1, 2\).*\(3, 0, 2\)"):
        GateLogWriter(tmp_path, (3, 1, 2), keep_until=5)
    assert len(GateLog(tmp_path)) == 20


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"record_every": 0}, "record_every: got 0; accepted: a whole number of steps, 1 or larger"),
        ({"record_every": 1.5}, "record_every: got 1.5"),
        ({"record_dtype": "float64"}, "record_dtype: got 'float64'; accepted: float32 or float16"),
    ],
)
def test_settings_that_cannot_be_used_raise(tmp_path, settings_, message):
    with pytest.raises(AptValueError, match=message):
        GateLogWriter(tmp_path / "gates", (1,), **settings_)
    assert not (tmp_path / "gates").exists()


def test_float16_keeps_gates_within_their_bounds_and_scales_exact(tmp_path):
    gates = np.array([[1e-12, 1 - 1e-7, 0.0, 1.0, 0.3, np.nan]], np.float32)
    with_spread = np.zeros_like(gates)
    writer = GateLogWriter(tmp_path, (6,), record_dtype="float16")
    writer.append(1, gates, with_spread, np.array([1e6 / 3], np.float32))
    writer.close()
    log = GateLog(tmp_path)
    found = log.at(1)
    assert found.token_gate.dtype == np.float32
    low, high, zero, one, third, absent = found.token_gate[0]
    assert 0 < low < 1e-6
    assert 0.999 < high < 1
    assert (zero, one) == (0, 1)  # such as the gates of a model without token gates
    assert third == pytest.approx(0.3, abs=2e-4)
    assert np.isnan(absent)
    assert (found.token_gate_std == 0).all()
    assert found.layer_scale[0] == np.float32(1e6 / 3)
    assert log.record_dtype == "float16"
    assert load_file(next(tmp_path.iterdir()))["token_gate"].dtype == np.float16


def test_shard_header_says_how_it_was_recorded(tmp_path):
    writer = GateLogWriter(tmp_path, (2, 1), record_every=5)
    for step in (5, 10, 12):
        writer.append(step, *row(step, (2, 1)))
    writer.close()
    with safe_open(next(tmp_path.iterdir()), framework="numpy") as shard:
        metadata = shard.metadata()
    assert metadata == {
        "schema_version": "1",
        "prefix_lengths": "[2, 1]",
        "record_every": "5",
        "previous_step": "0",
        "num_steps": "3",
        "last_step": "12",
    }
    assert GateLog(tmp_path).record_every == 5


def wait_for(condition, seconds: float = 5.0) -> None:
    """Until ``condition()`` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_single_row_reaches_the_disk_within_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr("apt_core.gate_writer.FLUSH_SECONDS", 0.05)
    writer = written(tmp_path, 1)
    wait_for(lambda: len(GateLog(tmp_path)) == 1)
    writer.close()


def append_steps(writer: GateLogWriter, first: int, last: int) -> None:
    for step in range(first, last + 1):
        writer.append(step, *row(step))


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_raises_in_the_training_thread_and_loses_no_row(tmp_path, monkeypatch):
    writer = written(tmp_path, 20)
    writer.flush()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_disk)
        with pytest.raises(AptWriteError, match=r"gates cannot be written .*No space left on device"):
            append_steps(writer, 21, 40)
        step = writer.last_step
        assert 20 < step < 20 + FLUSH_STEPS
        with pytest.raises(OSError, match="No space left"):
            writer.flush()
        assert len(GateLog(tmp_path)) == 20
        assert not list(tmp_path.glob("*.tmp"))
    append_steps(writer, step + 1, 300)  # space again: the step that was refused is accepted
    writer.close()
    log = GateLog(tmp_path)
    assert log.steps.tolist() == list(range(1, 301))
    check_rows(log, (3, 0, 2))


def test_close_of_a_log_whose_folder_is_gone_raises_and_ends_the_thread(tmp_path):
    before = threading.active_count()
    writer = written(tmp_path / "gates", 3)
    shutil.rmtree(tmp_path / "gates")
    (tmp_path / "gates").write_text("a file in its place")
    with pytest.raises(AptWriteError, match="gates cannot be written"):
        writer.close()
    assert threading.active_count() == before
    assert (tmp_path / "gates").read_text() == "a file in its place"


def test_append_waits_for_a_slow_disk_instead_of_piling_up_rows(tmp_path, monkeypatch):
    gate = threading.Event()
    replace = os.replace

    def slow(*paths):
        gate.wait(10)
        replace(*paths)

    monkeypatch.setattr(os, "replace", slow)
    done = []

    def train():
        writer = GateLogWriter(tmp_path, (3, 0, 2))
        for step in range(1, 51):
            writer.append(step, *row(step))
            done.append(step)
        writer.close()

    training = threading.Thread(target=train)
    training.start()
    wait_for(lambda: len(done) == FLUSH_STEPS - 1)
    time.sleep(0.2)
    assert len(done) == FLUSH_STEPS - 1
    gate.set()
    training.join(20)
    assert len(GateLog(tmp_path)) == 50


def test_append_does_not_wait_while_the_disk_is_at_work(tmp_path, monkeypatch):
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (time.sleep(0.5), replace(*paths)))
    start = time.monotonic()
    writer = written(tmp_path, FLUSH_STEPS - 1)
    assert time.monotonic() - start < 0.4
    writer.close()


def test_append_after_close_raises(tmp_path):
    writer = written(tmp_path, 3)
    writer.close()
    writer.close()
    with pytest.raises(AptValueError, match="the log of this run is closed"):
        writer.append(4, *row(4))


def test_forked_process_neither_writes_nor_waits(tmp_path):
    writer = written(tmp_path, 3)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            writer.append(4, *row(4))
        except AptValueError:
            writer.close()
            status = 0
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    writer.append(4, *row(4))
    writer.close()
    assert len(GateLog(tmp_path)) == 4


def run_script(folder, end: str) -> int:
    script = f"""
import os, signal, time
from pathlib import Path
from tests.apt_core.gate_rows import row
from apt_core.gate_writer import GateLogWriter
writer = GateLogWriter(Path({str(folder)!r}), (3, 0, 2))
for step in range(1, 302):
    writer.append(step, *row(step))
{end}
"""
    return subprocess.run([sys.executable, "-c", script], check=False, capture_output=True).returncode


def test_killed_process_loses_fewer_rows_than_a_flush(tmp_path):
    assert run_script(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)") == -signal.SIGKILL
    log = GateLog(tmp_path)
    assert 301 - FLUSH_STEPS < len(log) <= 301
    check_rows(log, (3, 0, 2))


def test_program_that_ends_by_an_error_loses_no_row(tmp_path):
    assert run_script(tmp_path, "raise ValueError('diverged')") == 1
    assert len(GateLog(tmp_path)) == 301
