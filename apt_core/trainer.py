"""transformers' Trainer with checkpoints of what is trained, and learning rates and batches that suit prefixes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from transformers import EvalPrediction, Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, EvalLoopOutput

from apt_core.files import write_atomic
from apt_core.gate_tally import IGNORED_LABEL
from apt_core.model import part_of

STATE_FILE = "trainer_state.json"
"""of a checkpoint"""


class AptTrainer(Trainer):
    """A Trainer for models from ``get_apt_model``: resuming and ``load_best_model_at_end`` read adapters.

    Args:
        arguments: as for a Trainer.
        learning_rates: peak learning rates of parts of the model (prefix, token_gate, layer_scale, head) that differ
            from ``args.learning_rate``.
        named: as for a Trainer.
    """

    def __init__(self, *arguments: Any, learning_rates: Mapping[str, float] | None = None, **named: Any) -> None:
        self._learning_rates = dict(learning_rates or {})
        super().__init__(*arguments, **named)

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """The optimizer that ``args.optim`` names, with a parameter group for every learning rate."""
        if self.optimizer is None and self._learning_rates:
            optimizer = super().create_optimizer(model)
            parts = {parameter: part_of(name, parameter) for name, parameter in self.model.named_parameters()}
            optimizer.param_groups[:] = [
                {**group, "params": members, "lr": rate}
                for group in optimizer.param_groups
                for rate, members in self._by_rate(group, parts).items()
            ]
        return super().create_optimizer(model)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The mean over all labelled positions of an optimizer step, however it is split into passes and processes.

        A model's own loss is the mean over one pass; many models ignore the number of items a Trainer hands them, and
        then accumulated gradients would be too large.
        """
        if self.compute_loss_func is not None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs.get("labels")
        loss, outputs = super().compute_loss(model, dict(inputs), return_outputs=True)
        if num_items_in_batch is not None and labels is not None:
            labels = labels[..., 1:] if getattr(self, "_loss_shifts_labels", False) else labels
            loss = loss * labels.ne(IGNORED_LABEL).sum() / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _by_rate(self, group: dict[str, Any], parts: dict[nn.Parameter, str]) -> dict[float, list[nn.Parameter]]:
        by_rate: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            by_rate.setdefault(self._learning_rates.get(parts[parameter], group["lr"]), []).append(parameter)
        return by_rate

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """Grouped by length, the order depends on seed and epoch only: however many processes share the batches."""
        sampler = super()._get_train_sampler(train_dataset)
        if not isinstance(sampler, LengthGroupedSampler):
            return sampler
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return EpochSeededSampler(sampler.batch_size * self.args.world_size, lengths=sampler.lengths, seed=seed)

    def evaluation_loop(self, dataloader: DataLoader, *arguments: Any, **named: Any) -> EvalLoopOutput:
        """As of a Trainer: metrics and predictions are of the examples in their own order, however they are batched."""
        order = self._longest_first(dataloader.dataset)
        if order is None:
            return super().evaluation_loop(dataloader, *arguments, **named)
        places, compute_metrics = np.argsort(order), self.compute_metrics

        def metrics_in_order(result: EvalPrediction) -> dict[str, float]:
            parts = (result.predictions, result.label_ids, result.inputs, result.losses)
            return compute_metrics(EvalPrediction(*(_rows_at(part, places) for part in parts)))

        self.compute_metrics = compute_metrics and metrics_in_order
        try:
            output = super().evaluation_loop(dataloader, *arguments, **named)
        finally:
            self.compute_metrics = compute_metrics
        return output._replace(
            predictions=_rows_at(output.predictions, places), label_ids=_rows_at(output.label_ids, places)
        )

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | list[int] | None:
        """The longest examples first, so that little is padded: ``evaluation_loop`` undoes the order."""
        if self.args.world_size > 1:
            return None
        return self._longest_first(eval_dataset) or SequentialSampler(eval_dataset)

    def _longest_first(self, dataset: Dataset) -> list[int] | None:
        """Indices of the examples by length; None where lengths are not known or the order could not be undone."""
        arguments = self.args
        if (
            arguments.world_size > 1
            or arguments.train_sampling_strategy != "group_by_length"
            or arguments.batch_eval_metrics
            or not arguments.eval_do_concat_batches
            or arguments.length_column_name not in getattr(dataset, "column_names", ())
        ):
            return None
        return np.argsort(dataset[arguments.length_column_name], kind="stable")[::-1].tolist()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        (model or self.model).load_trained(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self.model.load_trained(self.state.best_model_checkpoint)


class EpochSeededSampler(LengthGroupedSampler):
    """Batches of similar length in an order drawn from ``seed`` and the epoch, not from the state of dropout.

    Args:
        batch_size: examples of one optimizer step, over all processes.
        lengths: sub-words of every example.
        seed: of the order.
    """

    def __init__(self, batch_size: int, *, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self._seed, self._epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of every epoch, counted from 0."""
        self._epoch = epoch

    def __iter__(self) -> Any:
        self.generator.manual_seed(self._seed + self._epoch)
        return super().__iter__()


def _rows_at(rows: Any, places: np.ndarray) -> Any:
    """Rows of an array, or of every array of a tuple, in another order."""
    if rows is None:
        return None
    return tuple(_rows_at(part, places) for part in rows) if isinstance(rows, tuple) else rows[places]


def moved_here(checkpoint: Path) -> None:
    """Lets a checkpoint name the best one where it is now: a Trainer forgets one that it does not find.

    Args:
        checkpoint: as ``last_checkpoint`` gives it; the best one is beside it, or it is the best itself.
    """
    file = checkpoint / STATE_FILE
    state = json.loads(file.read_text())
    best = state.get("best_model_checkpoint")
    if best and not Path(best).is_dir() and (checkpoint.parent / Path(best).name).is_dir():
        state["best_model_checkpoint"] = str(checkpoint.parent / Path(best).name)
        write_atomic(file, (json.dumps(state, indent=2, sort_keys=True) + "\n").encode())


def last_checkpoint(folder: Path) -> tuple[Path, int] | None:
    """The newest checkpoint that was written to its end, and its step; None if there is none."""
    found = []
    for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        try:  # the trainer's state is what a checkpoint is finished with
            state = json.loads((path / STATE_FILE).read_text())
            found.append((int(state["global_step"]), path))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    if not found:
        return None
    step, path = max(found)
    return path, step
