"""A progress bar on stderr for a training run, so that stdout is free for results."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class ProgressBar(TrainerCallback):
    """Shows steps done, time left, the last loss and the best value of the task's metric.

    Args:
        metric_name: as in the evaluation's log, without ``eval_``.
    """

    def __init__(self, metric_name: str) -> None:
        self._metric = metric_name
        self._shown: dict[str, str] = {}
        self._bar: tqdm | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc="train", unit="step", file=sys.stderr
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if self._bar is None:
            return
        for name, shown in (("loss", "loss"), (f"eval_{self._metric}", self._metric)):
            if name in (logs or {}):
                self._shown[shown] = f"{float(logs[name]):.3f}"
        self._bar.set_postfix(self._shown)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._bar is not None:
            self._bar.close()
