"""From a job to a finished run folder, and from that to the next: a small backbone on small files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.numpy import load_file

from apt_core.backbones import load_backbone
from apt_core.config import AptConfig, TrainSettings
from apt_core.errors import AptError, AptFileExistsError
from apt_core.evaluate_run import evaluate_run, load_run
from apt_core.gate_log import GateLog
from apt_core.peft_adapter import export_peft
from apt_core.retrain import retrain
from apt_core.run_format import (
    RUN_FILE,
    read_json_lines,
    read_run_info,
    snapshot_path,
    status_of,
    update_finished_run,
)
from apt_core.tasks.source import DataSource
from apt_core.train import TrainJob, train

STEPS = 15  # 3 epochs of 40 examples in batches of 8


@pytest.fixture
def job(job) -> TrainJob:
    return replace(job, training=job.training.model_copy(update={"epochs": 3, "learning_rate": 0.05}))


def test_train_writes_a_folder_that_twenty_lines_can_read(job):
    train(job)
    info = json.loads((job.out / "run.json").read_text())
    steps, gates = [], []
    for path in sorted((job.out / "gates").glob("gates-*.safetensors")):
        with safe_open(path, framework="numpy") as shard:
            steps += shard.get_tensor("step").tolist()
            gates.append(shard.get_tensor("token_gate"))
    gates = np.concatenate(gates)
    assert info["schema_version"] == 1
    assert info["status"] == "finished"
    assert steps == list(range(1, STEPS + 1))
    assert gates.shape == (STEPS, 3, 4)
    assert ((gates > 0) & (gates < 1)).all()
    assert sorted(path.name for path in job.out.iterdir()) == [
        "adapter",
        "gates",
        "metrics.jsonl",
        "predictions.jsonl",
        "run.json",
        "snapshots",
    ]


def test_train_says_which_texts_are_in_two_splits(job, tmp_path):
    folder = tmp_path / "leaky" / "copa"
    folder.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text((Path(job.data.data_dir) / "copa" / "train.jsonl").read_text())
    said = []
    train(replace(job, data=DataSource(data_dir=str(folder))), say=said.append)
    assert said[0] == "note: 40 of 40 validation examples have a text that is in train too"


def test_train_says_what_it_was_made_of(job):
    info = train(job)
    assert info.split_sizes == {"train": 40, "validation": 12, "test": 12}
    assert (info.task, info.seed, info.num_layers, info.total_tokens, info.step) == ("copa", 1, 3, 12, STEPS)
    assert info.num_parameters["prefix"] == 2 * 12 * 32
    assert set(info.versions) >= {"python", "torch", "transformers"}
    assert info.seconds > 0
    assert info.data_hash


def test_run_records_every_nth_step_in_half_the_size_if_told_to(job):
    training = job.training.model_copy(update={"record_every": 4, "record_dtype": "float16"})
    info = train(replace(job, training=training))
    assert (info.record_every, info.record_dtype, info.step) == (4, "float16", STEPS)
    assert GateLog(job.out / "gates").steps.tolist() == [4, 8, 12, STEPS]


def test_train_twice_gives_identical_metrics_and_gates(job):
    first = train(job)
    second = train(replace(job, out=job.out.with_name("again")))
    assert first.metrics == second.metrics
    for name, column in GateLog(job.out / "gates").read().items():
        np.testing.assert_array_equal(column, GateLog(job.out.with_name("again") / "gates").read()[name])


def test_final_metric_is_the_best_of_the_epochs(job):
    info = train(job)
    epochs = [row for row in read_json_lines(job.out / "metrics.jsonl") if "eval_accuracy" in row]
    assert len(epochs) == 3
    assert info.metrics["validation"]["accuracy"] == max(row["eval_accuracy"] for row in epochs)
    best = next(row for row in epochs if row["step"] == info.best_step)
    assert info.metrics["validation"]["loss"] == pytest.approx(best["eval_loss"], abs=1e-5)


def test_predictions_hold_gates_and_no_text(job):
    info = train(job)
    rows = read_json_lines(job.out / "predictions.jsonl")
    right = [row["gold"] == row["predicted"] for row in rows]
    assert np.mean(right) == pytest.approx(info.metrics["validation"]["accuracy"])
    assert np.mean([row["loss"] for row in rows]) == pytest.approx(info.metrics["validation"]["loss"], abs=1e-5)
    assert all(len(row["layer_gates"]) == 3 for row in rows)
    assert set(rows[0]) == {"id", "gold", "predicted", "loss", "layer_gates"}


def test_token_classification_trains_with_static_gates(job):
    info = train(replace(job, task="wnut17", apt=AptConfig(num_virtual_tokens=2, token_gate="static")))
    assert info.metric_name == "entity_f1"
    rows = read_json_lines(job.out / "predictions.jsonl")
    assert all(len(row["gold"]) == len(row["predicted"]) for row in rows)
    assert (GateLog(job.out / "gates").read()["token_gate_std"] == 0).all()


def test_retrain_gives_tensors_of_exactly_the_lengths_asked_for(job):
    train(job)
    out = job.out.with_name("pruned")
    info = retrain(job.out, out, (3, 0, 1))
    assert (info.parent, info.prefix_lengths) == ("run", [3, 0, 1])
    saved = {
        name.split("layer.")[1][0]: tensor.shape[1]
        for name, tensor in load_file(out / "adapter" / "adapter_model.safetensors").items()
        if name.endswith("apt_prefix.key")
    }
    assert saved == {"0": 3, "2": 1}
    gates = GateLog(out / "gates").read()["token_gate"]
    assert gates.shape == (STEPS, 3, 3)
    assert np.isnan(gates[:, 1]).all()


def test_retrain_on_other_data_warns(job, tmp_path):
    train(job)
    other = tmp_path / "other" / "copa"
    other.mkdir(parents=True)
    for path in (Path(job.data.data_dir) / "copa").iterdir():
        (other / path.name).write_text(path.read_text().replace("rain", "stone"))
    said = []
    retrain(job.out, job.out.with_name("b"), (1, 1, 1), data=DataSource(data_dir=str(other.parent)), say=said.append)
    assert "warning: the data is not what" in said[0]
    said.clear()
    retrain(job.out, job.out.with_name("c"), (1, 1, 1), say=said.append)
    assert not any("warning" in line for line in said)


def test_retrain_for_another_number_of_layers_raises(job):
    train(job)
    with pytest.raises(AptError, match=r"prefix_lengths: got '1,2'; accepted: 3 integers.*\(got 2\)"):
        retrain(job.out, job.out.with_name("b"), (1, 2))
    assert not job.out.with_name("b").exists()


def test_evaluate_run_on_test_notes_the_metrics(job):
    validation = train(job).metrics["validation"]
    metrics = evaluate_run(job.out, "test")
    assert read_run_info(job.out).metrics == {"validation": validation, "test": metrics}
    assert evaluate_run(job.out, "validation") == pytest.approx(validation)


def test_evaluate_run_on_an_unknown_split_raises(job):
    train(job)
    with pytest.raises(AptError, match="split: got 'dev'; accepted: train, validation, test"):
        evaluate_run(job.out, "dev")


def test_train_into_a_run_raises_and_leaves_it(job):
    train(job)
    before = (job.out / RUN_FILE).read_bytes()
    with pytest.raises(AptFileExistsError, match="already holds a run"):
        train(job)
    assert (job.out / RUN_FILE).read_bytes() == before


def test_failed_training_says_why_and_can_be_resumed(job, monkeypatch):
    from apt_core import callback

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(callback.RunWriter, "append_metrics", full)
        with pytest.raises(OSError, match="No space"):
            train(job)
    info = read_run_info(job.out)
    assert (info.status, info.error) == ("failed", "OSError: No space left on device")
    assert train(TrainJob.from_run(job.out), resume=True).status == "finished"


def test_killed_training_is_interrupted_readable_and_resumes_to_the_same_end(job):
    """SIGKILL in the second epoch; resumed, it equals an uninterrupted run of the same seed."""
    script = f"""
import sys
from pathlib import Path
from apt_core.callback import GateRecorder
from apt_core.backbones import load_backbone
from apt_core.config import AptConfig, TrainSettings
from apt_core.tasks.source import DataSource
from apt_core.train import TrainJob, train
record = GateRecorder.record
def record_and_wait(self, step):
    record(self, step)
    if step == 13:
        print("step 13", flush=True)
        sys.stdin.read()
GateRecorder.record = record_and_wait
train(TrainJob(task="copa", out=Path({str(job.out)!r}), model={job.model!r}, apt=AptConfig(num_virtual_tokens=4),
    training=TrainSettings(**{job.training.model_dump()!r}), data=DataSource(data_dir={job.data.data_dir!r})),
    say=lambda line: None)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        assert process.stdout.readline() == b"step 13\n"
        process.send_signal(signal.SIGKILL)
    info = read_run_info(job.out)
    assert status_of(info) == "interrupted"
    recorded = GateLog(job.out / "gates").steps
    assert 13 - 8 <= len(recorded) <= 13
    info = train(TrainJob.from_run(job.out), resume=True)
    assert status_of(info) == "finished"
    whole = train(replace(job, out=job.out.with_name("whole")))
    assert info.metrics == whole.metrics
    for name, column in GateLog(job.out / "gates").read().items():
        np.testing.assert_array_equal(column, GateLog(job.out.with_name("whole") / "gates").read()[name])
    epochs = [
        [row["step"] for row in read_json_lines(out / "metrics.jsonl")] for out in (job.out, job.out.with_name("whole"))
    ]
    assert epochs[0] == epochs[1]


def test_static_run_is_exported_to_peft_with_equal_outputs(job, tmp_path):
    """WNUT17 in small, token classification, absolute positions counted as PEFT counts them."""
    apt = AptConfig(num_virtual_tokens=2, token_gate="static", shift_positions=True)
    train(replace(job, task="wnut17", apt=apt))
    model = load_run(job.out).eval()
    export_peft(model, tmp_path / "peft")
    bare = load_backbone(job.model, "AutoModelForTokenClassification", id2label=model.config.id2label).model
    again = PeftModel.from_pretrained(bare, tmp_path / "peft").eval()
    input_ids = torch.randint(5, 30, (2, 6))
    batch = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).logits, model(**batch).logits, atol=1e-5, rtol=1e-5)


def test_resume_of_a_finished_run_raises(job):
    train(job)
    with pytest.raises(AptError, match="whose run is finished; accepted: an interrupted or failed run"):
        train(job, resume=True)


@pytest.mark.slow
def test_command_line_trains_the_offline_backbone(data_folder, tmp_path):
    """The real MiniLM through the real command: 6 layers x 16 virtual tokens."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "apt_core", "train", "--task", "copa", "--data-dir", str(data_folder)]
    command += ["--epochs", "1", "--seed", "1", "--out", str(out), "--json"]
    started = time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}, check=False)
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    assert printed["status"] == "finished"
    assert printed["prefix_lengths"] == [16] * 6
    assert "step" in result.stderr  # the progress bar
    assert GateLog(out / "gates").read()["token_gate"].shape == (3, 6, 16)
    assert read_run_info(out).model == "sentence-transformers/all-MiniLM-L6-v2"
    assert time.monotonic() - started < 300


def test_folder_without_tokenizer_is_refused(job, backbone_folder, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((backbone_folder / name).read_bytes())
    with pytest.raises(AptError, match=r"a folder without its tokenizer; accepted: one with tokenizer\.json"):
        train(replace(job, model=str(bare)))


def test_damaged_weights_are_refused(job, backbone_folder, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in backbone_folder.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes() if path.suffix != ".safetensors" else b"x" * 50)
    with pytest.raises(AptError, match="which transformers cannot load"):
        train(replace(job, model=str(damaged)))


def classification_job(job: TrainJob, folder: Path, classes: str) -> TrainJob:
    """Two files of texts with these classes, one a letter."""
    rows = [f"tree {letter},{classes[index % len(classes)]}" for index, letter in enumerate("abcdefghijklmnopqrstuvwx")]
    (folder / "train.csv").write_text("\n".join(["text,label", *rows]))
    (folder / "test.csv").write_text("\n".join(["text,label", *rows[:6]]))
    source = DataSource(train_file=str(folder / "train.csv"), test_file=str(folder / "test.csv"))
    return replace(job, task="text-classification", data=source)


def test_classifier_of_other_classes_is_a_backbone_with_a_new_head(job, backbone_folder, tmp_path):
    other = tmp_path / "other"
    load_backbone(str(backbone_folder), "AutoModelForSequenceClassification", num_labels=5).model.save_pretrained(other)
    for path in backbone_folder.glob("*token*"):
        (other / path.name).write_bytes(path.read_bytes())
    info = train(replace(classification_job(job, tmp_path, "xyz"), model=str(other)))
    assert info.labels == ["x", "y", "z"]
    assert 0 <= evaluate_run(job.out, "test")["accuracy"] <= 1


def test_evaluate_with_a_file_that_moved_keeps_the_classes(job, tmp_path):
    made = classification_job(job, tmp_path, "xyz")
    train(made)
    moved = tmp_path / "moved.csv"
    moved.write_text("text,label\ntree a,y\ntree b,z\ntree c,y\n")
    source = made.data.moved(test_file=str(moved))
    assert source.train_file == made.data.train_file
    assert evaluate_run(made.out, "test", data=source)["accuracy"] in (0.0, 1 / 3, 2 / 3, 1.0)
    other = DataSource(train_file=str(moved), validation_file=str(moved), test_file=str(moved))
    with pytest.raises(AptError, match="accepted: the classes of the run: x, y, z"):
        evaluate_run(made.out, "test", data=other)


def test_frozen_weights_are_loaded_for_evaluation_in_the_type_of_the_training(job):
    train(replace(job, training=job.training.model_copy(update={"dtype": "bfloat16", "epochs": 1})))
    types = {part: set() for part in (False, True)}
    for parameter in load_run(job.out).parameters():
        types[parameter.requires_grad].add(parameter.dtype)
    assert types == {False: {torch.bfloat16}, True: {torch.float32}}


def test_unequal_lengths_of_shifted_positions_are_refused_before_training(job):
    train(replace(job, apt=AptConfig(num_virtual_tokens=4, token_gate="static", shift_positions=True)))
    with pytest.raises(AptError, match=r"equal lengths, because .* counts virtual tokens as positions"):
        retrain(job.out, job.out.with_name("b"), (2, 3, 1), init="warm")


def test_optimizer_that_is_not_installed_leaves_nothing(job):
    with pytest.raises(AptError, match="optim: got 'galore_adamw'; accepted: one that this installation has"):
        train(replace(job, training=job.training.model_copy(update={"optim": "galore_adamw"})))
    assert not job.out.exists()


def test_prefix_that_leaves_no_position_for_the_text_is_refused(job):
    apt = AptConfig(num_virtual_tokens=62, token_gate="static", shift_positions=True)
    with pytest.raises(AptError, match="num_virtual_tokens: got 62; accepted: at most 60"):
        train(replace(job, apt=apt))


def test_steps_that_never_come_are_said_before_training(job):
    said = []
    train(replace(job, training=job.training.model_copy(update={"snapshot_steps": (2, 500)})), say=said.append)
    assert "note: snapshot-steps: 500 will not be kept, training has 15 steps" in said


def test_few_shots_of_tags_say_what_train_lacks(job, tmp_path):
    said = []
    tagged = "Ann B-PER\nsits O\n\nRome B-LOC\nsleeps O\n\nAcme B-ORG\nsells O\n"
    (tmp_path / "train.conll").write_text(tagged)
    (tmp_path / "dev.conll").write_text(tagged.replace("s O", "s O\nagain O"))
    data = DataSource(train_file=str(tmp_path / "train.conll"), validation_file=str(tmp_path / "dev.conll"))
    training = TrainSettings(epochs=1, shots=2, seed=3, device="cpu")
    train(replace(job, task="token-classification", data=data, training=training), say=said.append)
    assert any("labels that train lacks" in line for line in said)


def test_run_of_a_training_that_diverged_stays_readable(record_run, tmp_path):
    folder = record_run(tmp_path / "run", steps=2)
    update_finished_run(folder, metrics={"validation": {"perplexity": float("inf"), "loss": float("nan")}})
    assert read_run_info(folder).metrics["validation"]["perplexity"] == float("inf")


def test_lost_start_of_an_interrupted_warm_run_is_said(job):
    train(job)
    out = job.out.with_name("warm")
    retrain(job.out, out, (1, 1, 1), init="warm")
    update_finished_run(out, status="interrupted")
    snapshot_path(out, 0).unlink()
    with pytest.raises(AptError, match="has lost what it started from"):
        train(TrainJob.from_run(out), resume=True)
