"""What a training starts from, if not from random values: another run's adapter, or one of PEFT's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from transformers import PreTrainedModel

from apt_core.config import AptConfig
from apt_core.errors import AptFileNotFoundError, AptValueError, bad_value
from apt_core.gate_log import GateLog
from apt_core.model import CONFIG_FILE, WEIGHTS_FILE, AptModel, get_apt_model
from apt_core.run_format import ADAPTER_FOLDER, GATES_FOLDER, RunInfo, read_run_info, snapshot_path, snapshot_steps

INITS = "scratch, warm or rewind:STEP"


class Start(Protocol):
    """Builds a model with prefixes that already hold something."""

    name: str
    """as in ``run.json``: warm, rewind:STEP or adapter"""

    def build(self, backbone: PreTrainedModel, config: AptConfig, say: Callable[[str], None]) -> AptModel:
        """Puts prefixes of ``config.prefix_lengths`` on ``backbone``, in place."""


@dataclass(frozen=True)
class PrunedStart:
    """A run's prefix, cut to the tokens with the largest gates.

    The head starts from where it was at the same step.
    """

    name: str
    weights: Path
    """safetensors file of what was trained"""
    apt: AptConfig
    """of ``weights``"""
    token_gate: np.ndarray
    """mean gates [L, P] that say which tokens are kept"""

    def build(self, backbone: PreTrainedModel, config: AptConfig, say: Callable[[str], None]) -> AptModel:
        model = get_apt_model(backbone, self.apt)
        model.load_trained_file(self.weights)
        model.prune(config.prefix_lengths, self.token_gate)
        return model


@dataclass(frozen=True)
class AdapterStart:
    """An adapter folder: what ``save_pretrained`` of this project or of PEFT's prefix tuning wrote."""

    folder: Path
    name: str = "adapter"

    def build(self, backbone: PreTrainedModel, config: AptConfig, say: Callable[[str], None]) -> AptModel:
        if adapter_settings(self.folder).get("peft_type") != "APT":
            from apt_core.peft_adapter import import_peft  # loads PEFT, which nothing else needs

            return import_peft(self.folder, backbone, config, say=say)
        model = get_apt_model(backbone, config)
        for name in model.load_prefix(self.folder / WEIGHTS_FILE):
            say(f"note: not taken from {self.folder}: {name}, which does not fit this task's head; it starts anew")
        return model


def adapter_settings(folder: Path) -> dict[str, Any]:
    """The content of an adapter's ``adapter_config.json``.

    Raises:
        AptFileNotFoundError: if there is none.
        AptValueError: if it is damaged.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise AptFileNotFoundError(
            f"init-adapter: got {str(folder)!r}, which has no {CONFIG_FILE}; accepted: a folder that save_pretrained "
            "of this project or of PEFT's prefix tuning wrote."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise AptValueError(f"{path}: damaged, not JSON ({problem}).") from problem
    if not isinstance(content, dict):
        raise AptValueError(f"{path}: damaged, holds a {type(content).__name__} instead of an object.")
    return content


def adapter_config(folder: Path, asked: AptConfig, given: set[str]) -> AptConfig:
    """The settings of a training that starts from the adapter in ``folder``.

    Lengths are the adapter's; one of our own adapters also decides on gates and everything else.

    Args:
        folder: the adapter.
        asked: the settings otherwise.
        given: names of the fields of ``asked`` that the user gave.

    Raises:
        AptError: if it is no such adapter, or a given field contradicts it.
    """
    settings = adapter_settings(folder)
    try:
        if settings.get("peft_type") == "APT":
            config = AptConfig(**{**settings["apt_config"], "modules_to_save": None})  # the head is the new task's
        else:
            exact = {} if "gate_init_std" in given else {"gate_init_std": 0.0}  # the outputs at the start are PEFT's
            config = asked.model_copy(update={"num_virtual_tokens": int(settings["num_virtual_tokens"]), **exact})
    except (KeyError, TypeError, ValueError) as problem:
        if isinstance(problem, AptValueError):
            raise
        raise bad_value(
            f"{folder / CONFIG_FILE}: peft_type", settings.get("peft_type"), "APT, or PREFIX_TUNING"
        ) from problem
    for field in sorted(given):
        typed, found = getattr(asked, field), getattr(config, field)
        if typed != found:
            raise bad_value(field, typed, f"{found!r}, as in the adapter {folder}", "Leave the flag out.")
    return config


def pruned_start(parent: Path, init: str, prefix_lengths: tuple[int, ...]) -> PrunedStart | None:
    """What a retraining of ``parent`` starts from.

    Args:
        parent: run folder.
        init: ``scratch``; ``warm``: from the parent's last values; ``rewind:STEP``: from its values at an early step;
            ``rewind``: at the earliest step it kept.
        prefix_lengths: of the new run, one per layer.

    Returns:
        None for ``scratch``.

    Raises:
        AptValueError: if ``init`` is none of these, the step was not kept, or a layer would grow.
    """
    kind, _, step_text = init.partition(":")
    if init == "scratch":
        return None
    if kind not in ("warm", "rewind") or (kind == "warm" and step_text):
        raise bad_value("init", init, INITS)
    info = read_run_info(parent)
    for layer, (new, old) in enumerate(zip(prefix_lengths, info.prefix_lengths, strict=True), start=1):
        if new > old:
            raise bad_value(
                "prefix_lengths",
                ",".join(map(str, prefix_lengths)),
                f"at most {old} virtual tokens in layer {layer} with --init {kind}, as {parent} has",
                "Use --init scratch to have more.",
            )
    weights, apt = _adapter(parent) if kind == "warm" else _snapshot(parent, info, init, step_text)
    log = GateLog(parent / GATES_FOLDER)
    if not len(log):
        raise AptValueError(f"init: got {init!r}, but {parent} has no recorded gates to choose tokens by.")
    step = info.best_step if info.best_step in log.steps else int(log.steps[-1])
    name = "warm" if kind == "warm" else f"rewind:{int(weights.stem.rpartition('-')[2])}"
    return PrunedStart(name, weights, apt, log.at(step).token_gate)


def _adapter(parent: Path) -> tuple[Path, AptConfig]:
    folder = parent / ADAPTER_FOLDER
    if not (folder / WEIGHTS_FILE).is_file():
        raise AptFileNotFoundError(f"init: got 'warm', but {folder} holds no adapter; accepted: a finished run.")
    return folder / WEIGHTS_FILE, AptConfig(**adapter_settings(folder)["apt_config"])


def _snapshot(parent: Path, info: RunInfo, init: str, step_text: str) -> tuple[Path, AptConfig]:
    kept = [step for step in snapshot_steps(parent) if step > 0]
    if not kept:
        raise bad_value(
            "init", init, "scratch or warm", f"{parent} kept no early step; train with --snapshot-steps to have some."
        )
    step = int(step_text) if step_text.isdecimal() else kept[0] if not step_text and init == "rewind" else None
    if step not in kept:
        raise bad_value("init", init, " or ".join(f"rewind:{step}" for step in kept) + f", the steps {parent} kept")
    return snapshot_path(parent, step), AptConfig(**info.apt_config)
