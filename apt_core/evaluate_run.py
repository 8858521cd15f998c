"""Loads a finished run, and measures it on one split."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from apt_core.backbones import load_tokenizer, pad_as
from apt_core.config import TrainSettings
from apt_core.errors import AptValueError, bad_value
from apt_core.evaluate import evaluate
from apt_core.example_gates_format import MAX_BYTES, examples_that_fit, write_example_gates
from apt_core.model import AptModel
from apt_core.run_format import (
    ADAPTER_FOLDER,
    PREDICTIONS_FILE,
    RunInfo,
    read_run_info,
    update_finished_run,
    write_predictions,
)
from apt_core.tasks.base import TaskData
from apt_core.tasks.source import DataSource
from apt_core.train import TrainJob, check_device, fitting_length, load_job_data, quiet_transformers


def load_run(folder: Path) -> AptModel:
    """The backbone with the adapter of a finished run.

    Raises:
        AptError: if it is no run, not finished, or its adapter is damaged.
    """
    info = _finished(folder)
    quiet_transformers()
    dtype = TrainSettings(**info.training).dtype if info.training else "auto"
    model = AptModel.from_pretrained(folder / ADAPTER_FOLDER, dtype=dtype)
    if model.config.pad_token_id is None:
        pad_as(model, load_tokenizer(info.model))
    return model


class LoadedRun(NamedTuple):
    """A finished run with all that its model needs to be run on the task's data."""

    info: RunInfo
    job: TrainJob
    model: AptModel
    """on its device"""
    task: TaskData
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    """sub-words per text"""


def load_run_with_data(
    folder: Path, split: str, *, data: DataSource | None = None, device: str | None = None
) -> LoadedRun:
    """Loads a finished run and its data; says on stderr if that is not what the run was trained on.

    Args:
        folder: folder of a finished run.
        split: a split that the data must have.
        data: where the data is now, if not where the training found it.
        device: auto, cpu or cuda; None: as in training.

    Raises:
        AptError: if the run is not finished, the split does not exist or the data is not to be found.
    """
    info = _finished(folder)
    job = TrainJob.from_run(folder)
    if data is not None:
        job = replace(job, data=data)
    device = device or job.training.device
    check_device(device)
    task = load_job_data(job)
    if split not in task.splits:
        raise bad_value("split", split, ", ".join(task.splits))
    if task.fingerprint() != info.data_hash:
        print("warning: the data is not what this run was trained on", file=sys.stderr)
    if info.labels and list(task.labels) != info.labels:
        raise bad_value(
            "data", ", ".join(task.labels), f"the classes of the run: {', '.join(info.labels)}",
            "They are taken from the training file: name the one that the run was trained on.",
        )  # fmt: skip
    model = load_run(folder)
    tokenizer = load_tokenizer(job.model)
    model.to("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    return LoadedRun(info, job, model, task, tokenizer, fitting_length(job.training.max_length, tokenizer, model))


def evaluate_run(
    folder: Path,
    split: str,
    *,
    data: DataSource | None = None,
    device: str | None = None,
    token_gates: bool = False,
) -> dict[str, float]:
    """Metrics of the run's best checkpoint on ``split``, also noted in ``run.json``.

    A run without ``predictions.jsonl`` gets it when it is evaluated on validation.

    Args:
        folder: folder of a finished run.
        split: a split of the run's task.
        data: where the data is now, if not where the training found it.
        device: auto, cpu or cuda; None: as in training.
        token_gates: whether the token gates of each example are written too, see ``example_gates_format``.

    Raises:
        AptError: if the run is not finished, the split does not exist or the data is not to be found.
    """
    run = load_run_with_data(folder, split, data=data, device=device)
    fitting = examples_that_fit(run.info.prefix_lengths) if token_gates else 0
    result = evaluate(
        run.model,
        run.task,
        split,
        run.tokenizer,
        batch_size=2 * run.job.training.batch_size,
        max_length=run.max_length,
        keep_token_gates=fitting,
    )
    if result.token_gates is not None:
        ids = [str(row["id"]) for row in result.predictions[:fitting]]
        write_example_gates(folder, split, ids, result.token_gates)
        if len(ids) < len(result.predictions):
            limit = f"{MAX_BYTES // 2**20} MiB"
            print(f"note: token gates of the first {len(ids)} examples only; {limit} hold no more", file=sys.stderr)
    if split == "validation" and not (folder / PREDICTIONS_FILE).exists():
        write_predictions(folder, result.predictions)
    update_finished_run(folder, metrics={**run.info.metrics, split: result.metrics})
    return result.metrics


def _finished(folder: Path) -> RunInfo:
    info = read_run_info(folder)
    if info.status != "finished":
        raise AptValueError(f"run: got {str(folder)!r}, which is {info.status}; accepted: a finished run.")
    return info
