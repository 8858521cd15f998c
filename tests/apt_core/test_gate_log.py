"""The gate log: what was appended is read back, whole or in part, while it grows and after a crash."""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from apt_core.errors import AptValueError
from apt_core.gate_log import FLUSH_STEPS, MAX_SHARD_BYTES, MAX_SHARD_STEPS, GateLog, GateLogWriter


def row(step: int, lengths: tuple[int, ...] = (3, 0, 2)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gates that name their step, with NaN where a layer has no such token."""
    draw = np.random.default_rng(step)
    shape = (len(lengths), max(lengths))
    absent = np.arange(shape[1]) >= np.array(lengths)[:, None]
    gate, spread = draw.random(shape, np.float32), draw.random(shape, np.float32)
    gate[absent] = spread[absent] = np.nan
    scale = draw.random(shape[0], np.float32)
    scale[np.array(lengths) == 0] = np.nan
    return gate, spread, scale


def written(folder, num_steps: int, lengths: tuple[int, ...] = (3, 0, 2)) -> GateLogWriter:
    writer = GateLogWriter(folder, lengths)
    for step in range(1, num_steps + 1):
        writer.append(step, *row(step, lengths))
    return writer


@settings(max_examples=25, deadline=None)
@given(
    num_steps=st.integers(0, 2 * MAX_SHARD_STEPS + 3),
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any).map(tuple),
)
def test_reader_returns_every_appended_row(tmp_path_factory, num_steps, lengths):
    folder = tmp_path_factory.mktemp("gates")
    written(folder, num_steps, lengths).flush()
    log = GateLog(folder)
    assert log.steps.tolist() == list(range(1, num_steps + 1))
    columns = log.read()
    for index, step in enumerate(log.steps):
        for name, expected in zip(columns, row(int(step), lengths), strict=True):
            np.testing.assert_array_equal(columns[name][index], expected)
    if num_steps:
        step = num_steps // 2 + 1
        found = log.at(step)
        assert found.step == step
        for received, expected in zip(found[1:], row(step, lengths), strict=True):
            np.testing.assert_array_equal(received, expected)


@pytest.mark.parametrize("num_steps", [1, 7, 8, 9, 255, 256, 257, 300])
def test_unflushed_rows_lost_in_a_crash_are_at_most_a_flush_apart(tmp_path, num_steps):
    written(tmp_path, num_steps)  # nothing flushes it again
    assert num_steps - FLUSH_STEPS < len(GateLog(tmp_path)) <= num_steps


def test_sealed_shards_are_never_written_again(tmp_path):
    writer = written(tmp_path, MAX_SHARD_STEPS)
    (sealed,) = tmp_path.iterdir()
    before = (sealed.stat().st_mtime_ns, sealed.read_bytes())
    for step in range(MAX_SHARD_STEPS + 1, 2 * MAX_SHARD_STEPS):
        writer.append(step, *row(step))
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


def test_empty_folder_is_an_empty_log(tmp_path):
    log = GateLog(tmp_path / "gates")
    assert len(log) == 0
    assert log.read(["token_gate"])["token_gate"].size == 0


@pytest.mark.parametrize("keep", [0, 1, 100, 256, 257, 299])
def test_resumed_writer_drops_later_rows_and_goes_on(tmp_path, keep):
    written(tmp_path, 300).flush()
    writer = GateLogWriter(tmp_path, (3, 0, 2), keep_until=keep)
    for step in range(keep + 1, 311):
        writer.append(step, *row(step))
    writer.flush()
    assert GateLog(tmp_path).steps.tolist() == list(range(1, 311))


def test_append_of_an_earlier_step_raises(tmp_path):
    writer = written(tmp_path, 3)
    with pytest.raises(AptValueError, match="step: got 3; accepted: a step after 3"):
        writer.append(3, *row(3))


def test_append_of_another_shape_raises(tmp_path):
    with pytest.raises(AptValueError, match="gates: got shapes"):
        GateLogWriter(tmp_path, (3, 0, 2)).append(1, np.zeros((2, 3)), np.zeros((2, 3)), np.zeros(2))


def test_at_an_unrecorded_step_raises(tmp_path):
    written(tmp_path, 3).flush()
    with pytest.raises(AptValueError, match="step: got 4; accepted: a recorded step, 1 to 3"):
        GateLog(tmp_path).at(4)


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def damage_text(path):
    path.write_text("hello")


def damage_huge_header(path):
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")


def damage_huge_shape(path):
    header = json.dumps({"step": {"dtype": "I64", "shape": [2**50], "data_offsets": [0, 2**53]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def damage_missing_array(path):
    arrays = load_file(path)
    del arrays["layer_scale"]
    save_file(arrays, path)


def damage_wrong_shape(path):
    arrays = load_file(path)
    save_file({**arrays, "layer_scale": arrays["layer_scale"][:, :1].copy()}, path)


def damage_repeated_steps(path):
    arrays = load_file(path)
    save_file({**arrays, "step": np.ones_like(arrays["step"])}, path)


def damage_float_steps(path):
    arrays = load_file(path)
    save_file({**arrays, "step": arrays["step"].astype(np.float32)}, path)


@pytest.mark.parametrize(
    "damage",
    [
        damage_truncate,
        damage_text,
        damage_huge_header,
        damage_huge_shape,
        damage_missing_array,
        damage_wrong_shape,
        damage_repeated_steps,
        damage_float_steps,
    ],
)
def test_damaged_shard_raises_with_its_name(tmp_path, damage):
    written(tmp_path, 20).flush()
    (path,) = tmp_path.iterdir()
    damage(path)
    with pytest.raises(AptValueError, match=r"gates-00000001\.safetensors: "):
        GateLog(tmp_path)


def test_linked_shard_is_passed_over(tmp_path):
    written(tmp_path / "elsewhere", 20).flush()
    folder = tmp_path / "gates"
    folder.mkdir()
    os.symlink(tmp_path / "elsewhere" / "gates-00000001.safetensors", folder / "gates-00000001.safetensors")
    assert len(GateLog(folder)) == 0
