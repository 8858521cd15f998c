"""The run folder: written, read back, and told apart when its process is gone."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import psutil
import pytest

from apt_core.errors import AptError, AptFileExistsError, AptFileNotFoundError, AptValueError, AptWriteError
from apt_core.gate_log import GateLog
from apt_core.run_format import (
    GATES_FOLDER,
    METRICS_FILE,
    RUN_FILE,
    RunInfo,
    next_run_folder,
    read_json_lines,
    read_run_info,
    status_of,
    this_host,
    utc_now,
    write_atomic,
)
from apt_core.run_writer import RunWriter

INFO = RunInfo(task="copa", num_layers=2, prefix_lengths=[3, 1], num_parameters={"prefix": 8, "head": 2, "frozen": 90})
GATES = (np.full((2, 3), 0.5), np.zeros((2, 3)), np.ones(2))


def test_run_writer_while_it_lives_says_running(tmp_path):
    writer = RunWriter(tmp_path / "run", INFO)
    info = read_run_info(tmp_path / "run")
    assert (info.status, status_of(info), info.pid) == ("running", "running", os.getpid())
    writer.finish()


def test_run_whose_last_gates_could_not_be_written_is_not_called_finished(tmp_path, monkeypatch):
    writer = RunWriter(tmp_path, INFO)

    def full() -> None:
        raise AptWriteError("gates: No space left on device")

    close = writer._gates.close
    monkeypatch.setattr(writer._gates, "close", full)
    with pytest.raises(AptWriteError):
        writer.finish(seconds=1.5)
    info = read_run_info(tmp_path)
    assert (info.status, info.error) == ("failed", "gates: No space left on device")
    close()


def test_finished_run_holds_everything_that_was_appended(tmp_path):
    writer = RunWriter(tmp_path, INFO)
    for step in (1, 2, 3):
        writer.append_gates(step, *GATES)
    writer.append_metrics({"step": 3, "loss": 0.25})
    writer.finish(metrics={"validation": {"accuracy": 0.5}}, seconds=1.5)
    info = read_run_info(tmp_path)
    assert (status_of(info), info.step, info.metrics["validation"]["accuracy"]) == ("finished", 3, 0.5)
    assert (info.total_tokens, info.num_trained_parameters) == (4, 10)
    assert GateLog(tmp_path / GATES_FOLDER).steps.tolist() == [1, 2, 3]
    assert read_json_lines(tmp_path / METRICS_FILE) == [{"step": 3, "loss": 0.25}]


@pytest.mark.parametrize(("end", "status"), [("interrupt", "interrupted"), ("fail", "failed")])
def test_ended_run_says_how(tmp_path, end, status):
    writer = RunWriter(tmp_path, INFO)
    getattr(writer, end)(*(["out of memory"] if end == "fail" else []))
    info = read_run_info(tmp_path)
    assert status_of(info) == status
    assert info.error == ("out of memory" if end == "fail" else None)


def test_run_writer_into_a_run_raises_and_leaves_it(tmp_path):
    RunWriter(tmp_path, INFO).finish()
    before = (tmp_path / RUN_FILE).read_bytes()
    with pytest.raises(AptFileExistsError, match="already holds a run"):
        RunWriter(tmp_path, INFO)
    assert (tmp_path / RUN_FILE).read_bytes() == before


def test_resumed_run_drops_metrics_after_the_checkpoint(tmp_path):
    writer = RunWriter(tmp_path, INFO)
    for step in (1, 2, 3):
        writer.append_gates(step, *GATES)
        writer.append_metrics({"step": step})
    writer.interrupt()
    RunWriter(tmp_path, INFO, resume_step=2).finish()
    assert [row["step"] for row in read_json_lines(tmp_path / METRICS_FILE)] == [1, 2]
    assert GateLog(tmp_path / GATES_FOLDER).steps.tolist() == [1, 2]


def test_status_of_a_killed_process_is_interrupted(tmp_path):
    script = f"""
import os, signal, sys
from pathlib import Path
import numpy as np
from apt_core.run_format import RunInfo
from apt_core.run_writer import RunWriter
writer = RunWriter(Path({str(tmp_path)!r}), RunInfo(num_layers=1, prefix_lengths=[1]))
for step in range(1, 21):
    writer.append_gates(step, np.full((1, 1), 0.5), np.zeros((1, 1)), np.ones(1))
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", script], check=False)
    assert process.returncode == -9
    info = read_run_info(tmp_path)
    assert (info.status, status_of(info)) == ("running", "interrupted")
    assert len(GateLog(tmp_path / GATES_FOLDER)) >= 20 - 8


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"pid": os.getpid(), "process_started": psutil.Process().create_time()}, "running"),
        ({"pid": os.getpid(), "process_started": 12345.0}, "interrupted"),  # the pid was used again
        ({"pid": 2**22 + 1}, "interrupted"),
        ({"pid": -5}, "interrupted"),
        ({"host": "elsewhere", "updated_at": "now"}, "running"),
        ({"host": "elsewhere", "updated_at": "2999-01-01T00:00:00+00:00"}, "interrupted"),  # its clock is wrong
        ({"host": "elsewhere", "updated_at": "2001-01-01T00:00:00+00:00"}, "interrupted"),
        ({"host": "elsewhere", "updated_at": "yesterday"}, "interrupted"),
        ({"host": "elsewhere", "updated_at": "2001-01-01T00:00:00"}, "interrupted"),
        ({"status": "finished", "pid": 2**22 + 1}, "finished"),
    ],
)
def test_status_of_is_decided_from_process_and_heartbeat(fields, status):
    if fields.get("updated_at") == "now":  # now, not when tests were collected
        fields = {**fields, "updated_at": utc_now()}
    assert status_of(RunInfo(**{"host": this_host(), **fields})) == status


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[]", "holds a list"),
        ("[" * 100_000, "damaged"),
        (json.dumps({"schema_version": "2"}), "schema_version: got '2'; accepted: a whole number up to 1"),
        (json.dumps({"schema_version": True}), "schema_version: got True"),
        (json.dumps({"num_layers": 1, "prefix_lengths": [1025]}), "accepted: 1 numbers from 0 to 1024"),
        (json.dumps({"schema_version": 2}), r"schema_version: got 2; accepted: up to 1\. Update"),
        (json.dumps({"num_layers": "six"}), "num_layers: got 'six'"),
        (json.dumps({"num_layers": 3, "prefix_lengths": [1]}), "prefix_lengths: got .* accepted: 3 numbers"),
        (json.dumps({"num_layers": 1, "prefix_lengths": [-1]}), "prefix_lengths"),
        (json.dumps({"status": "dancing"}), "status: got 'dancing'"),
        ("x" * 5_000_000, "larger than"),
    ],
)
def test_read_run_info_of_a_damaged_file_names_it(tmp_path, content, message):
    (tmp_path / RUN_FILE).write_text(content)
    with pytest.raises(AptValueError, match=f"{RUN_FILE}.*{message}"):
        read_run_info(tmp_path)


def test_read_run_info_of_another_folder_raises(tmp_path):
    with pytest.raises(AptFileNotFoundError, match="not a run folder"):
        read_run_info(tmp_path)


def test_read_run_info_ignores_fields_of_later_writers(tmp_path):
    (tmp_path / RUN_FILE).write_text(json.dumps({"schema_version": 1, "mood": "sunny"}))
    assert read_run_info(tmp_path).task == ""


def test_read_json_lines_passes_over_a_line_cut_off_at_the_end(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text('{"step": 1}\n\n{"step": 2}\n{"ste')
    assert [row["step"] for row in read_json_lines(path)] == [1, 2]


@pytest.mark.parametrize("line", ["{broken", "[1]", "3"])
def test_read_json_lines_with_a_damaged_line_names_it(tmp_path, line):
    path = tmp_path / METRICS_FILE
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(AptError, match=f"{METRICS_FILE}:2"):
        read_json_lines(path)


def test_read_json_lines_keeps_a_loss_that_is_no_number(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text('{"step": 1, "loss": NaN}\n')
    assert math.isnan(read_json_lines(path)[0]["loss"])


def test_read_json_lines_of_a_huge_file_raises_unread(tmp_path):
    path = tmp_path / METRICS_FILE
    path.touch()
    os.truncate(path, 2**40)
    with pytest.raises(AptValueError, match=r"metrics\.jsonl: 1,099,511,627,776 bytes, larger than the 67,108,864"):
        read_json_lines(path)


def test_read_json_lines_with_deep_nesting_raises(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text("[" * 100_000 + "\n{}\n")
    with pytest.raises(AptValueError, match=r"metrics\.jsonl:1: damaged"):
        read_json_lines(path)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
@pytest.mark.parametrize("name", [RUN_FILE, METRICS_FILE])
def test_what_is_no_regular_file_is_refused(tmp_path, kind, name):
    folder = tmp_path / "run"
    folder.mkdir()
    if kind == "link":
        (tmp_path / "secret").write_text('{"step": 1}')
        (folder / name).symlink_to(tmp_path / "secret")
    elif kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).mkdir()
    with pytest.raises(AptValueError, match=f"{name}: (is a link|is not a regular file|cannot be read)"):
        read_run_info(folder) if name == RUN_FILE else read_json_lines(folder / name)


def test_run_writer_records_as_its_info_says(tmp_path):
    writer = RunWriter(tmp_path, INFO.model_copy(update={"record_every": 5, "record_dtype": "float16"}))
    for step in (5, 10):
        writer.append_gates(step, *GATES)
    writer.finish()
    info, log = read_run_info(tmp_path), GateLog(tmp_path / GATES_FOLDER)
    assert (info.record_every, info.record_dtype) == (log.record_every, log.record_dtype) == (5, "float16")


def test_flushed_gates_are_on_disk(tmp_path):
    writer = RunWriter(tmp_path, INFO)
    for step in (1, 2, 3):
        writer.append_gates(step, *GATES)
    writer.flush_gates()
    assert GateLog(tmp_path / GATES_FOLDER).steps.tolist() == [1, 2, 3]
    writer.finish()


def test_run_that_cannot_write_its_gates_says_so_and_failed(tmp_path):
    writer = RunWriter(tmp_path, INFO)
    writer.append_gates(1, *GATES)
    shutil.rmtree(tmp_path / GATES_FOLDER)
    with pytest.raises(AptWriteError, match="gates cannot be written"):
        writer.fail("out of memory")
    info = read_run_info(tmp_path)
    assert (info.status, info.error) == ("failed", "out of memory")


def test_append_gates_does_not_wait_for_the_run_file(tmp_path, monkeypatch):
    """While another thread, such as the heartbeat, waits for the disk with run.json."""
    writer = RunWriter(tmp_path, INFO)
    begun, disk = threading.Event(), threading.Event()

    def slow(path, content):
        begun.set()
        assert disk.wait(10)
        write_atomic(path, content)

    monkeypatch.setattr("apt_core.run_writer.write_atomic", slow)
    other = threading.Thread(target=writer.update, kwargs={"total_steps": 9})
    other.start()
    assert begun.wait(10)
    writer.append_gates(1, *GATES)
    writer.flush_gates()
    assert len(GateLog(tmp_path / GATES_FOLDER)) == 1
    disk.set()
    other.join()
    writer.finish()
    info = read_run_info(tmp_path)
    assert (info.step, info.total_steps) == (1, 9)


def test_next_run_folder_counts_up(tmp_path):
    assert next_run_folder(tmp_path, "copa-apt").name == "copa-apt-1"
    (tmp_path / "copa-apt-1").mkdir()
    assert next_run_folder(tmp_path, "copa-apt").name == "copa-apt-2"


SHAPES = {"layer_shapes": [[2, 8, 4, 32, 4]] * 2, "layer_kinds": ["encoder", "cross"], "backbone_dtype": "bfloat16"}


def test_shapes_of_layers_are_written_and_read(tmp_path):
    RunWriter(tmp_path, INFO.model_copy(update=SHAPES)).finish()
    assert read_run_info(tmp_path).model_dump(include=set(SHAPES)) == SHAPES


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer_shapes": [[2, 8, 4, 32, 4]]}, r"layer_shapes, layer_kinds: got \(1, 2\); accepted: 2 each"),
        ({"layer_kinds": []}, r"layer_shapes, layer_kinds: got \(2, 0\)"),
        ({"layer_shapes": [[2, 8, 4, 32]] * 2}, "layer_shapes: got"),
        ({"layer_shapes": [[]] * 2}, "layer_shapes: got"),
        ({"layer_shapes": [[2, 0, 4, 32, 4]] * 2}, "layer_shapes: got"),
        ({"layer_shapes": [[3, 8, 4, 32, 4]] * 2}, "layer_shapes: got"),  # 4 query heads on 3
        ({"layer_shapes": [[2, 2**19, 4, 32, 4]] * 2}, "layer_shapes: got"),
        ({"layer_shapes": [["a"] * 5] * 2}, "layer_shapes"),
        ({"layer_kinds": ["sideways"] * 2}, "layer_kinds"),
        ({"backbone_dtype": "<b>"}, "backbone_dtype"),
    ],
)
def test_impossible_shapes_are_refused(tmp_path, fields, message):
    RunWriter(tmp_path, INFO.model_copy(update=SHAPES)).finish()
    content = json.loads((tmp_path / RUN_FILE).read_text())
    (tmp_path / RUN_FILE).write_text(json.dumps({**content, **fields}))
    with pytest.raises(AptValueError, match=message):
        read_run_info(tmp_path)
