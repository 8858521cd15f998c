"""From our training settings to transformers' Trainer: its arguments, learning rates by part, the optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from apt_core.config import TrainSettings
from apt_core.errors import AptValueError, bad_value
from apt_core.processes import num_ranks
from apt_core.tasks.base import Family
from apt_core.trainer import AptTrainer

LENGTH_COLUMN = "length"
LOG_LINES_PER_EPOCH = 10
CHECKPOINTING = {"use_reentrant": False}
"""how activations are computed twice, see ``torch.utils.checkpoint``"""


def training_arguments(settings: TrainSettings, folder: Path, num_examples: int, family: Family) -> TrainingArguments:
    """The Trainer's arguments.

    Args:
        settings: ours.
        folder: for checkpoints.
        num_examples: in the training split.
        family: gives the metric that chooses the checkpoint.

    Raises:
        AptValueError: if this machine or installation cannot do what is asked for, with the reason.
    """
    if settings.optim not in set(OptimizerNames):
        raise bad_value("optim", settings.optim, ", ".join(sorted(OptimizerNames)))
    on_gpu = torch.cuda.is_available() and settings.device != "cpu"
    if settings.bf16 and on_gpu and not torch.cuda.is_bf16_supported():
        raise bad_value("bf16", True, "False, because this GPU has no bfloat16")
    steps_per_epoch = count_steps(settings, num_examples)
    try:
        arguments = TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=2 * settings.batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            optim=settings.optim,
            warmup_steps=settings.warmup_ratio,
            weight_decay=settings.weight_decay,
            seed=settings.seed,
            use_cpu=settings.device == "cpu" or (num_ranks() > 1 and not on_gpu),  # said, so that they meet over gloo
            bf16=settings.bf16,
            **(checkpointing() if settings.gradient_checkpointing else {}),
            torch_compile=settings.torch_compile,
            ddp_find_unused_parameters=False if num_ranks() > 1 else None,
            train_sampling_strategy="group_by_length",
            length_column_name=LENGTH_COLUMN,
            remove_unused_columns=False,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model=family.metric_name,
            greater_is_better=family.greater_is_better,
            logging_steps=max(1, steps_per_epoch // LOG_LINES_PER_EPOCH),
            dataloader_pin_memory=on_gpu,
            disable_tqdm=True,
            report_to="none",
        )
    except (ValueError, ImportError) as problem:
        raise AptValueError("training: " + " ".join(str(problem).split())) from problem
    if arguments.n_gpu > 1:  # the Trainer would share every batch out over copies of the model, in threads
        arguments._n_gpu = 1
    return arguments


def count_steps(settings: TrainSettings, num_examples: int) -> int:
    """Optimizer steps in an epoch."""
    return -(-num_examples // (settings.batch_size * settings.gradient_accumulation_steps * num_ranks()))


def late_snapshots_note(settings: TrainSettings, num_examples: int) -> str | None:
    """Which steps that were to be kept will never come; None if all will."""
    total = settings.epochs * count_steps(settings, num_examples)
    late = [str(step) for step in settings.snapshot_steps or () if step > total]
    return f"snapshot-steps: {', '.join(late)} will not be kept, training has {total} steps" if late else None


def checkpointing() -> dict[str, Any]:
    """The Trainer's arguments for gradient checkpointing, by the name that the installed transformers has for it."""
    known = TrainingArguments.__dataclass_fields__
    name = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": dict(CHECKPOINTING)}


def learning_rates(settings: TrainSettings) -> dict[str, float]:
    """Peak learning rate of each part of the model that has one of its own."""
    rates = {
        "prefix": settings.prefix_learning_rate,
        "token_gate": settings.gate_learning_rate,
        "layer_scale": settings.gate_learning_rate,
        "head": settings.head_learning_rate,
    }
    return {part: rate for part, rate in rates.items() if rate is not None}


def check_optimizer(trainer: AptTrainer) -> None:
    """Makes the optimizer now: one whose package is missing must not fail once the run has begun.

    Raises:
        AptValueError: with the reason.
    """
    try:
        trainer.create_optimizer()
    except (ValueError, ImportError, RuntimeError) as problem:
        reason = " ".join(str(problem).split())
        raise bad_value("optim", trainer.args.optim.value, f"one that this installation has ({reason})") from problem
