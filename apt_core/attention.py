"""Finds transformers' attention modules and sends their calls past a prefix; knows nothing of gates.

A module is found by what it calls: its ``forward`` refers to ``ALL_ATTENTION_FUNCTIONS``. A forward pre-hook passes
the gated prefix along as a keyword argument of the call, so nothing is kept on the module between calls: threads,
nested models and activation checkpointing are safe. The module's config is replaced by a view that names our
attention function, which in turn calls the implementation that the real config names; masks are built by the
backbone, from the real config, and a later ``set_attn_implementation`` is followed.

Axes: B batch, H key/value heads, Q queries, K keys, P virtual tokens, D head size.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig

from apt_core import deberta
from apt_core.attention_call import AttentionCall
from apt_core.concatenate import concatenated_attention
from apt_core.deberta import PREFIX_MODULE
from apt_core.masks import Mask
from apt_core.prefix import GatedPrefix, LayerPrefix
from apt_core.split import prefix_shares, split_attention

IMPLEMENTATION = "apt"
_ROUTE = "_apt_route"
LONG_CACHE = 256
"""keys from which a single decoding query goes through the split path: prepending would copy the cache"""

Observer = Callable[[nn.Module, Tensor, Tensor, Tensor, bool], None]
"""called with module, query, key and value of every attention call, and whether a prefix would have arrived"""


class _Route(NamedTuple):
    """Where a call goes on to: what the module would have called without us."""

    config: PreTrainedConfig
    eager: Callable
    implementations: Any
    observer: Observer | None = None

    def function(self) -> Callable:
        name = self.config._attn_implementation
        return self.eager if name in (None, "eager") else self.implementations.get_interface(name, self.eager)


def calls_attention_interface(module: nn.Module) -> bool:
    """Whether a module's ``forward`` looks its attention function up in transformers' interface."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return "ALL_ATTENTION_FUNCTIONS" in getattr(code, "co_names", ())


def attach(module: nn.Module, prefix: LayerPrefix) -> None:
    """Makes ``module`` attend to ``prefix`` from now on; the prefix becomes its submodule."""
    prefix.train(module.training)
    if deberta.is_disentangled(module):
        deberta.attach(module, prefix)
        return
    module.add_module(PREFIX_MODULE, prefix)
    module.config = _view(module)
    module.register_forward_pre_hook(_pass_prefix, with_kwargs=True)


def detach(module: nn.Module) -> None:
    """Takes the prefix off an attention module and leaves it as it was."""
    if deberta.is_disentangled(module):
        deberta.detach(module)
        return
    module.config = getattr(module.config, _ROUTE).config
    for key, hook in list(module._forward_pre_hooks.items()):
        if hook is _pass_prefix:
            del module._forward_pre_hooks[key]
            module._forward_pre_hooks_with_kwargs.pop(key, None)
    del module._modules[PREFIX_MODULE]


def prefix_of(module: nn.Module) -> LayerPrefix | None:
    """The prefix attached to an attention module, if any."""
    return module._modules.get(PREFIX_MODULE)


class observed:
    """Within this context, ``observer`` sees every attention call of ``modules``.

    Args:
        modules: attention modules that call the interface, without prefixes.
    """

    def __init__(self, modules: list[nn.Module], observer: Observer) -> None:
        self._modules, self._observer = modules, observer

    def __enter__(self) -> None:
        self._configs = [module.config for module in self._modules]
        for module in self._modules:
            module.config = _view(module, self._observer)

    def __exit__(self, *_: object) -> None:
        for module, config in zip(self._modules, self._configs, strict=True):
            module.config = config


def hidden_states_of(args: tuple, kwargs: dict) -> Tensor:
    """The hidden states that enter an attention module [B, T, d]."""
    return args[0] if args else kwargs["hidden_states"]


def _view(module: nn.Module, observer: Observer | None = None) -> PreTrainedConfig:
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


def _pass_prefix(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    gated = partial(prefix_of(module), hidden_states_of(args, kwargs))  # the mask is known in _attend
    return args, {**kwargs, PREFIX_MODULE: gated}


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
    attention_mask: Mask,
    apt_prefix: Callable[[Mask], GatedPrefix] | None = None,
    **arguments: Any,
) -> tuple[Tensor, Tensor | None]:
    """The registered attention function: query [B, heads, Q, D], key and value [B, H, K, D]."""
    route: _Route = getattr(module.config, _ROUTE)
    if route.observer is not None:
        route.observer(module, query, key, value, apt_prefix is not None)
        apt_prefix = None
    call = AttentionCall(
        function=route.function(),
        implementation=route.config._attn_implementation,
        module=_WithConfig(module, route.config),
        query=query,
        key=key,
        value=value,
        mask=attention_mask,
        arguments=arguments,
    )
    if apt_prefix is None:
        return call.run()
    prefix = apt_prefix(attention_mask)
    if not prefix.key.shape[2]:
        return call.run()
    decoding = query.shape[2] == 1 and key.shape[2] >= LONG_CACHE and not torch.is_grad_enabled()
    apart = prefix.query_gate is not None or (decoding and call.implementation == "sdpa")
    output, weights = (split_attention if apart else concatenated_attention)(call, prefix)
    if prefix.watch is not None:
        prefix.watch(prefix_shares(call, prefix), output)
    return output, weights


AttentionInterface.register(IMPLEMENTATION, _attend)
