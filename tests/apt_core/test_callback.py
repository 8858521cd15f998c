"""GateRecorder with transformers' Trainer and in a hand-written loop."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from apt_core import AptConfig, AptError, AptTrainer, GateRecorder, get_apt_model
from apt_core.gate_log import GateLog
from apt_core.run_format import read_json_lines, read_run_info


class Words(Dataset):
    """20 sequences whose label is their first word modulo 3."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        input_ids = torch.randint(1, 99, (8,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "labels": input_ids[0] % 3}


def arguments(folder, **changes) -> TrainingArguments:
    return TrainingArguments(
        **{
            "output_dir": str(folder / "trainer"),
            "per_device_train_batch_size": 4,
            "num_train_epochs": 2,
            "logging_steps": 2,
            "learning_rate": 0.01,
            "use_cpu": True,
            "disable_tqdm": True,
            "report_to": "none",
            "seed": 3,
            **changes,
        }
    )


def test_recorder_in_a_plain_trainer_writes_every_step_once(backbone, tmp_path):
    model = get_apt_model(backbone, AptConfig(prefix_lengths=(2, 0, 3)))
    recorder = GateRecorder(tmp_path / "run")
    Trainer(model, arguments(tmp_path), train_dataset=Words(), callbacks=[recorder]).train()
    info = read_run_info(tmp_path / "run")
    log = GateLog(tmp_path / "run" / "gates")
    assert (info.status, info.step, info.total_steps, info.prefix_lengths) == ("finished", 10, 10, [2, 0, 3])
    assert log.steps.tolist() == list(range(1, 11))
    gates = log.read()["token_gate"]
    assert gates.shape == (10, 3, 3)
    present = gates[~np.isnan(gates)]
    assert present.size == 10 * 5
    assert ((present > 0) & (present < 1)).all()
    losses = [row for row in read_json_lines(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert [row["step"] for row in losses] == [2, 4, 6, 8, 10]


def test_recorder_of_every_third_step_records_the_last_one_too(make_backbone, tmp_path):
    """The rows are those that a recorder of every step writes."""
    logs = []
    for every in (1, 3):
        torch.manual_seed(5)
        model = get_apt_model(make_backbone(), AptConfig(prefix_lengths=(2, 0, 3)))
        recorder = GateRecorder(tmp_path / f"run-{every}", every=every)
        Trainer(model, arguments(tmp_path), train_dataset=Words(), callbacks=[recorder]).train()
        logs.append(GateLog(tmp_path / f"run-{every}" / "gates"))
    assert logs[1].steps.tolist() == [3, 6, 9, 10]
    for name, column in logs[1].read().items():
        np.testing.assert_array_equal(column, logs[0].rows(logs[1].steps - 1)[name])
    info = read_run_info(tmp_path / "run-3")
    assert (info.record_every, logs[1].record_every, info.step) == (3, 3, 10)


def test_recorder_in_float16_rounds_to_three_digits(make_backbone, tmp_path):
    logs = []
    for dtype in ("float32", "float16"):
        torch.manual_seed(5)
        model = get_apt_model(make_backbone(), AptConfig(num_virtual_tokens=2))
        recorder = GateRecorder(tmp_path / dtype, dtype=dtype)
        Trainer(model, arguments(tmp_path), train_dataset=Words(), callbacks=[recorder]).train()
        logs.append(GateLog(tmp_path / dtype / "gates").read())
    for name in logs[0]:
        np.testing.assert_allclose(logs[1][name], logs[0][name], rtol=1e-3)
    assert not np.array_equal(logs[1]["token_gate"], logs[0]["token_gate"])
    assert read_run_info(tmp_path / "float16").record_dtype == "float16"


@pytest.mark.parametrize("settings", [{"every": 0}, {"every": "2"}, {"dtype": "bfloat16"}])
def test_recorder_with_settings_that_cannot_be_used_raises(tmp_path, settings):
    with pytest.raises(AptError, match=r"record_(every|dtype): got .*; accepted: "):
        GateRecorder(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_recorder_raises_in_training_when_the_folder_is_gone(backbone, batch, tmp_path):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2))
    recorder = GateRecorder(tmp_path / "run")
    recorder.start(model)
    model.train()
    shutil.rmtree(tmp_path / "run" / "gates")
    with pytest.raises(AptError, match="gates cannot be written"):
        record_steps(recorder, model, batch, 10)
    with pytest.raises(AptError, match="gates cannot be written"):
        recorder.close("folder gone")
    assert read_run_info(tmp_path / "run").status == "failed"


def record_steps(recorder: GateRecorder, model: torch.nn.Module, batch: dict, num_steps: int) -> None:
    for step in range(1, num_steps + 1):
        model(**batch)
        recorder.record(step)


def test_recorder_counts_optimizer_steps_under_gradient_accumulation(backbone, tmp_path):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2))
    settings = arguments(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=2, num_train_epochs=1)
    Trainer(model, settings, train_dataset=Words(), callbacks=[GateRecorder(tmp_path / "run")]).train()
    assert GateLog(tmp_path / "run" / "gates").steps.tolist() == [1, 2, 3, 4, 5]


def test_recording_does_not_change_training(make_backbone, tmp_path):
    weights = []
    for recorders in ([], [GateRecorder(tmp_path / "run")]):
        torch.manual_seed(5)
        model = get_apt_model(make_backbone(), AptConfig(num_virtual_tokens=2))
        Trainer(model, arguments(tmp_path), train_dataset=Words(), callbacks=recorders).train()
        weights.append(model.trained_state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_recorded_first_gates_are_those_before_the_first_update(backbone, tmp_path):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2, token_gate="static"))
    Trainer(model, arguments(tmp_path), train_dataset=Words(), callbacks=[GateRecorder(tmp_path / "run")]).train()
    log = GateLog(tmp_path / "run" / "gates")
    assert (log.at(1).token_gate == 0.5).all()
    assert (log.at(1).layer_scale == 1).all()
    assert (log.at(3).token_gate != 0.5).all()


def test_recorder_in_a_hand_written_loop(backbone, batch, tmp_path):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2))
    optimizer = torch.optim.AdamW(model.trained_state_dict().values(), lr=0.01)
    recorder = GateRecorder(tmp_path)
    recorder.start(model)
    model.train()
    for step in (1, 2, 3):
        model(**batch, labels=torch.tensor([0, 1])).loss.backward()
        recorder.record(step)
        optimizer.step()
        optimizer.zero_grad()
    recorder.close()
    assert read_run_info(tmp_path).status == "finished"
    assert GateLog(tmp_path / "gates").steps.tolist() == [1, 2, 3]


def test_training_that_ended_by_an_exception_is_gone_on_with_in_the_same_process(backbone, batch, tmp_path):
    """As in a notebook: the first recorder was never closed, and must neither write nor watch any more."""
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2)).train()
    first = GateRecorder(tmp_path)
    first.start(model)
    for step in (1, 2, 3):
        model(**batch, labels=torch.tensor([0, 1]))
        first.record(step)
    second = GateRecorder(tmp_path, resume=True)
    second.start(model, resume_step=2)
    assert not first.writer._heart.is_alive()
    model(**batch, labels=torch.tensor([0, 1]))
    assert not any(first._tally._seen)
    second.record(3)
    second.close()
    assert read_run_info(tmp_path).status == "finished"
    assert GateLog(tmp_path / "gates").steps.tolist() == [1, 2, 3]


def test_recorder_into_an_existing_run_raises_before_training(backbone, tmp_path):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2))
    Trainer(model, arguments(tmp_path), train_dataset=Words(), callbacks=[GateRecorder(tmp_path / "run")]).train()
    before = GateLog(tmp_path / "run" / "gates").read()["token_gate"]
    with pytest.raises(AptError, match="already holds a run"):
        Trainer(model, arguments(tmp_path), train_dataset=Words(), callbacks=[GateRecorder(tmp_path / "run")]).train()
    np.testing.assert_array_equal(GateLog(tmp_path / "run" / "gates").read()["token_gate"], before)


def test_recorder_on_a_model_without_prefixes_raises(backbone, tmp_path):
    with pytest.raises(AptError, match="accepted: a model from get_apt_model"):
        GateRecorder(tmp_path).start(backbone)


def test_apt_trainer_resumes_to_the_same_weights(make_backbone, tmp_path):
    """Half the training, then the rest from the checkpoint, equals the whole training."""

    def trained(folder, *, stop_after: int | None = None, resume: bool = False) -> dict[str, torch.Tensor]:
        torch.manual_seed(5)
        model = get_apt_model(make_backbone(), AptConfig(num_virtual_tokens=2))
        settings = arguments(folder, save_strategy="epoch")
        trainer = AptTrainer(model, settings, train_dataset=Words(), callbacks=[GateRecorder(folder / "run")])
        if stop_after:
            trainer.callback_handler.on_epoch_end = lambda args, state, control: (
                setattr(control, "should_training_stop", True) or setattr(control, "should_save", True) or control
            )
        trainer.train(resume_from_checkpoint=resume)
        return {name: value.detach().clone() for name, value in model.trained_state_dict().items()}

    whole = trained(tmp_path / "whole")
    trained(tmp_path / "parts", stop_after=1)
    resumed = trained(tmp_path / "parts", resume=True)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)
    columns = [GateLog(tmp_path / part / "run" / "gates").read() for part in ("whole", "parts")]
    np.testing.assert_array_equal(columns[0]["token_gate"], columns[1]["token_gate"])


def test_apt_trainer_loads_the_best_checkpoint_at_the_end(backbone, tmp_path):
    """With the largest loss called best, an early checkpoint has to come back."""
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2))
    settings = arguments(
        tmp_path,
        num_train_epochs=4,
        save_strategy="epoch",
        eval_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,
    )
    trainer = AptTrainer(model, settings, train_dataset=Words(), eval_dataset=Words())
    trainer.train()
    losses = [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row]
    assert max(losses) > losses[-1]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(max(losses), rel=1e-6)
