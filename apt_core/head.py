"""The task head and whatever else is trained beside the prefix: which modules, and in which precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from apt_core.errors import AptValueError


def head_modules(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of the modules beside the base model: the task head. Output embeddings are part of the backbone."""
    if model.base_model is model:
        return ()
    outputs = model.get_output_embeddings()
    return tuple(
        name
        for name, module in model.named_children()
        if module is not model.base_model and not any(part is outputs for part in module.modules())
        if any(True for _ in module.parameters())
    )


def train_modules(model: PreTrainedModel, names: Sequence[str]) -> None:
    """Sets these modules to be trained, in float32 also where the backbone is not.

    Raises:
        AptValueError: if the model has no module of such a name.
    """
    base = set(model.base_model.modules())
    for module in [_submodule(model, name) for name in names]:
        _train_in_float32(module, inside=module in base)


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        known = ", ".join(child for child, _ in model.named_children())
        raise AptValueError(
            f"modules_to_save: got {name!r}; accepted: a module of {type(model).__name__}, such as {known}."
        ) from None


def _train_in_float32(module: nn.Module, inside: bool) -> None:
    """Half-precision weights lose small updates; ``inside`` the base model, what comes out has the old type again."""
    module.requires_grad_(True)
    kinds = {parameter.dtype for parameter in module.parameters()}
    if kinds <= {torch.float32, torch.float64}:
        return
    module.float()
    module.register_forward_pre_hook(lambda _, args: tuple(map(_as_float32, args)))
    if inside:
        half = kinds.pop()
        module.register_forward_hook(lambda _, __, output: output.to(half) if torch.is_tensor(output) else output)


def _as_float32(value: Any) -> Any:
    return value.float() if torch.is_tensor(value) and value.is_floating_point() else value
