"""Reads the folder of a PEFT ``PREFIX_TUNING`` adapter: its settings, its table of prefixes, its head.

Axes: L layers, H key/value heads, P virtual tokens, D head size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from peft import PeftConfig, PrefixTuningConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from apt_core.errors import AptFileNotFoundError, AptValueError, bad_value

SETTINGS_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
TABLE = "prompt_embeddings"
HEAD_PREFIX = "base_model."
_LABEL_LAYERS = {"classifier", "score", "out_proj"}


class PeftAdapter(NamedTuple):
    """What a PEFT folder holds."""

    folder: Path
    settings: PrefixTuningConfig
    table: Tensor  # [P, 2 L H D]
    modules: dict[str, dict[str, Tensor]]
    """trained modules of the backbone, mostly its head: name -> parameter name -> values"""


def read_peft(folder: Path) -> PeftAdapter:
    """Reads what PEFT's ``save_pretrained`` wrote for prefix tuning; with ``prefix_projection`` that is its result.

    Raises:
        AptFileNotFoundError: if the folder is no adapter.
        AptValueError: if it is damaged, or of another kind.
    """
    if not (folder / WEIGHTS_FILE).is_file() or not (folder / SETTINGS_FILE).is_file():
        raise AptFileNotFoundError(
            f"{folder}: not a PEFT adapter; accepted: a folder with {SETTINGS_FILE} and {WEIGHTS_FILE}."
        )
    try:
        kind = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))["peft_type"]
        settings = PeftConfig.from_pretrained(folder) if kind == "PREFIX_TUNING" else None
        tensors = load_file(folder / WEIGHTS_FILE)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, SafetensorError) as problem:
        raise AptValueError(f"{folder}: damaged, not readable as a PEFT adapter ({problem!r}).") from problem
    if settings is None:
        raise bad_value(f"{folder}: peft_type", kind, "PREFIX_TUNING")
    if settings.num_transformer_submodules != 1:
        raise bad_value(
            f"{folder}: num_transformer_submodules",
            settings.num_transformer_submodules,
            "1, an encoder or a decoder",
            "PEFT spreads a prefix over the two otherwise.",
        )
    table = tensors.pop(TABLE, None)
    numbers = (settings.num_layers, settings.num_attention_heads, settings.token_dim, settings.num_virtual_tokens)
    if table is None or not all(isinstance(number, int) for number in numbers):
        raise AptValueError(f"{folder}: lacks {TABLE}, or its sizes; accepted: what PEFT's save_pretrained wrote.")
    expected = (settings.num_virtual_tokens, 2 * settings.num_layers * settings.token_dim)
    if tuple(table.shape) != expected:
        raise bad_value(f"{folder}: {TABLE}", tuple(table.shape), f"shape {expected}, as {SETTINGS_FILE} says")
    modules: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        name = name.removeprefix(HEAD_PREFIX)
        modules.setdefault(_module_of(name, settings.modules_to_save or ()), {})[name] = value
    return PeftAdapter(folder, settings, table, modules)


def _module_of(parameter: str, modules_to_save: Sequence[str]) -> str:
    """The module that PEFT saved a parameter with: names in ``modules_to_save`` are ends of module names."""
    parts = parameter.split(".")
    for end in range(1, len(parts)):
        module = ".".join(parts[:end])
        if any(f".{module}".endswith(f".{name}") for name in modules_to_save):
            return module
    return parameter.rpartition(".")[0]


def num_labels(adapter: PeftAdapter) -> int | None:
    """Rows of the layer that gives the labels' logits; None where the adapter holds no such layer."""
    weights = {name: value for group in adapter.modules.values() for name, value in group.items() if value.dim() == 2}
    named = [value for name, value in weights.items() if name.split(".")[-2] in _LABEL_LAYERS]
    return min((value.shape[0] for value in named or weights.values()), default=None)
