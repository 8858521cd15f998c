"""A job description in, a finished run folder out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from transformers import EvalPrediction, PreTrainedTokenizerBase, PrinterCallback, TrainingArguments, set_seed

from apt_core.backbones import load_backbone, load_tokenizer
from apt_core.callback import GateRecorder
from apt_core.config import AptConfig, TrainSettings, canonical_name
from apt_core.errors import AptValueError, bad_value
from apt_core.evaluate import evaluate
from apt_core.model import AptModel, get_apt_model
from apt_core.progress import ProgressBar
from apt_core.run_format import (
    ADAPTER_FOLDER,
    CHECKPOINT_FOLDER,
    RUN_FILE,
    RunInfo,
    check_new_folder,
    read_run_info,
    status_of,
)
from apt_core.tasks import family_of, load_task
from apt_core.tasks.base import TaskData
from apt_core.tasks.checks import check_task
from apt_core.tasks.shots import take_shots
from apt_core.trainer import AptTrainer, last_checkpoint

LENGTH_COLUMN = "length"
LOG_LINES_PER_EPOCH = 10


@dataclass(frozen=True)
class TrainJob:
    """Everything that decides what a run becomes."""

    task: str
    out: Path
    model: str
    apt: AptConfig
    training: TrainSettings
    data_dir: str | None = None
    parent: str | None = None
    """name of the run that gave the lengths"""
    command: str = ""
    """the command line that does the same"""

    @classmethod
    def from_run(cls, folder: Path) -> TrainJob:
        """The job that made ``folder``."""
        info = read_run_info(folder)
        if not info.task or not info.training:
            raise AptValueError(
                f"run: got {str(folder)!r}, which does not say how it was trained; accepted: a run made by "
                "'python -m apt_core train' or 'retrain'."
            )
        return cls(
            task=info.task,
            out=folder,
            model=info.model,
            apt=AptConfig(**info.apt_config),
            training=TrainSettings(**info.training),
            data_dir=info.data_dir,
            parent=info.parent,
            command=info.command,
        )


def load_job_data(job: TrainJob) -> TaskData:
    """The task's data as the job sees it, few-shot selection done, checked.

    Raises:
        AptError: if the task, its files or their content are not usable.
    """
    task = load_task(job.task, job.data_dir)
    if job.training.shots is not None:
        task = take_shots(task, job.training.shots, job.training.seed)
    check_task(task)
    return task


def train(job: TrainJob, *, resume: bool = False, say: Callable[[str], None] = print) -> RunInfo:
    """Trains, keeps the best checkpoint by the task's metric, evaluates it on validation, writes the run folder.

    Args:
        job: what to do.
        resume: go on with an interrupted run in ``job.out`` from its last checkpoint.
        say: receives one-line messages for the user.

    Raises:
        AptError: on bad input, before anything is written.
    """
    check_output(job.out, resume)
    check_device(job.training.device)
    task = load_job_data(job)
    quiet_transformers()
    set_seed(job.training.seed)
    tokenizer = load_tokenizer(job.model)
    model = build_model(job, task)
    family = family_of(task)
    max_length = fitting_length(job.training.max_length, tokenizer)
    train_set = family.encode(task, "train", tokenizer, max_length)
    validation_set = family.encode(task, "validation", tokenizer, max_length)

    def compute_metrics(result: EvalPrediction) -> dict[str, float]:
        predicted = family.predictions(task, "validation", result.predictions, result.label_ids)
        return family.score(task, "validation", predicted)

    recorder = GateRecorder(job.out, _run_info(job, task, family.metric_name, resume), resume=resume, keep_open=True)
    trainer = AptTrainer(
        model=model,
        args=_training_arguments(job, len(train_set), family.metric_name),
        train_dataset=train_set,
        eval_dataset=validation_set,
        data_collator=_without_length(family.collator(tokenizer)),
        compute_metrics=compute_metrics,
        callbacks=[recorder, ProgressBar(family.metric_name)],
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_checkpoint(job.out / CHECKPOINT_FOLDER) if resume else None
    if resume:
        say(f"resuming {job.out} " + (f"after step {checkpoint[1]}" if checkpoint else "from the start"))
    for note in check_task(task):
        say(f"note: {note}")
    say(_summary(job, task, model))
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint[0]) if checkpoint else None)
        seconds = recorder.seconds
        model.save_pretrained(job.out / ADAPTER_FOLDER)
        result = evaluate(
            model, task, "validation", tokenizer, batch_size=2 * job.training.batch_size, max_length=max_length
        )
        recorder.writer.write_predictions(result.predictions)
    except BaseException as problem:
        if recorder.writer is not None:
            if isinstance(problem, KeyboardInterrupt):
                recorder.writer.interrupt()
                say(f"interrupted; python -m apt_core train --out {job.out} --resume goes on with it")
            else:
                recorder.writer.fail(f"{type(problem).__name__}: {problem}".partition("\n")[0])
        raise
    best_step = trainer.state.best_global_step
    recorder.writer.finish(seconds=seconds, best_step=best_step, metrics={"validation": result.metrics})
    shutil.rmtree(job.out / CHECKPOINT_FOLDER, ignore_errors=True)
    return recorder.writer.info


def build_model(job: TrainJob, task: TaskData) -> AptModel:
    """The frozen backbone with the task's head and fresh prefixes.

    What the checkpoint did not hold (the head; a pooler of a masked-language checkpoint) is trained and saved too.
    """
    backbone = load_backbone(job.model, family_of(task).auto_class, **_head_settings(task))
    config = job.apt
    if config.modules_to_save is None and backbone.fresh_modules:
        config = config.model_copy(update={"modules_to_save": backbone.fresh_modules})
    return get_apt_model(backbone.model, config)


def fitting_length(max_length: int, tokenizer: PreTrainedTokenizerBase) -> int:
    """``max_length``, or the backbone's own limit where that is smaller."""
    return min(max_length, tokenizer.model_max_length)


def quiet_transformers() -> None:
    """Keeps transformers' load reports and download bars out of our own output."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def check_output(out: Path, resume: bool) -> None:
    """Refuses an output folder that a new run would overwrite, or that has nothing to resume.

    Raises:
        AptError: naming the folder and what to do.
    """
    if not resume:
        check_new_folder(out)
        return
    if not (out / RUN_FILE).exists():
        raise bad_value("out", str(out), "a folder with an interrupted run", "Leave out --resume to start one.")
    status = status_of(read_run_info(out))
    if status in ("running", "finished"):
        raise AptValueError(f"out: got {str(out)!r}, whose run is {status}; accepted: an interrupted or failed run.")


def check_device(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        raise bad_value("device", device, "auto or cpu", "torch finds no CUDA device on this machine.")


def _head_settings(task: TaskData) -> dict[str, Any]:
    if not task.labels:
        return {}
    return {"id2label": dict(enumerate(task.labels)), "label2id": {label: i for i, label in enumerate(task.labels)}}


def _summary(job: TrainJob, task: TaskData, model: AptModel) -> str:
    """What is about to be trained on what, in one line."""
    sizes = ", ".join(f"{len(examples):,} {split}" for split, examples in task.splits.items())
    counts = model.count_parameters()
    trained = sum(counts.values()) - counts["frozen"]
    lengths = " ".join(map(str, model.apt_config.prefix_lengths))
    return (
        f"{job.task} ({sizes}) on {canonical_name(job.model)}: virtual tokens per layer {lengths}, "
        f"{trained:,} trained parameters, {counts['frozen']:,} frozen"
    )


def _run_info(job: TrainJob, task: TaskData, metric_name: str, resume: bool) -> RunInfo:
    fields: dict[str, Any] = {
        "command": job.command,
        "parent": job.parent,
        "task": job.task,
        "data_dir": job.data_dir,
        "data_hash": task.fingerprint(),
        "split_sizes": {split: len(examples) for split, examples in task.splits.items()},
        "labels": list(task.labels),
        "metric_name": metric_name,
        "model": canonical_name(job.model),
        "training": job.training.model_dump(mode="json"),
    }
    if resume:
        earlier = read_run_info(job.out)
        if earlier.data_hash and earlier.data_hash != fields["data_hash"]:
            raise AptValueError(
                f"data: its hash is {fields['data_hash'][:12]}, but the run began with {earlier.data_hash[:12]}; "
                "accepted: the same data. Start a new run with another --out."
            )
        fields |= {"created_at": earlier.created_at, "seconds": earlier.seconds, "command": earlier.command}
    return RunInfo(**fields)


def _training_arguments(job: TrainJob, num_examples: int, metric_name: str) -> TrainingArguments:
    settings = job.training
    steps_per_epoch = -(-num_examples // settings.batch_size)
    return TrainingArguments(
        output_dir=str(job.out / CHECKPOINT_FOLDER),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        warmup_steps=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        use_cpu=settings.device == "cpu",
        train_sampling_strategy="group_by_length",
        length_column_name=LENGTH_COLUMN,
        remove_unused_columns=False,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model=metric_name,
        greater_is_better=True,
        logging_steps=max(1, steps_per_epoch // LOG_LINES_PER_EPOCH),
        dataloader_pin_memory=torch.cuda.is_available() and settings.device != "cpu",
        disable_tqdm=True,
        report_to="none",
    )


def _without_length(collate: Callable[[list[dict]], dict]) -> Callable[[list[dict]], dict]:
    """The column that sorts by length is for the sampler, not for the model."""

    def collate_batch(examples: list[dict]) -> dict:
        return collate([{name: value for name, value in row.items() if name != LENGTH_COLUMN} for row in examples])

    return collate_batch
