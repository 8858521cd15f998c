"""Puts a prefix in front of the keys and values of transformers' attention modules; knows nothing of gates.

The only file that knows how transformers calls attention. A module is found by what it calls: its ``forward``
refers to ``ALL_ATTENTION_FUNCTIONS``. A forward pre-hook passes the gated prefix along as a keyword argument of
the call, so nothing is kept on the module between calls. The module's config is replaced by a view that names our
attention function, which in turn calls the implementation that the real config names; masks are built by the
backbone, from the real config.

Axes: B batch, H key/value heads, Q queries, K keys, P virtual tokens, D head size.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from apt_core.errors import AptValueError
from apt_core.masks import extend_mask
from apt_core.prefix import GatedPrefix, LayerPrefix, LayerShape

IMPLEMENTATION = "apt"
PREFIX_MODULE = "apt_prefix"
_ROUTE = "_apt_route"


class Site(NamedTuple):
    """One attention module of a backbone, in the order in which a forward pass calls them."""

    name: str
    module: nn.Module
    shape: LayerShape


class _Route(NamedTuple):
    """Where a call goes on to: what the module would have called without us."""

    config: PreTrainedConfig
    eager: Callable
    implementations: Any
    observer: Callable[[nn.Module, Tensor, Tensor], None] | None = None

    def function(self) -> Callable:
        name = self.config._attn_implementation
        return self.eager if name in (None, "eager") else self.implementations.get_interface(name, self.eager)


def find_sites(model: PreTrainedModel) -> list[Site]:
    """All self-attention modules of a backbone, found by one tiny forward pass of its base model.

    Raises:
        AptValueError: if there is none, or one is called more than once in a pass.
    """
    names = {module: name for name, module in model.named_modules() if _calls_attention_interface(module)}
    if not names:
        raise AptValueError(
            f"model: got {type(model).__name__}; accepted: a model whose attention goes through transformers' "
            "attention interface (ALL_ATTENTION_FUNCTIONS), such as BERT or RoBERTa."
        )
    calls: list[Site] = []
    hidden_sizes: dict[nn.Module, int] = {}

    def observe(module: nn.Module, key: Tensor, value: Tensor) -> None:
        shape = LayerShape(key.shape[1], key.shape[3], value.shape[3], hidden_sizes[module])
        calls.append(Site(names[module], module, shape))

    def note_hidden_size(module: nn.Module, args: tuple, kwargs: dict) -> None:
        hidden_sizes[module] = _hidden_states(args, kwargs).shape[-1]

    configs = {module: module.config for module in names}
    hooks = [module.register_forward_pre_hook(note_hidden_size, with_kwargs=True) for module in names]
    training = model.training
    model.eval()
    try:
        for module in names:
            module.config = _view(module, observe)
        with torch.no_grad():
            model.base_model(input_ids=torch.tensor([[1, 2, 3]], device=model.device))
    finally:
        for module, config in configs.items():
            module.config = config
        for hook in hooks:
            hook.remove()
        model.train(training)
    repeated = {site.name for site in calls if sum(other.module is site.module for other in calls) > 1}
    if repeated:
        raise AptValueError(
            f"model: got {type(model).__name__}, which calls {sorted(repeated)[0]} for several layers; "
            "accepted: a model with an attention module of its own in every layer."
        )
    return calls


def attach(site: Site, prefix: LayerPrefix) -> None:
    """Makes ``site`` attend to ``prefix`` from now on; the prefix becomes a submodule of the attention module."""
    module = site.module
    module.add_module(PREFIX_MODULE, prefix.train(module.training))
    module.config = _view(module)
    module.register_forward_pre_hook(_pass_prefix, with_kwargs=True)


def prefix_of(module: nn.Module) -> LayerPrefix | None:
    """The prefix attached to an attention module, if any."""
    return module._modules.get(PREFIX_MODULE)


def detach(module: nn.Module) -> None:
    """Takes the prefix off an attention module and restores its config."""
    module.config = getattr(module.config, _ROUTE).config
    for key, hook in list(module._forward_pre_hooks.items()):
        if hook is _pass_prefix:
            del module._forward_pre_hooks[key]
            module._forward_pre_hooks_with_kwargs.pop(key, None)
    del module._modules[PREFIX_MODULE]


def _calls_attention_interface(module: nn.Module) -> bool:
    forward = inspect.unwrap(type(module).forward)
    return "ALL_ATTENTION_FUNCTIONS" in getattr(getattr(forward, "__code__", None), "co_names", ())


def _view(module: nn.Module, observer: Callable | None = None) -> PreTrainedConfig:
    """A shallow copy of the module's config that sends its attention calls through ``_attend``."""
    forward = inspect.unwrap(type(module).forward)
    eager = next(name for name in forward.__code__.co_names if name.endswith("eager_attention_forward"))
    config = module.config
    namespace = forward.__globals__
    view = copy.copy(config)
    view._attn_implementation_internal = IMPLEMENTATION
    route = _Route(config, namespace[eager], namespace["ALL_ATTENTION_FUNCTIONS"], observer)
    object.__setattr__(view, _ROUTE, route)
    return view


def _hidden_states(args: tuple, kwargs: dict) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _pass_prefix(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    prefix = prefix_of(module)
    return args, {**kwargs, PREFIX_MODULE: prefix(_hidden_states(args, kwargs))}


class _WithConfig:
    """The module as its own implementation must see it: with the real config."""

    def __init__(self, module: nn.Module, config: PreTrainedConfig) -> None:
        self._module, self.config = module, config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *args: Any,
    apt_prefix: GatedPrefix | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The registered attention function: query [B, heads, Q, D], key and value [B, H, K, D]."""
    route: _Route = getattr(module.config, _ROUTE)
    if route.observer is not None:
        route.observer(module, key, value)
    if apt_prefix is not None:
        length = apt_prefix.key.shape[2]
        batch = key.shape[0]
        attention_mask = extend_mask(attention_mask, length)
        key = torch.cat([apt_prefix.key.to(key.dtype).expand(batch, -1, -1, -1), key], dim=2)
        value = torch.cat([apt_prefix.value.to(value.dtype).expand(batch, -1, -1, -1), value], dim=2)
    return route.function()(_WithConfig(module, route.config), query, key, value, attention_mask, *args, **kwargs)


AttentionInterface.register(IMPLEMENTATION, _attend)
