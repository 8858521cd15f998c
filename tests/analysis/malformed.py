"""Run folders that are damaged, foreign or hostile: each case writes one, and says where its reason is to be read."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

CANARY = "CANARY-6f1d2c"
"""stands in every file outside the run folders; it must never be shown"""
HOSTILE = (
    "<script>alert(1)</script> ![x](http://127.0.0.1:9/x.png) [x](javascript:alert(2)) $x^2$ :material/home: :red[no]"
)


class Case(NamedTuple):
    """One malformed folder."""

    name: str
    write: Callable[[Path, Path], None]
    """turns a good run (first argument) into a bad one; the second is a folder outside with the canary"""
    where: str
    """runs: not readable on the Runs page; gates or budget: said on that page; shown: harmless, only escaped"""
    reason: str
    """what the reason contains, as a regular expression; empty for shown"""


CASES: list[Case] = []


def case(name: str, where: str, reason: str = "") -> Callable:
    def add(write: Callable[[Path, Path], None]) -> Callable:
        CASES.append(Case(name, write, where, reason))
        return write

    return add


def _change(folder: Path, **fields: Any) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))


def _shard(folder: Path) -> Path:
    return next((folder / "gates").glob("gates-*.safetensors"))


def _field(field: str, value: Any, where: str = "runs", reason: str | None = None, label: str = "") -> None:
    """A case whose ``run.json`` has another value in one field."""
    name = f"field-{field}-{label or type(value).__name__}".replace(".", "-")
    pattern = reason if reason is not None else field
    CASES.append(Case(name, lambda folder, _: _change(folder, **{field: value}), where, pattern))


def _arrays(name: str, reason: str, where: str = "gates") -> Callable:
    """A case whose shard's arrays are changed by the function."""

    def add(change: Callable[[dict[str, np.ndarray]], None]) -> Callable:
        def write(folder: Path, _: Path) -> None:
            path = _shard(folder)
            arrays = {key: value.copy() for key, value in load_file(path).items()}
            change(arrays)
            save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, path)

        CASES.append(Case(name, write, where, reason))
        return change

    return add


def _header(name: str, change: Callable[[dict], None], reason: str) -> None:
    """A case whose shard declares something else than it holds."""

    def write(folder: Path, _: Path) -> None:
        path = _shard(folder)
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    CASES.append(Case(name, write, "gates", reason))


# run.json as a file

for name, content, reason in (
    ("run-empty", b"", "damaged"),
    ("run-cut", b'{"schema_version": 1, "task": "co', "damaged"),
    ("run-list", b"[1, 2]", "holds a list"),
    ("run-number", b"17", "holds a int"),
    ("run-null", b"null", "holds a NoneType"),
    ("run-text", b'"hello"', "holds a str"),
    ("run-large", b'{"task": "' + b"x" * (5 * 2**20) + b'"}', "larger than"),
    ("run-deep", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "damaged"),
    ("run-invalid-utf8", b'{"task": "\xff\xfe"}', "damaged"),
    ("run-nul", b"\x00" * 4096, "damaged"),
    ("run-pickle", b"cos\nsystem\n(S'touch pickled'\ntR.", "damaged"),
    ("run-future", b'{"schema_version": 99}', "schema_version: got 99"),
    ("run-settings-deep", b'{"training": {"a":' + b"[" * 500 + b"]" * 500 + b"}}", "training: nested"),
):

    def _run_file(folder: Path, _: Path, content: bytes = content) -> None:
        (folder / "run.json").write_bytes(content)

    CASES.append(Case(name, _run_file, "runs", reason))


# wrong types and values of its fields

for field, value in (
    ("schema_version", "new"),
    ("status", "sleeping"),
    ("created_at", 5),
    ("updated_at", [1]),
    ("pid", "x"),
    ("process_started", "noon"),
    ("host", 1),
    ("command", {"a": 1}),
    ("parent", ["a"]),
    ("init", 3),
    ("task", None),
    ("data_dir", 7),
    ("data", [1]),
    ("data_hash", 1.5),
    ("split_sizes", {"train": "many"}),
    ("labels", {"a": 1}),
    ("metric_name", 3),
    ("model", False),
    ("num_layers", "six"),
    ("prefix_lengths", "16"),
    ("apt_config", []),
    ("training", "none"),
    ("num_parameters", {"prefix": "x"}),
    ("seed", {}),
    ("device", 0),
    ("num_processes", 0),
    ("versions", {"torch": 2}),
    ("step", "1.5"),
    ("total_steps", []),
    ("seconds", "long"),
    ("best_step", "x"),
    ("metrics", {"validation": 0.5}),
    ("error", 5),
):
    _field(field, value)
_field("num_layers", 10**12, label="huge")
_field("prefix_lengths", [16] * 5, reason="prefix_lengths", label="short")
_field("prefix_lengths", [16, 16, 16, 16, 16, -1], reason="prefix_lengths", label="negative")
_field("prefix_lengths", [10**12] * 6, reason="prefix_lengths", label="huge")
_field("step", -5, label="negative")
_field("seconds", -1.0, label="negative")
_field("seconds", float("nan"), label="nan")
_field("seed", 10**400, label="huge")
_field("num_parameters", {"prefix": -5}, reason="number of prefix", label="negative")
_field("num_parameters", {"prefix": 10**30}, label="huge")
_field("created_at", "the day after tomorrow", label="words")
_field("created_at", "0001-01-01T00:00:00+14:00", label="year-1")
_field("created_at", "9999-12-31T23:59:59-14:00", label="year-9999")
_field("apt_config", {"token_gate": ["hidden"]}, reason="apt_config.token_gate", label="gate-list")
_field("apt_config", {"layer_scale": "no"}, reason="apt_config.layer_scale", label="scale-text")
_field("training", {"epochs": "many"}, reason="training.epochs", label="epochs-text")
_field("training", {"epochs": -3}, reason="training.epochs", label="epochs-negative")
_field("training", {"a": "\ud800"}, reason="training: holds text", label="surrogate")
_field("task", "x" * 100_000, reason="task: 100000 characters", label="long")
for field in ("task", "model", "host", "device", "parent", "init", "command", "data_dir"):
    _field(field, HOSTILE, "shown", "", "hostile")
_field("metric_name", HOSTILE, label="hostile")
_field("error", HOSTILE, "shown", "", "hostile")
_field("metrics", {"validation": {"accuracy": float("nan")}, "test": {"accuracy": float("inf")}}, "shown", "", "nan")
_field("training", {HOSTILE: HOSTILE, "epochs": 2}, "shown", "", "hostile")
_field("task", "two\nlines\ttab\x00nul \u202egnp.exe", "shown", "", "control")


@case("failed-hostile", "shown")
def _failed(folder: Path, outside: Path) -> None:
    _change(folder, status="failed", error=HOSTILE)


@case("phantom", "runs", "updated_at: got")
def _phantom(folder: Path, outside: Path) -> None:
    _change(folder, status="running", host="elsewhere", updated_at="2199-01-01T00:00:00+00:00")


# links, pipes and folders where files belong


@case("link-run-json", "runs", "run.json is a link")
def _link_run(folder: Path, outside: Path) -> None:
    (folder / "run.json").unlink()
    (folder / "run.json").symlink_to(outside / "run.json")


@case("link-metrics", "runs", "metrics.jsonl is a link")
def _link_metrics(folder: Path, outside: Path) -> None:
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").symlink_to(outside / "metrics.jsonl")


@case("link-predictions", "runs", "predictions.jsonl is a link")
def _link_predictions(folder: Path, outside: Path) -> None:
    (folder / "predictions.jsonl").symlink_to(outside / "predictions.jsonl")


@case("link-notes", "runs", "notes.json is a link")
def _link_notes(folder: Path, outside: Path) -> None:
    (folder / "notes.json").symlink_to(outside / "notes.json")


@case("link-gates", "runs", "gates is a link")
def _link_gates(folder: Path, outside: Path) -> None:
    (folder / "gates").rename(folder / "old-gates")
    (folder / "gates").symlink_to(outside / "gates")


@case("link-shard", "gates", "link|[Nn]o step")
def _link_shard(folder: Path, outside: Path) -> None:
    path = _shard(folder)
    path.unlink()
    path.symlink_to(outside / "gates" / path.name)


@case("link-folder", "runs", "it is a link")
def _link_folder(folder: Path, outside: Path) -> None:
    folder.rename(folder.parent / f".{folder.name}")
    folder.symlink_to(outside)


@case("link-loop", "runs", "it is a link")
def _link_loop(folder: Path, outside: Path) -> None:
    folder.rename(folder.parent / f".{folder.name}")
    folder.symlink_to(folder)


@case("fifo-run-json", "runs", "run.json is not a file")
def _fifo_run(folder: Path, outside: Path) -> None:
    (folder / "run.json").unlink()
    os.mkfifo(folder / "run.json")


@case("fifo-metrics", "runs", "metrics.jsonl is not a file")
def _fifo_metrics(folder: Path, outside: Path) -> None:
    (folder / "metrics.jsonl").unlink()
    os.mkfifo(folder / "metrics.jsonl")


@case("fifo-shard", "gates", ".")
def _fifo_shard(folder: Path, outside: Path) -> None:
    path = _shard(folder)
    path.unlink()
    os.mkfifo(path)


@case("folder-run-json", "runs", "run.json is not a file")
def _folder_run(folder: Path, outside: Path) -> None:
    (folder / "run.json").unlink()
    (folder / "run.json").mkdir()


@case("folder-metrics", "runs", "metrics.jsonl is not a file")
def _folder_metrics(folder: Path, outside: Path) -> None:
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").mkdir()


@case("folder-shard", "gates", ".")
def _folder_shard(folder: Path, outside: Path) -> None:
    path = _shard(folder)
    path.unlink()
    path.mkdir()


@case("file-gates", "runs", "gates is not a folder")
def _file_gates(folder: Path, outside: Path) -> None:
    (folder / "gates").rename(folder / "old-gates")
    (folder / "gates").write_text("gates")


@case("empty-folder", "runs", "it has no run.json")
def _empty(folder: Path, outside: Path) -> None:
    (folder / "run.json").unlink()
    (folder / "metrics.jsonl").unlink()


@case("name-not-utf8", "runs", "not valid UTF-8")
def _name(folder: Path, outside: Path) -> None:
    os.rename(folder, os.fsencode(folder.parent) + b"/name-\xff\xfe")


@case("name-hostile", "shown")
def _hostile_name(folder: Path, outside: Path) -> None:
    folder.rename(folder.parent / HOSTILE.replace("/", "|"))


@case("name-long", "runs", "its name has 252 bytes")
def _long_name(folder: Path, outside: Path) -> None:
    folder.rename(folder.parent / ("long" * 63))


# shards

for kept in (0, 4, 8, 100, -200, -1):

    def _cut(folder: Path, _: Path, kept: int = kept) -> None:
        path = _shard(folder)
        path.write_bytes(path.read_bytes()[:kept])

    CASES.append(Case(f"shard-cut-{kept}", _cut, "gates", "gates-"))


@case("shard-header-length-huge", "gates", "gates-")
def _huge_header(folder: Path, outside: Path) -> None:
    path = _shard(folder)
    path.write_bytes(struct.pack("<Q", 2**63) + path.read_bytes()[8:])


@case("shard-pickle", "gates", "gates-")
def _pickle(folder: Path, outside: Path) -> None:
    _shard(folder).write_bytes(b"cos\nsystem\n(S'touch pickled'\ntR.")


def _huge(header: dict) -> None:
    for name in header:
        if name != "__metadata__":
            header[name]["shape"][0] = 10**12


def _offsets(header: dict) -> None:
    header["token_gate"]["data_offsets"] = [0, 10**15]


_header("shard-rows-huge", _huge, "gates-")
_header("shard-offsets-huge", _offsets, "gates-")
_header("shard-type-unknown", lambda header: header["token_gate"].update(dtype="PICKLE"), "gates-")
_header("shard-future", lambda header: header["__metadata__"].update(schema_version="99"), "schema_version|99")


@_arrays("shard-missing-array", "lacks")
def _missing(arrays: dict) -> None:
    del arrays["layer_scale"]


@_arrays("shard-wrong-shape", "shape")
def _shape(arrays: dict) -> None:
    arrays["token_gate"] = arrays["token_gate"][:, 0]


@_arrays("shard-fewer-rows", "shape")
def _rows(arrays: dict) -> None:
    arrays["layer_scale"] = arrays["layer_scale"][:-1]


@_arrays("shard-step-float", "type")
def _step_type(arrays: dict) -> None:
    arrays["step"] = arrays["step"].astype(np.float32)


@_arrays("shard-gate-int", "type|outside|between|accepted")
def _gate_type(arrays: dict) -> None:
    arrays["token_gate"] = np.full(arrays["token_gate"].shape, 7, np.int64)


@_arrays("shard-duplicate-steps", "repeated")
def _duplicate(arrays: dict) -> None:
    arrays["step"][3] = arrays["step"][2]


@_arrays("shard-decreasing-steps", "out of order")
def _decreasing(arrays: dict) -> None:
    arrays["step"] = arrays["step"][::-1]


@_arrays("shard-negative-steps", "out of order")
def _negative(arrays: dict) -> None:
    arrays["step"] = arrays["step"] - 100


@_arrays("shard-empty", ".")
def _no_rows(arrays: dict) -> None:
    for name in arrays:
        arrays[name] = arrays[name][:0]


@_arrays("shard-missing-steps", "", "shown")
def _gap(arrays: dict) -> None:
    arrays["step"][5:] += 1000


@_arrays("shard-nan", "", "shown")
def _nan(arrays: dict) -> None:
    arrays["token_gate"][2] = np.nan


@_arrays("shard-infinity", "", "shown")
def _infinity(arrays: dict) -> None:
    arrays["token_gate"][:, 1] = np.inf
    arrays["layer_scale"][:] = -np.inf


@_arrays("shard-all-nan", "", "shown")
def _all_nan(arrays: dict) -> None:
    arrays["token_gate"][:] = np.nan
    arrays["layer_scale"][:] = np.nan


@case("lengths-do-not-match-layers", "gates", "prefix_lengths|6 layers")
def _other_layers(folder: Path, outside: Path) -> None:
    _change(folder, num_layers=4, prefix_lengths=[16] * 4)


@case("lengths-do-not-match-tokens", "budget", "prefix_lengths")
def _other_tokens(folder: Path, outside: Path) -> None:
    _change(folder, prefix_lengths=[9] * 6)


# metrics and predictions


@case("metrics-damaged", "gates", "metrics.jsonl:2")
def _metrics(folder: Path, outside: Path) -> None:
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 1}\n{nonsense\n{"step": 2, "loss": 1}\n')


@case("metrics-not-objects", "gates", "holds a list")
def _metric_lists(folder: Path, outside: Path) -> None:
    (folder / "metrics.jsonl").write_text("[1]\n[2]\n")


@case("metrics-deep", "gates", "nested too deeply|damaged")
def _metric_deep(folder: Path, outside: Path) -> None:
    (folder / "metrics.jsonl").write_text("[" * 100_000 + "]" * 100_000 + "\n{}\n")


@case("metrics-wrong-types", "shown")
def _metric_types(folder: Path, outside: Path) -> None:
    rows = [{"step": "x", "loss": []}, {"step": None, "loss": "1"}, {"step": 1, "loss": float("nan")}]
    rows += [{"step": 1e400, "loss": {"a": 1}}, {"step": -5, "loss": float("inf"), "eval_accuracy": True}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@case("metrics-huge-numbers", "gates", "beyond 2.53")
def _metric_huge(folder: Path, outside: Path) -> None:
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 10**400, "loss": 10**400}) + "\n")


@case("metrics-surrogate", "gates", "not valid UTF-8")
def _metric_surrogate(folder: Path, outside: Path) -> None:
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": "\ud800"}) + "\n")


@case("metrics-binary", "gates", "metrics.jsonl:1")
def _metric_bytes(folder: Path, outside: Path) -> None:
    (folder / "metrics.jsonl").write_bytes(os.urandom(1000).replace(b"\n", b"") + b"\n{}\n")


@case("predictions-damaged", "shown")
def _predictions(folder: Path, outside: Path) -> None:
    (folder / "predictions.jsonl").write_bytes(b"\xff\xfe[[[\n" * 100)


@case("notes-damaged", "shown")
def _notes(folder: Path, outside: Path) -> None:
    (folder / "notes.json").write_text("[" * 10_000)


@case("notes-hostile", "shown")
def _hostile_notes(folder: Path, outside: Path) -> None:
    (folder / "notes.json").write_text(json.dumps({"tags": ["<b>x</b>", ":red[x]"], "notes": HOSTILE}))


def write_all(root: Path, outside: Path, record_run: Callable[..., Path]) -> dict[str, Path]:
    """Every case as a folder in ``root``; case name -> folder as it was first named."""
    written = {}
    for each in CASES:
        folder = record_run(root / each.name, steps=12)
        each.write(folder, outside)
        written[each.name] = folder
    return written
