"""A job description in, a finished run folder out."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import datasets
import torch
import transformers
from transformers import EvalPrediction, PreTrainedTokenizerBase, PrinterCallback, set_seed

from apt_core.arguments import (
    LENGTH_COLUMN,
    check_optimizer,
    count_steps,
    late_snapshots_note,
    learning_rates,
    training_arguments,
)
from apt_core.backbones import load_tokenizer
from apt_core.build import build_model
from apt_core.callback import GateRecorder
from apt_core.config import AptConfig, TrainSettings
from apt_core.disk_space import check_writable, disk_shortage, existing_part, remove_empty_folders, run_size
from apt_core.errors import AptError, AptValueError, bad_value
from apt_core.evaluate import evaluate
from apt_core.memory import AptMemoryError, is_out_of_memory, plain_if_memory_runs_out, ran_out
from apt_core.model import AptModel
from apt_core.preflight import check_memory, free_memory_of
from apt_core.processes import is_main_rank
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
from apt_core.run_record import run_info, summary
from apt_core.snapshots import SnapshotRecorder
from apt_core.start import Start
from apt_core.tasks import family_of, load_task
from apt_core.tasks.base import TaskData
from apt_core.tasks.checks import check_task, length_note
from apt_core.tasks.shots import take_shots
from apt_core.tasks.source import DataSource
from apt_core.trainer import AptTrainer, last_checkpoint, moved_here

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


@dataclass(frozen=True)
class _Prepared:
    """A training of which nothing is written yet."""

    job: TrainJob
    task: TaskData
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    model: AptModel
    recorder: GateRecorder
    trainer: AptTrainer
    progress: ProgressBar
    checkpoint: tuple[Path, int] | None
    """that it goes on from, and its step"""


def train(
    job: TrainJob,
    *,
    resume: bool = False,
    memory_check: bool = True,
    task: TaskData | None = None,
    say: Callable[[str], None] = print,
) -> RunInfo | None:
    """Trains, keeps the best checkpoint by the task's metric, evaluates it on validation, writes the run folder.

    Under ``torchrun`` or ``accelerate launch`` every process calls it; the main one writes the one run folder.

    Args:
        job: what to do.
        resume: go on with an interrupted run in ``job.out`` from its last checkpoint.
        memory_check: refuse a batch that would not fit into memory, see ``check_memory``.
        task: what ``load_job_data`` gives for this job; None: it is loaded.
        say: receives one-line messages for the user.

    Returns:
        What ``run.json`` says; None in the processes that are not the main one.

    Raises:
        AptMemoryError: if memory runs out; what is recorded until then stays, and can be resumed.
        AptError: on bad input, before anything is written.
    """
    if not is_main_rank():
        say = _unsaid
    prepared = _prepare(job, resume, memory_check, task, say)
    job, recorder, trainer = prepared.job, prepared.recorder, prepared.trainer
    try:
        trainer.train(resume_from_checkpoint=str(prepared.checkpoint[0]) if prepared.checkpoint else None)
        if recorder.writer is None:
            return None
        seconds = recorder.seconds
        prepared.model.fold_projection()
        prepared.model.save_pretrained(job.out / ADAPTER_FOLDER)
        result = evaluate(
            prepared.model,
            prepared.task,
            "validation",
            prepared.tokenizer,
            batch_size=2 * job.training.batch_size,
            max_length=prepared.max_length,
        )
        recorder.writer.write_predictions(result.predictions)
    except BaseException as problem:
        prepared.progress.on_train_end(trainer.args, trainer.state, trainer.control)  # what is said has its own line
        error = _with_advice(problem, job)
        if recorder.writer is not None:
            if isinstance(problem, KeyboardInterrupt):
                recorder.writer.interrupt()
                say(f"interrupted; python -m apt_core train --out {job.out} --resume goes on with it")
            else:
                with contextlib.suppress(OSError):  # a full disk: what ended the training says more
                    recorder.writer.fail(_in_one_line(error))
        if error is problem:
            raise
        raise error from problem
    best_step = trainer.state.best_global_step
    recorder.writer.finish(seconds=seconds, best_step=best_step, metrics={"validation": result.metrics})
    shutil.rmtree(job.out / CHECKPOINT_FOLDER, ignore_errors=True)
    return recorder.writer.info


@plain_if_memory_runs_out()
def _prepare(
    job: TrainJob, resume: bool, memory_check: bool, task: TaskData | None, say: Callable[[str], None]
) -> _Prepared:
    """Everything up to the first step; see ``train``."""
    check_output(job.out, resume)
    check_device(job.training.device)
    job = replace(job, out=agreed(job.out, job.training.device))
    task = load_job_data(job) if task is None else task
    quiet_transformers()
    set_seed(job.training.seed)
    tokenizer = load_tokenizer(job.model)
    model = build_model(job, task, tokenizer, say)
    checkpoint = last_checkpoint(job.out / CHECKPOINT_FOLDER) if resume else None
    if checkpoint is not None and is_main_rank():
        moved_here(checkpoint[0])
    if resume and snapshot_path(job.out, 0).exists():
        model.load_trained_file(snapshot_path(job.out, 0))
    elif resume and checkpoint is None and read_run_info(job.out).init != "scratch":
        raise AptValueError(f"out: {job.out} has lost what it started from (snapshots/); start a new run.")
    family = family_of(task)
    max_length = fitting_length(job.training.max_length, tokenizer, model)
    notes = [*check_task(task, few=job.training.shots is not None), length_note(task, tokenizer, max_length)]
    train_set = family.encode(task, "train", tokenizer, max_length)
    validation_set = family.encode(task, "validation", tokenizer, max_length)
    total_steps = job.training.epochs * count_steps(job.training, len(train_set))
    size = run_size(job.training, task, model.apt_config.prefix_lengths, total_steps, model.count_parameters())
    agreed(disk_shortage(job.out, size) if is_main_rank() else None, job.training.device)

    def compute_metrics(result: EvalPrediction) -> dict[str, float]:
        predicted = family.predictions(task, "validation", result.predictions, result.label_ids)
        return family.score(task, "validation", predicted)

    recorder = GateRecorder(
        job.out,
        run_info(job, task, family, resume),
        every=job.training.record_every,
        dtype=job.training.record_dtype,
        resume=resume,
        keep_open=True,
    )
    progress = ProgressBar(family.metric_name)
    snapshots = SnapshotRecorder(job.out, job.training.snapshot_steps, keep_start=job.start is not None)
    above = existing_part(job.out)
    try:
        trainer = AptTrainer(
            model=model,
            args=training_arguments(job.training, job.out / CHECKPOINT_FOLDER, len(train_set), family),
            train_dataset=train_set,
            eval_dataset=validation_set,
            data_collator=_without_length(family.collator(tokenizer)),
            compute_metrics=compute_metrics,
            preprocess_logits_for_metrics=family.reduce,
            callbacks=[recorder, snapshots, progress],
            learning_rates=learning_rates(job.training),
        )
        trainer.remove_callback(PrinterCallback)
        check_optimizer(trainer)
        if memory_check:
            check_memory(trainer, job.training)
    except BaseException:
        if not resume and is_main_rank():  # whose Trainer has made it, after this process looked what was there
            remove_empty_folders(job.out / CHECKPOINT_FOLDER, above)
        raise
    notes.append(late_snapshots_note(job.training, len(train_set)))
    if resume:
        say(f"resuming {job.out} " + (f"after step {checkpoint[1]}" if checkpoint else "from the start"))
    for note in filter(None, notes):
        say(f"note: {note}")
    say(summary(job, task, model))
    return _Prepared(job, task, tokenizer, max_length, model, recorder, trainer, progress, checkpoint)


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
    """Refuses an output folder that a new run would overwrite, that has nothing to resume or cannot be written to.

    Raises:
        AptError: naming the folder and what to do.
    """
    try:
        if resume:
            _check_resumable(out)
        else:
            check_new_folder(out)
    except OSError as problem:
        if isinstance(problem, AptError):
            raise
        accepted = f"a folder that can be looked into and written to ({problem.strerror})"
        raise bad_value("out", str(out), accepted) from problem
    check_writable(out)


def _check_resumable(out: Path) -> None:
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


def _with_advice(problem: BaseException, job: TrainJob) -> BaseException:
    """The problem, or for want of memory one that says what to type next; that memory is then let go of."""
    if not is_out_of_memory(problem):
        return problem
    free_memory_of(problem)
    checkpoint = last_checkpoint(job.out / CHECKPOINT_FOLDER)
    return ran_out(job.training, job.out, checkpoint[1] if checkpoint else None)


def _in_one_line(error: BaseException) -> str:
    kind = "" if isinstance(error, AptMemoryError) else f"{type(error).__name__}: "
    return f"{kind}{error}".partition("\n")[0]


def _without_length(collate: Callable[[list[dict]], dict]) -> Callable[[list[dict]], dict]:
    """The column that sorts by length is for the sampler, not for the model."""

    def collate_batch(examples: list[dict]) -> dict:
        return collate([{name: value for name, value in row.items() if name != LENGTH_COLUMN} for row in examples])

    return collate_batch


def _unsaid(_: str) -> None:
    """For the processes of a training that do not speak."""
