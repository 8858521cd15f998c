"""Before a training: a dry run on a few of the longest examples says whether its batches will fit into memory."""

from __future__ import annotations

import contextlib
import os
import random
import traceback
from collections.abc import Iterator
from typing import Any, TypeVar

import datasets
import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from apt_core.arguments import CHECKPOINTING
from apt_core.batch_fit import fit_batch
from apt_core.config import TrainSettings
from apt_core.memory import is_out_of_memory, too_large
from apt_core.memory_meter import Meter, meter_for
from apt_core.trainer import AptTrainer

_OPTIMIZER_COPIES = 2
"""of what is trained: Adam's moments; no other optimizer of the Trainer keeps more for small parts"""

T = TypeVar("T")


def check_memory(trainer: AptTrainer, settings: TrainSettings) -> None:
    """Refuses a batch that would not fit, before anything is trained. Of several processes all must call it.

    A forward and backward pass, and an evaluation of twice as many examples, run on one example, and once more to be
    measured; where less than twice the need seems left, on four examples too, and in doubt on a quarter of the batch.
    All are as long as the longest. Measured with MiniLM on one core: 0.4 of the time of a training step of 16
    examples; in doubt 0.9 of that of a step of 64. Estimates were within 5% of what whole batches took.

    Weights, gradients, buffers and the state of every random generator are afterwards what they were. What others
    take of the memory later, nobody knows: a training can run out of it all the same.

    Raises:
        AptValueError: with the batch that fits, in every process.
    """
    meter = meter_for(trainer.args.device)
    if meter is None:
        return
    ranks = max(1, trainer.args.world_size)
    batch_size = min(settings.batch_size, -(-len(trainer.train_dataset) // ranks))
    with _undisturbed(trainer.model, trainer.args.device):
        dry_run = _DryRun(trainer, settings, meter)
        dry_run.taken(1)  # loads libraries, and touches weights that were only mapped
        room = _share_of(min(_of_all(meter.room())), trainer.args.device) - _held(trainer.model, ranks)
        fit = fit_batch(dry_run.taken, batch_size, room)
    fit, room = min(_of_all((fit, room)), key=lambda one: one[0].largest)
    if fit.largest < batch_size:
        raise too_large(settings, fit.largest, fit.need, room)


class _DryRun:
    """Passes over as many copies of the longest example as asked for, as the Trainer would run them."""

    def __init__(self, trainer: AptTrainer, settings: TrainSettings, meter: Meter) -> None:
        self._trainer = trainer
        self._meter = meter
        self._train = _longest(trainer.train_dataset)
        self._evaluated = _longest(trainer.eval_dataset)
        if settings.gradient_checkpointing:
            model = trainer.model
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable(dict(CHECKPOINTING))  # as the Trainer does again

    def taken(self, examples: int) -> float | None:
        """Bytes that both passes take at their peak; None if they ran out of memory."""
        try:
            return self._meter.peak(lambda: self._run(examples))
        except Exception as problem:
            if not is_out_of_memory(problem):
                raise
            free_memory_of(problem)
            return None
        finally:
            self._trainer.model.zero_grad()

    def _run(self, examples: int) -> None:
        trainer, model = self._trainer, self._trainer.model
        model.train()
        inputs = trainer._prepare_inputs(trainer.data_collator([dict(self._train)] * examples))
        with trainer.accelerator.autocast():
            loss = trainer.compute_loss(model, inputs)
        loss.backward()
        model.zero_grad()
        del loss, inputs
        model.eval()
        evaluated = examples * trainer.args.per_device_eval_batch_size // trainer.args.per_device_train_batch_size
        rows = [dict(self._evaluated)] * min(evaluated, len(trainer.eval_dataset))
        with trainer.accelerator.autocast():
            _, logits, labels = trainer.prediction_step(model, trainer.data_collator(rows), prediction_loss_only=False)
        trainer.preprocess_logits_for_metrics(logits, labels)


def free_memory_of(problem: BaseException) -> None:
    """Lets go of what the calls held that ``problem`` ended, and of what CUDA's allocator keeps."""
    while problem is not None:
        traceback.clear_frames(problem.__traceback__)
        problem = problem.__context__
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _longest(dataset: datasets.Dataset) -> dict[str, Any]:
    """The longest example, with the longest labels of all where examples are taught a text of another length."""
    row = dict(dataset[int(np.argmax(dataset["length"]))])
    if isinstance(row["labels"], list):
        row["labels"] = dataset[int(np.argmax([len(labels) for labels in dataset["labels"]]))]["labels"]
    return row


@contextlib.contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Puts back what passes through ``model`` change: random generators, buffers, training or evaluation mode."""
    was_training = model.training
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        model.train(was_training)
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):  # most are constants, some of them expanded
                    buffer.copy_(before)


def _held(model: nn.Module, ranks: int) -> int:
    """Bytes that come on top of any pass: the optimizer's state, and gradients on their way between processes."""
    trained = sum(part.numel() * part.element_size() for part in model.parameters() if part.requires_grad)
    return trained * (_OPTIMIZER_COPIES + (ranks > 1))


def _share_of(room: int, device: torch.device) -> int:
    """What one of the processes on this machine may take; of GPUs each has its own."""
    return room // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if device.type == "cpu" else room


def _of_all(value: T) -> list[T]:
    """The value of every process that trains along."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [value]
    values: list[T] = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
