"""Damaged, hostile, newer and older shards of the gate log: refused by name, before anything large is read."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from apt_core.errors import AptValueError
from apt_core.gate_log import GateLog
from tests.apt_core.gate_rows import written

LENGTHS = (3, 0, 2)


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


def saved_again(path, *, arrays=None, **metadata) -> None:
    """The shard with other arrays or another header."""
    with safe_open(path, framework="numpy") as shard:
        metadata = {**shard.metadata(), **metadata}
    metadata = {name: value for name, value in metadata.items() if value is not None}
    save_file({**load_file(path), **(arrays or {})}, path, metadata=metadata)


def damage_decreasing_steps(path):
    saved_again(path, arrays={"step": load_file(path)["step"][::-1].copy()})


def damage_negative_steps(path):
    saved_again(path, arrays={"step": load_file(path)["step"] - 5})


def damage_step_left_out(path):
    steps = load_file(path)["step"]
    saved_again(path, arrays={"step": steps + (steps > 10)})


def damage_row_left_out(path):
    saved_again(path, arrays={name: np.delete(array, 10, axis=0) for name, array in load_file(path).items()})


def damage_no_rows(path):
    saved_again(path, arrays={name: array[:0] for name, array in load_file(path).items()})


def damage_wide_type(path):
    saved_again(path, arrays={"token_gate": load_file(path)["token_gate"].astype(np.float64)})


def damage_no_lengths(path):
    saved_again(path, prefix_lengths=None)


def damage_wrong_lengths(path):
    saved_again(path, prefix_lengths="[3, 0, 4]")


def damage_text_lengths(path):
    saved_again(path, prefix_lengths="[" * 10_000)


def damage_version_word(path):
    saved_again(path, schema_version="<b>new</b>")


def with_header(path, header: object, data: bytes = b"") -> None:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content + data)


def sparse(path, n: int, num_layers: int, num_tokens: int) -> None:
    """A file that is as large as it says, and holds nothing but its steps."""
    shapes = {
        "step": (n,),
        "token_gate": (n, num_layers, num_tokens),
        "token_gate_std": (n, num_layers, num_tokens),
        "layer_scale": (n, num_layers),
    }
    header, end = {"__metadata__": {"prefix_lengths": json.dumps([num_tokens] * min(num_layers, 1000))}}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape, dtype=object)) * (8 if name == "step" else 4)
        header[name] = {
            "dtype": "I64" if name == "step" else "F32",
            "shape": shape,
            "data_offsets": [end, end := end + size],
        }
    with_header(path, header, np.arange(1, min(n, 100_000) + 1).tobytes())
    size = path.stat().st_size - 8 * min(n, 100_000)
    os.truncate(path, size + min(end, 2**40))


def damage_many_layers(path):
    sparse(path, 1, 2_000_000, 1)


def damage_many_tokens(path):
    sparse(path, 1, 1, 2_000_000)


def damage_many_rows(path):
    sparse(path, 10_000_000, 1, 1)


def damage_offsets_outside(path):
    entry = {"dtype": "F32", "shape": [2**20, 1, 1], "data_offsets": [0, 2**22]}
    with_header(path, dict.fromkeys(("token_gate", "token_gate_std", "layer_scale"), entry) | {"step": entry})


def damage_negative_shape(path):
    entry = {"dtype": "I64", "shape": [-1, -8], "data_offsets": [0, 64]}
    with_header(path, dict.fromkeys(("step", "token_gate", "token_gate_std", "layer_scale"), entry), b" " * 64)


def damage_shape_of_words(path):
    with_header(path, {name: {"shape": "x"} for name in ("step", "token_gate", "token_gate_std", "layer_scale")})


def damage_deep_header(path):
    with_header(path, b"[" * 100_000)


def damage_header_list(path):
    with_header(path, b"[]")


def damage_empty(path):
    path.write_bytes(b"")


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_shard_raises_with_its_name_before_anything_large_is_read(tmp_path, damage):
    written(tmp_path, 20).close()
    (path,) = tmp_path.iterdir()
    damage(path)
    tracemalloc.start()
    with pytest.raises(AptValueError, match=r"^gates-00000001\.safetensors: "):
        GateLog(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_shard_of_a_newer_schema_raises_and_says_what_to_do(tmp_path):
    written(tmp_path, 20).close()
    saved_again(tmp_path / "gates-00000001.safetensors", schema_version="2")
    with pytest.raises(AptValueError, match=r"newer version .* got 2; accepted: up to 1\. Update this program"):
        GateLog(tmp_path)


def test_shard_without_later_header_fields_is_version_1(tmp_path):
    written(tmp_path, 300).close()
    for path in tmp_path.iterdir():
        saved_again(path, schema_version=None, record_every=None, previous_step=None, num_steps=None, last_step=None)
    log = GateLog(tmp_path)
    assert (len(log), log.record_every, log.prefix_lengths) == (300, 1, LENGTHS)


@pytest.mark.parametrize("missing", ["gates-00000001.safetensors", "gates-00000257.safetensors"])
def test_missing_shard_raises_and_names_the_one_after_it(tmp_path, missing):
    written(tmp_path, 600).close()
    (tmp_path / missing).unlink()
    with pytest.raises(AptValueError, match=r"safetensors: steps are missing before it: got .*; accepted: (256|512)"):
        GateLog(tmp_path)


def test_repeated_steps_in_another_shard_raise(tmp_path):
    written(tmp_path, 300).close()
    (tmp_path / "gates-00000258.safetensors").write_bytes((tmp_path / "gates-00000257.safetensors").read_bytes())
    with pytest.raises(AptValueError, match=r"gates-00000258\.safetensors: steps are repeated or out of order"):
        GateLog(tmp_path)


def test_shards_of_different_lengths_raise(tmp_path):
    written(tmp_path, 300).close()
    saved_again(tmp_path / "gates-00000257.safetensors", prefix_lengths="[3, 1, 2]")
    with pytest.raises(AptValueError, match=r"gates-00000257\.safetensors: its shape or prefix lengths differ"):
        GateLog(tmp_path)


def test_pipe_in_place_of_a_shard_is_passed_over(tmp_path):
    os.mkfifo(tmp_path / "gates-00000001.safetensors")
    assert len(GateLog(tmp_path)) == 0


def test_linked_folder_raises(tmp_path):
    written(tmp_path / "elsewhere", 20).close()
    os.symlink(tmp_path / "elsewhere", tmp_path / "gates")
    with pytest.raises(AptValueError, match="is a link; links in a run folder are not followed"):
        GateLog(tmp_path / "gates")


def test_linked_shard_is_passed_over(tmp_path):
    written(tmp_path / "elsewhere", 20).close()
    folder = tmp_path / "gates"
    folder.mkdir()
    os.symlink(tmp_path / "elsewhere" / "gates-00000001.safetensors", folder / "gates-00000001.safetensors")
    assert len(GateLog(folder)) == 0


@pytest.mark.parametrize("ask", [lambda log: log.at(1500), lambda log: log.trace([(19, 1023)])])
def test_shard_far_larger_than_ours_is_read_in_part_only(tmp_path, ask):
    sparse(tmp_path / "gates-00000001.safetensors", 2000, 20, 1024)  # 328 MB
    log = GateLog(tmp_path)
    tracemalloc.start()
    ask(log)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
