"""Two processes that train together: one run folder, every step once, the gates of one process with the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from apt_core.gate_log import GateLog
from apt_core.run_format import read_json_lines, read_run_info

TWO = [
    "-m",
    "torch.distributed.run",
    "--nproc-per-node",
    "2",
    "--rdzv-backend",
    "c10d",
    "--rdzv-endpoint",
    "127.0.0.1:0",
]
LIMIT_SECONDS = 240


def run(arguments: list[str], *, processes: int) -> subprocess.CompletedProcess:
    launcher = TWO if processes == 2 else []
    return subprocess.run(
        [sys.executable, *launcher, "-m", "apt_core", *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        env={**os.environ, "COLUMNS": "200"},
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("task", ["copa", "wnut17"])
def test_two_processes_record_the_gates_of_one_with_the_same_total_batch(backbone_folder, data_folder, tmp_path, task):
    common = ["train", "--task", task, "--data-dir", str(data_folder), "--model", str(backbone_folder)]
    common += ["--num-virtual-tokens", "3", "--epochs", "2", "--lr", "0.01", "--backbone-dropout", "0"]
    common += ["--json"]
    folders = {}
    for processes in (1, 2):
        out = tmp_path / str(processes)
        result = run([*common, "--batch-size", str(8 // processes), "--out", str(out)], processes=processes)
        assert result.returncode == 0, result.stderr
        printed = [line for line in result.stdout.splitlines() if line.startswith("{")]
        assert len(printed) == 1
        assert json.loads(printed[0])["status"] == "finished"
        folders[processes] = out
    logs = {processes: GateLog(out / "gates") for processes, out in folders.items()}
    assert logs[2].steps.tolist() == logs[1].steps.tolist() == list(range(1, 11))
    for name, column in logs[1].read().items():
        np.testing.assert_allclose(logs[2].read()[name], column, atol=1e-4)
    one, two = (read_run_info(out) for out in folders.values())
    assert (one.num_processes, two.num_processes) == (1, 2)
    assert two.command.startswith("torchrun --nproc-per-node 2 -m apt_core train ")
    assert two.metrics["validation"] == pytest.approx(one.metrics["validation"], abs=1e-3)
    epochs = [
        [row[f"eval_{one.metric_name}"] for row in read_json_lines(out / "metrics.jsonl") if "eval_loss" in row]
        for out in folders.values()
    ]
    assert epochs[1] == pytest.approx(epochs[0], abs=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


@pytest.mark.slow
def test_bad_input_to_two_processes_is_said_once(tmp_path, data_folder):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    arguments = ["train", "--task", "copa", "--data-dir", str(data_folder), "--out", str(tmp_path / "full")]
    result = run(arguments, processes=2)
    assert result.returncode != 0
    assert result.stderr.count("error: out: got") == 1
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]
