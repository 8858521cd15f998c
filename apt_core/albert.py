"""ALBERT calls one module for several layers; prefixes need a module for each. The weights stay shared."""

from __future__ import annotations

import copy

from torch import nn
from transformers import PreTrainedModel


def unshare_layers(model: PreTrainedModel) -> None:
    """Gives every layer of an ALBERT encoder a light module of its own; other models are left as they are."""
    for module in model.modules():
        if type(module).__name__ != "AlbertTransformer":
            continue
        config = module.config
        layers, groups = config.num_hidden_layers, config.num_hidden_groups
        if len(module.albert_layer_groups) == layers:
            continue
        module.albert_layer_groups = nn.ModuleList(
            light_copy(module.albert_layer_groups[int(layer / (layers / groups))]) for layer in range(layers)
        )
        module.config = copy.copy(config)
        module.config.num_hidden_groups = layers


def light_copy(module: nn.Module) -> nn.Module:
    """A module with submodules and hooks of its own and the same parameters and buffers."""
    twin = copy.copy(module)
    for name, value in list(twin.__dict__.items()):
        if name.startswith("_") and isinstance(value, dict):
            twin.__dict__[name] = copy.copy(value)
    twin.__dict__["_modules"] = {name: child and light_copy(child) for name, child in module._modules.items()}
    return twin
