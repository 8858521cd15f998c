"""Records the gates of every optimizer step into a run folder, from a Trainer or a loop of one's own."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from apt_core.errors import AptValueError
from apt_core.gate_tail import check_recording
from apt_core.gate_tally import GateTally
from apt_core.model import AptModel
from apt_core.processes import is_main_rank
from apt_core.run_format import RunInfo
from apt_core.run_writer import RunWriter

_WATCHING: WeakKeyDictionary[AptModel, GateTally] = WeakKeyDictionary()
"""what the last recorder of a model watches it with"""


class GateRecorder(TrainerCallback):
    """Writes a run folder while a model from ``get_apt_model`` trains.

    With a Trainer it is a callback. In a loop of one's own: ``start(model)``, then ``record(step)`` after each
    backward pass and before ``optimizer.step()``, then ``close()``.

    Args:
        folder: the run folder; one that holds a finished run is refused when training starts.
        info: what to say in ``run.json`` beside what can be read off the model (task, data, command, ...).
        every: gates are recorded at steps ``every``, 2 * ``every``, ... and at the last step (``total_steps`` of
            ``run.json``, which a Trainer knows) if training gets there. A row is of its step alone, not of the steps
            between.
        dtype: how token gates are stored, ``float32`` or ``float16`` (half the size, three digits). A gate within
            (0, 1) stays within (0, 1); what is read back is float32.
        resume: True goes on with the run in ``folder`` from the step at which training starts.
        keep_open: True leaves finishing the run to the caller, through ``writer``.

    Raises:
        AptValueError: on ``every`` or ``dtype`` that cannot be used.
        AptFileExistsError: when training starts, if the folder already holds a run that is not being resumed.
    """

    def __init__(
        self,
        folder: str | Path,
        info: RunInfo | None = None,
        *,
        every: int = 1,
        dtype: str = "float32",
        resume: bool = False,
        keep_open: bool = False,
    ) -> None:
        check_recording(every, dtype)
        self.folder = Path(folder)
        self.writer: RunWriter | None = None
        self._info = info or RunInfo()
        self._every = every
        self._dtype = dtype
        self._total_steps = 0
        self._resume = resume
        self._keep_open = keep_open
        self._tally: GateTally | None = None

    def start(self, model: AptModel, *, resume_step: int | None = None, **fields: Any) -> None:
        """Opens the run folder and begins to watch the gates; of several processes only the main one writes.

        Args:
            model: from ``get_apt_model``.
            resume_step: the step of the checkpoint that training goes on from; None for a new run.
            fields: further fields of ``RunInfo``.
        """
        if not isinstance(model, AptModel):
            raise AptValueError(f"model: got {type(model).__name__}; accepted: a model from get_apt_model.")
        lengths = model.apt_config.lengths(len(model.prefixes))
        told = {name: value for name, value in self._info if name in self._info.model_fields_set}
        seen = {
            "model": model.config.name_or_path,
            "num_layers": len(lengths),
            "prefix_lengths": list(lengths),
            "apt_config": model.apt_config.model_dump(mode="json"),
            "num_parameters": model.count_parameters(),
            **backbone_fields(model),
            "device": model.device.type,
            "versions": versions(),
        }
        self._before = self._info.seconds
        self._started = time.monotonic()
        recorded = {"record_every": self._every, "record_dtype": self._dtype}
        full = RunInfo(**{**seen, **fields, **told, **recorded})
        self._total_steps = full.total_steps
        if is_main_rank():
            self.writer = RunWriter(self.folder, full, resume_step)
        earlier = _WATCHING.pop(model, None)
        if earlier is not None:  # of a training that ended by an exception
            earlier.close()
        self._tally = _WATCHING[model] = GateTally(model, training=True)

    def record(self, step: int) -> None:
        """Writes the gates that the forward passes since the last call had; ``step`` counts from 1.

        Call it at every step, also where only every so many are recorded. Where several processes train together all
        must call it: the gates are those of all their batches.

        Raises:
            AptWriteError: if the run folder does not take what earlier steps left to write.
        """
        if step % self._every and step != self._total_steps:
            self._tally.discard()  # the next row is of its own step only
            if self.writer is not None:
                self.writer.info.step = step
            return
        averages = self._tally.average()
        if self.writer is not None:
            self.writer.append_gates(step, *averages)

    def close(self, error: str | None = None) -> None:
        """Ends the run: finished, or failed if ``error`` says why."""
        self._tally.close()
        if self._keep_open or self.writer is None:
            return
        if error is None:
            self.writer.finish(seconds=self.seconds)
        else:
            self.writer.fail(error)

    @property
    def seconds(self) -> float:
        """Spent in this run so far, interruptions not counted."""
        return round(self._before + time.monotonic() - self._started, 3)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        resume_step = state.global_step if self._resume or state.global_step else None
        self.start(model, resume_step=resume_step, seed=args.seed, total_steps=state.max_steps)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.record(state.global_step + 1)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.writer is not None and control.should_save:
            self.writer.flush_gates()  # before the checkpoint: a resumed run must not lack steps before it

    on_epoch_end = on_step_end

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if self.writer is not None and logs and "train_runtime" not in logs:
            row = {"step": state.global_step, "epoch": logs.get("epoch"), "seconds": self.seconds}
            self.writer.append_metrics({**row, **{name: value for name, value in logs.items() if name != "epoch"}})
            self.writer.info.seconds = self.seconds

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.close()


def backbone_fields(model: AptModel) -> dict[str, Any]:
    """Fields of ``RunInfo`` from which costs of virtual tokens are counted."""
    frozen = (parameter for parameter in model.parameters() if not parameter.requires_grad)
    dtype = next((parameter.dtype for parameter in frozen if parameter.is_floating_point()), model.dtype)
    return {
        "layer_shapes": [list(shape) for shape in model._apt_shapes],
        "layer_kinds": list(model._apt_kinds),
        "backbone_dtype": str(dtype).removeprefix("torch."),
    }


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    packages = {name: version(name) for name in ("torch", "transformers", "safetensors")}
    return {"python": platform.python_version(), **packages}
