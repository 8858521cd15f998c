"""The dry run before a training: it refuses what does not fit, writes nothing, and changes nothing that follows."""

from __future__ import annotations

import random
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from torch import nn

from apt_core import preflight
from apt_core.config import TrainSettings
from apt_core.errors import AptError
from apt_core.gate_log import GateLog
from apt_core.memory_meter import HostMeter
from apt_core.run_format import read_json_lines, update_finished_run
from apt_core.tasks.source import DataSource
from apt_core.train import TrainJob, train


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """How many examples each pass of a dry run had."""
    made, taken = [], preflight._DryRun.taken

    def count(self: preflight._DryRun, examples: int) -> float | None:
        made.append(examples)
        return taken(self, examples)

    monkeypatch.setattr(preflight._DryRun, "taken", count)
    return made


def results(job: TrainJob) -> tuple:
    """All that a training leaves but for times."""
    rows = read_json_lines(job.out / "metrics.jsonl")
    timed = ("seconds", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    return (
        (job.out / "adapter" / "adapter_model.safetensors").read_bytes(),
        [{name: value for name, value in row.items() if name not in timed} for row in rows],
        {name: column.tobytes() for name, column in GateLog(job.out / "gates").read().items()},
        (job.out / "predictions.jsonl").read_bytes(),
    )


@pytest.mark.parametrize(
    "settings",
    [{}, {"gradient_checkpointing": True, "bf16": True}, {"gradient_accumulation_steps": 2, "optim": "sgd"}],
    ids=["default", "checkpointing in bfloat16", "accumulation"],
)
@pytest.mark.parametrize("task", ["copa", "wnut17"])
def test_training_after_the_check_is_bit_for_bit_the_one_without(job, passes, settings, task):
    """With dropout: a single further draw would show."""
    job = replace(job, task=task, training=job.training.model_copy(update=settings))
    unchecked = replace(job, out=job.out.with_name("unchecked"))
    train(unchecked, memory_check=False, say=lambda line: None)
    assert passes == []
    train(job, say=lambda line: None)
    assert passes == [1, 1]
    assert results(job) == results(unchecked)


def test_batch_that_does_not_fit_is_refused_and_nothing_is_left(job, monkeypatch, tmp_path):
    monkeypatch.setattr(HostMeter, "room", lambda self: 0)
    job = replace(job, out=tmp_path / "runs" / "a")
    with pytest.raises(AptError, match=r"^batch_size: got 8; accepted: none here, .* 0 bytes of memory are free"):
        train(job, say=lambda line: None)
    assert list(tmp_path.iterdir()) == []
    job.out.mkdir(parents=True)
    with pytest.raises(AptError, match="memory are free"):
        train(job, say=lambda line: None)
    assert list(job.out.iterdir()) == []


def test_resumed_run_that_does_not_fit_stays_as_it_is(job, monkeypatch):
    train(job, say=lambda line: None)
    update_finished_run(job.out, status="interrupted")
    before = {path: path.read_bytes() for path in job.out.rglob("*") if path.is_file()}
    monkeypatch.setattr(HostMeter, "room", lambda self: 0)
    with pytest.raises(AptError, match="memory are free"):
        train(TrainJob.from_run(job.out), resume=True, say=lambda line: None)
    assert {path: path.read_bytes() for path in job.out.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_estimate_is_near_what_a_whole_batch_takes(job, monkeypatch):
    """On the real backbone, whose passes are large enough to be measured."""
    fits = []

    def measured(measure, batch_size, room) -> None:
        one, four, all_of_them = (measure(size) for size in (1, 4, batch_size))
        fits.append((four + (four - one) / 3 * (batch_size - 4), all_of_them))
        raise KeyboardInterrupt

    monkeypatch.setattr(preflight, "fit_batch", measured)
    training = job.training.model_copy(update={"batch_size": 8})
    with pytest.raises(KeyboardInterrupt):
        train(replace(job, model="minilm", task="pydoc-topic", data=DataSource(), training=training), say=print)
    estimated, taken = fits[0]
    assert estimated == pytest.approx(taken, rel=0.2)


def test_longest_example_has_the_longest_labels_of_all():
    data = datasets.Dataset.from_dict(
        {"input_ids": [[1], [1, 2, 3], [1, 2]], "labels": [[7, 8, 9, 9], [7], [7, 8]], "length": [1, 3, 2]}
    )
    assert preflight._longest(data) == {"input_ids": [1, 2, 3], "labels": [7, 8, 9, 9], "length": 3}
    classes = datasets.Dataset.from_dict({"input_ids": [[1], [1, 2]], "labels": [4, 5], "length": [1, 2]})
    assert preflight._longest(classes) == {"input_ids": [1, 2], "labels": 5, "length": 2}


def test_what_a_pass_changes_is_put_back():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout()).eval()
    model.register_buffer("constant", torch.zeros(1).expand(4))
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    draws = random.random, np.random.random, lambda: torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with preflight._undisturbed(model, torch.device("cpu")):
        model.train()
        model(torch.randn(5, 3))
        assert not torch.equal(model[0].running_mean, buffers["0.running_mean"])
        [draw() for draw in draws]
    after = [draw() for draw in draws]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert after == [draw() for draw in draws]
    assert not model.training
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())


@pytest.mark.parametrize(
    ("words", "expected", "message"),
    [
        ("DefaultCPUAllocator: can't allocate memory", AptError, "even one example does not fit"),
        ("shapes cannot be multiplied", RuntimeError, "shapes cannot be multiplied"),
    ],
)
def test_pass_that_runs_out_is_told_from_one_that_fails(job, monkeypatch, words, expected, message):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr("apt_core.trainer.AptTrainer.compute_loss", fail)
    with pytest.raises(expected, match=message):
        train(job, say=lambda line: None)
    assert not job.out.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_gpu_that_is_not_there_is_refused_and_nothing_is_left(job, tmp_path):
    training = job.training.model_copy(update={"device": "cuda"})
    with pytest.raises(AptError, match=r"device: got 'cuda'; accepted: auto or cpu\. torch finds no CUDA device"):
        train(replace(job, training=training), say=lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_dots_in_a_path_lead_where_they_say(job, tmp_path):
    (tmp_path / "runs").mkdir()
    out = tmp_path / "runs" / ".." / "elsewhere" / "a"
    assert train(replace(job, out=out), say=lambda line: None).status == "finished"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "runs"]
    with pytest.raises(AptError, match="accepted: a folder that is new or empty"):
        train(replace(job, out=tmp_path / "runs" / ".." / "elsewhere"), say=lambda line: None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batch_that_no_gpu_holds_is_refused_and_the_proposed_one_trains(job, tmp_path):
    rows = ["text,label", *(f"{' '.join(['tree'] * 70)},{'ab'[index % 2]}" for index in range(4000))]
    for name, count in (("train", 4001), ("validation", 21)):
        (tmp_path / f"{name}.csv").write_text("\n".join(rows[:count]))
    files = {f"{name}_file": str(tmp_path / f"{name}.csv") for name in ("train", "validation")}
    training = TrainSettings(epochs=1, batch_size=4000, device="cuda")
    job = replace(job, task="text-classification", data=DataSource(**files), training=training)
    held = torch.empty(torch.cuda.mem_get_info()[0] - 2 * 10**9, dtype=torch.uint8, device="cuda")
    with pytest.raises(AptError, match=r"batch_size: got 4000; accepted: at most \d+ here") as refused:
        train(job, say=lambda line: None)
    words = str(refused.value).partition("--batch-size ")[2].split()
    split = {"batch_size": int(words[0]), "gradient_accumulation_steps": int(words[2].rstrip("."))}
    assert train(replace(job, training=training.model_copy(update=split)), say=lambda line: None).status == "finished"
    del held
