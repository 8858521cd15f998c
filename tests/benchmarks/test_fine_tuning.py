"""Fine-tuning is a run of ``apt_core`` in which every weight is trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from apt_core.__main__ import app as apt
from apt_core.errors import AptError
from apt_core.evaluate_run import load_run
from apt_core.run_format import read_run_info, snapshot_steps, update_finished_run
from benchmarks.fine_tuning import app

SETTINGS = ("--epochs", "1", "--batch-size", "8", "--lr", "0.001", "--device", "cpu", "--seed", "3")


def fine_tune(backbone: Path, data: Path, out: Path) -> None:
    words = ["train", "--task", "copa", "--model", str(backbone), "--data-dir", str(data), "--out", str(out)]
    app([*words, *SETTINGS], standalone_mode=False)


@pytest.fixture(scope="module")
def run(backbone_folder, data_folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "all"
    words = [
        "train",
        "--task",
        "copa",
        "--model",
        str(backbone_folder),
        "--data-dir",
        str(data_folder),
        "--out",
        str(out),
    ]
    app([*words, *SETTINGS], standalone_mode=False)
    return out


def test_every_weight_is_trained_and_none_is_frozen(run, backbone_folder):
    info = read_run_info(run)
    model = load_run(run)
    assert info.status == "finished"
    assert info.num_parameters["frozen"] == 0
    assert info.num_trained_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (info.total_tokens, info.seed, info.training["learning_rate"]) == (0, 3, 0.001)
    before = AutoModel.from_pretrained(backbone_folder).state_dict()
    after = model.base_model.state_dict()
    for name in ("embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"):
        assert not torch.equal(before[name], after[name]), name


def test_it_is_evaluated_by_apt_core_and_keeps_no_snapshot(run, data_folder):
    apt(["evaluate", str(run), "--split", "test"], standalone_mode=False)
    assert 0 <= read_run_info(run).metrics["test"]["accuracy"] <= 1
    assert snapshot_steps(run) == []


def test_it_is_resumed_by_apt_core_with_all_weights_trained(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    update_finished_run(copy, status="interrupted", metrics={})
    apt(["train", "--out", str(copy), "--resume", "--no-measure"], standalone_mode=False)
    info = read_run_info(copy)
    assert (info.status, info.num_parameters["frozen"]) == ("finished", 0)


def test_folder_that_holds_a_run_is_refused(run, backbone_folder, data_folder):
    words = [
        "train",
        "--task",
        "copa",
        "--model",
        str(backbone_folder),
        "--data-dir",
        str(data_folder),
        "--out",
        str(run),
    ]
    with pytest.raises(AptError, match="already holds a run"):
        app([*words, *SETTINGS], standalone_mode=False)
