"""transformers' Trainer with checkpoints that hold what is trained, not the frozen backbone."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


class AptTrainer(Trainer):
    """A Trainer for models from ``get_apt_model``: resuming and ``load_best_model_at_end`` read adapters."""

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        """Examples in their own order: grouped by length, predictions would not line up with the split."""
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        (model or self.model).load_trained(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self.model.load_trained(self.state.best_model_checkpoint)


def last_checkpoint(folder: Path) -> tuple[Path, int] | None:
    """The newest checkpoint that was written to its end, and its step; None if there is none."""
    found = []
    for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        try:  # the trainer's state is what a checkpoint is finished with
            state = json.loads((path / "trainer_state.json").read_text())
            found.append((int(state["global_step"]), path))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    if not found:
        return None
    step, path = max(found)
    return path, step
