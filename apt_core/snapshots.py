"""What is trained, kept as it was at early steps, so that a retraining can rewind to it (Ma et al., 2022, XPrompt).

Step 0 is kept only for a run that did not start from random values: with it, such a run can be resumed by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from apt_core.files import write_atomic
from apt_core.model import AptModel
from apt_core.run_format import snapshot_path

EARLY = 0.1
"""fraction of all steps after which the one snapshot is taken where no steps are named"""


class SnapshotRecorder(TrainerCallback):
    """Writes ``snapshots/step-<step>.safetensors`` into a run folder.

    Args:
        folder: the run folder.
        steps: optimizer steps after which to keep what is trained; None: one, after a tenth of all steps.
        keep_start: keep step 0 too.
    """

    def __init__(self, folder: Path, steps: Sequence[int] | None, *, keep_start: bool) -> None:
        self._folder = folder
        self._steps = steps
        self._keep_start = keep_start

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        if self._steps is None:
            self._steps = (max(1, round(EARLY * state.max_steps)),)
        if self._keep_start and state.global_step == 0 and state.is_world_process_zero:
            self._keep(model, 0)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        if state.global_step in (self._steps or ()) and state.is_world_process_zero:
            self._keep(model, state.global_step)

    def _keep(self, model: AptModel, step: int) -> None:
        path = snapshot_path(self._folder, step)
        path.parent.mkdir(exist_ok=True)
        tensors = {name: value.detach().cpu().contiguous() for name, value in model.trained_state_dict().items()}
        write_atomic(path, save(tensors))
