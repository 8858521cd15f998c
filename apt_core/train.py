"""A job description in, a finished run folder out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from transformers import EvalPrediction, PreTrainedTokenizerBase, PrinterCallback, set_seed

from apt_core.arguments import (
    LENGTH_COLUMN,
    check_optimizer,
    late_snapshots_note,
    learning_rates,
    training_arguments,
)
from apt_core.backbones import load_backbone, load_tokenizer, pad_as, set_dropout
from apt_core.callback import GateRecorder
from apt_core.config import AptConfig, TrainSettings, canonical_name
from apt_core.errors import AptValueError, bad_value
from apt_core.evaluate import evaluate
from apt_core.model import AptModel, get_apt_model
from apt_core.processes import is_main_rank, num_ranks
from apt_core.progress import ProgressBar
from apt_core.ranks import agreed
from apt_core.run_format import (
    ADAPTER_FOLDER,
    CHECKPOINT_FOLDER,
    RUN_FILE,
    RunInfo,
    check_new_folder,
    read_run_info,
    snapshot_path,
    status_of,
)
from apt_core.snapshots import SnapshotRecorder
from apt_core.start import Start
from apt_core.tasks import family_of, load_task
from apt_core.tasks.base import Family, TaskData
from apt_core.tasks.checks import check_task, length_note
from apt_core.tasks.shots import take_shots
from apt_core.tasks.source import DataSource
from apt_core.trainer import AptTrainer, last_checkpoint

SHORTEST_TEXT = 4
"""sub-words that must fit"""


@dataclass(frozen=True)
class TrainJob:
    """Everything that decides what a run becomes."""

    task: str
    out: Path
    model: str
    apt: AptConfig
    training: TrainSettings
    data: DataSource = field(default_factory=DataSource)
    parent: str | None = None
    """name of the run that gave the lengths"""
    command: str = ""
    """the command line that does the same"""
    start: Start | None = None
    """what prefix, gates and head start from; None: random values"""

    @classmethod
    def from_run(cls, folder: Path) -> TrainJob:
        """The job that made ``folder``, but for what it started from."""
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
            data=DataSource(data_dir=info.data_dir, **info.data),
            parent=info.parent,
            command=info.command,
        )


def load_job_data(job: TrainJob) -> TaskData:
    """The task's data as the job sees it, few-shot selection done, checked.

    Raises:
        AptError: if the task, its files or their content are not usable.
    """
    task = load_task(job.task, job.data)
    check_task(task)
    if job.training.shots is not None:
        task = take_shots(task, job.training.shots, job.training.seed)
        check_task(task, few=True)
    return task


def train(job: TrainJob, *, resume: bool = False, say: Callable[[str], None] = print) -> RunInfo | None:
    """Trains, keeps the best checkpoint by the task's metric, evaluates it on validation, writes the run folder.

    Under ``torchrun`` or ``accelerate launch`` every process calls it; the main one writes the one run folder.

    Args:
        job: what to do.
        resume: go on with an interrupted run in ``job.out`` from its last checkpoint.
        say: receives one-line messages for the user.

    Returns:
        What ``run.json`` says; None in the processes that are not the main one.

    Raises:
        AptError: on bad input, before anything is written.
    """
    if not is_main_rank():
        say = _unsaid
    check_output(job.out, resume)
    check_device(job.training.device)
    job = replace(job, out=agreed(job.out, job.training.device))
    task = load_job_data(job)
    quiet_transformers()
    set_seed(job.training.seed)
    tokenizer = load_tokenizer(job.model)
    model = build_model(job, task, tokenizer, say)
    checkpoint = last_checkpoint(job.out / CHECKPOINT_FOLDER) if resume else None
    if resume and snapshot_path(job.out, 0).exists():
        model.load_trained_file(snapshot_path(job.out, 0))
    elif resume and checkpoint is None and read_run_info(job.out).init != "scratch":
        raise AptValueError(f"out: {job.out} has lost what it started from (snapshots/); start a new run.")
    family = family_of(task)
    max_length = fitting_length(job.training.max_length, tokenizer, model)
    notes = [*check_task(task, few=job.training.shots is not None), length_note(task, tokenizer, max_length)]
    train_set = family.encode(task, "train", tokenizer, max_length)
    validation_set = family.encode(task, "validation", tokenizer, max_length)

    def compute_metrics(result: EvalPrediction) -> dict[str, float]:
        predicted = family.predictions(task, "validation", result.predictions, result.label_ids)
        return family.score(task, "validation", predicted)

    recorder = GateRecorder(
        job.out,
        _run_info(job, task, family, resume),
        every=job.training.record_every,
        dtype=job.training.record_dtype,
        resume=resume,
        keep_open=True,
    )
    snapshots = SnapshotRecorder(job.out, job.training.snapshot_steps, keep_start=job.start is not None)
    trainer = AptTrainer(
        model=model,
        args=training_arguments(job.training, job.out / CHECKPOINT_FOLDER, len(train_set), family),
        train_dataset=train_set,
        eval_dataset=validation_set,
        data_collator=_without_length(family.collator(tokenizer)),
        compute_metrics=compute_metrics,
        preprocess_logits_for_metrics=family.reduce,
        callbacks=[recorder, snapshots, ProgressBar(family.metric_name)],
        learning_rates=learning_rates(job.training),
    )
    trainer.remove_callback(PrinterCallback)
    try:
        check_optimizer(trainer)
    except AptValueError:
        if not resume:  # the Trainer has made a folder for its checkpoints
            shutil.rmtree(job.out, ignore_errors=True)
        raise
    notes.append(late_snapshots_note(job.training, len(train_set)))
    if resume:
        say(f"resuming {job.out} " + (f"after step {checkpoint[1]}" if checkpoint else "from the start"))
    for note in filter(None, notes):
        say(f"note: {note}")
    say(_summary(job, task, model))
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint[0]) if checkpoint else None)
        if recorder.writer is None:
            return None
        seconds = recorder.seconds
        model.fold_projection()
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


def build_model(
    job: TrainJob, task: TaskData, tokenizer: PreTrainedTokenizerBase, say: Callable[[str], None]
) -> AptModel:
    """The frozen backbone with the task's head and prefixes, fresh or as ``job.start`` has them.

    What the checkpoint did not hold (the head; a pooler of a masked-language checkpoint) is trained and saved too.

    Raises:
        AptError: if the backbone cannot be loaded, does not suit the task, or prefixes cannot be put on it.
    """
    settings = job.training
    backbone = load_backbone(job.model, family_of(task).auto_class, dtype=settings.dtype, **_head_settings(task))
    if settings.backbone_dropout is not None:
        set_dropout(backbone.model, settings.backbone_dropout)
    config = job.apt
    if config.modules_to_save is None and backbone.fresh_modules:
        config = config.model_copy(update={"modules_to_save": backbone.fresh_modules})
    model = job.start.build(backbone.model, config, say) if job.start else get_apt_model(backbone.model, config)
    pad_as(model, tokenizer)
    if task.family == "causal-lm" and not model.is_decoder_only:
        raise bad_value(
            "model",
            job.model,
            "a causal language model, such as GPT-2 or Llama",
            "This one shows every position the words that come after it.",
        )
    if settings.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise bad_value("gradient_checkpointing", True, f"False, because {type(model).__name__} cannot do it")
    return model


def fitting_length(max_length: int, tokenizer: PreTrainedTokenizerBase, model: AptModel) -> int:
    """``max_length``, or the backbone's own limit where that is smaller; shifted positions leave less of it.

    Raises:
        AptValueError: if nothing is left for the text.
    """
    shift = model.apt_config.prefix_lengths[0] if model.apt_config.shift_positions else 0
    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    limit = min(tokenizer.model_max_length, positions) - shift
    if limit < SHORTEST_TEXT:
        raise bad_value(
            "num_virtual_tokens", shift, f"at most {limit + shift - SHORTEST_TEXT}, because they count as positions"
        )
    return min(max_length, limit)


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
    if device not in ("auto", "cpu", "cuda"):
        raise bad_value("device", device, "auto, cpu or cuda")
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


def _run_info(job: TrainJob, task: TaskData, family: Family, resume: bool) -> RunInfo:
    fields: dict[str, Any] = {
        "command": job.command,
        "parent": job.parent,
        "init": job.start.name if job.start else "scratch",
        "task": job.task,
        "data_dir": job.data.data_dir,
        "data": {name: value for name, value in job.data.given().items() if name != "data_dir"},
        "data_hash": task.fingerprint(),
        "split_sizes": {split: len(examples) for split, examples in task.splits.items()},
        "labels": list(task.labels),
        "metric_name": family.metric_name,
        "model": canonical_name(job.model),
        "training": job.training.model_dump(mode="json"),
        "num_processes": num_ranks(),
    }
    if resume:
        earlier = read_run_info(job.out)
        if earlier.data_hash and earlier.data_hash != fields["data_hash"]:
            raise AptValueError(
                f"data: its hash is {fields['data_hash'][:12]}, but the run began with {earlier.data_hash[:12]}; "
                "accepted: the same data. Start a new run with another --out."
            )
        kept = ("created_at", "seconds", "command", "init")
        fields |= {name: getattr(earlier, name) for name in kept}
    return RunInfo(**fields)


def _without_length(collate: Callable[[list[dict]], dict]) -> Callable[[list[dict]], dict]:
    """The column that sorts by length is for the sampler, not for the model."""

    def collate_batch(examples: list[dict]) -> dict:
        return collate([{name: value for name, value in row.items() if name != LENGTH_COLUMN} for row in examples])

    return collate_batch


def _unsaid(_: str) -> None:
    """For the processes of a training that do not speak."""
