"""Finds a backbone's attention modules, in the order of its layers, and what kind each is.

Nothing is read from config names, which differ from model to model: two tiny forward passes show which modules are
called, with how many heads of which sizes, and whether a later token changes an earlier output.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from apt_core import deberta
from apt_core.albert import unshare_layers
from apt_core.attention import calls_attention_interface, hidden_states_of, observed
from apt_core.config import AptConfig
from apt_core.deberta import PREFIX_MODULE
from apt_core.errors import AptValueError, bad_value
from apt_core.gates import Pooling
from apt_core.prefix import LayerShape

Kind = Literal["encoder", "decoder", "cross"]
KINDS: tuple[Kind, ...] = ("encoder", "decoder", "cross")
_SOURCE_LENGTH, _TARGET_LENGTH = 5, 3


class Site(NamedTuple):
    """One attention module."""

    name: str
    module: nn.Module
    shape: LayerShape
    kind: Kind
    """self-attention of an encoder, self-attention of a decoder, or attention of a decoder to the encoder"""
    causal: bool
    """whether a position must not see later ones: then a gate per sequence would leak"""


def find_sites(model: PreTrainedModel) -> list[Site]:
    """All text attention modules of a backbone, in call order.

    ALBERT's shared layers are given a module each (the weights stay shared); nothing else is changed.

    Raises:
        AptValueError: naming the reason, if prefixes cannot be put on this architecture.
    """
    unshare_layers(model)
    names = {
        module: name
        for name, module in model.named_modules()
        if calls_attention_interface(module) or deberta.is_disentangled(module)
    }
    if not names:
        raise _refused(model, "none of its modules calls transformers' attention interface (ALL_ATTENTION_FUNCTIONS)")
    encoder = set(model.get_encoder().modules()) if model.config.is_encoder_decoder else set()
    calls: list[Site] = []
    hidden_sizes: dict[nn.Module, int] = {}
    deaf: list[str] = []

    def observe(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, hands_on: bool) -> None:
        if not hands_on:
            deaf.append(names[module])
        kind: Kind = "decoder"
        if module in encoder:
            kind = "encoder"
        elif encoder and key.shape[2] == _SOURCE_LENGTH:
            kind = "cross"
        shape = LayerShape(key.shape[1], key.shape[3], value.shape[3], hidden_sizes[module], query.shape[1])
        calls.append(Site(names[module], module, shape, kind, causal=True))

    def note(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        hidden_sizes[module] = hidden_states_of(args, kwargs).shape[-1]
        if deberta.is_disentangled(module):
            calls.append(Site(names[module], module, deberta.shape_of(module), "encoder", causal=False))
            return args, kwargs
        return args, {**kwargs, PREFIX_MODULE: True}

    through_interface = [module for module in names if not deberta.is_disentangled(module)]
    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in names]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), observed(through_interface, observe):
            first = _probe(model, last_token=4)
            sites = list(calls)
            second = _probe(model, last_token=5) if not encoder else first
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError) as problem:
        raise _refused(model, f"a small forward pass fails ({_one_line(problem)})") from problem
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    if deaf:
        raise _refused(model, f"{deaf[0]} does not hand keyword arguments on to its attention function")
    _check_called_once(model, sites)
    if not encoder:
        causal = bool(torch.equal(first[:, 0], second[:, 0]))
        kind: Kind = "decoder" if causal else "encoder"
        sites = [site._replace(kind=kind, causal=causal) for site in sites]
    return [site._replace(causal=site.kind != "encoder") for site in sites] if encoder else sites


def chosen_sites(sites: list[Site], config: AptConfig) -> list[Site]:
    """The attention modules that get prefixes.

    Raises:
        AptValueError: if the backbone has none of the kinds that ``config.attention`` names.
    """
    chosen = [site for site in sites if site.kind in config.attention]
    if not chosen:
        kinds = ", ".join(sorted({site.kind for site in sites}))
        raise bad_value("attention", list(config.attention), f"one or more of what this backbone has: {kinds}")
    return chosen


def pooling_of(site: Site, config: AptConfig) -> Pooling:
    """Which hidden state the token gate of a layer looks at.

    Raises:
        AptValueError: if a gate per sequence is asked for where it would show a position its future.
    """
    if config.gate_pooling == "auto":
        return "per-position" if site.causal else "first"
    if site.causal and config.token_gate == "hidden" and config.gate_pooling != "per-position":
        raise bad_value(
            "gate_pooling",
            config.gate_pooling,
            f"per-position or auto, because {site.name} is causal: a gate per sequence would leak later tokens",
            "Static gates (token_gate='static') work too.",
        )
    return config.gate_pooling


def _probe(model: PreTrainedModel, last_token: int) -> Tensor:
    """The last hidden states [1, T, d] of a short text that ends in ``last_token``."""
    base = model.base_model
    device = next(model.parameters()).device
    if model.config.is_encoder_decoder:
        source = torch.arange(2, 2 + _SOURCE_LENGTH, device=device)[None]
        target = torch.arange(2, 2 + _TARGET_LENGTH, device=device)[None]
        output = base(input_ids=source, decoder_input_ids=target, use_cache=False)
    else:
        output = base(input_ids=torch.tensor([[2, 3, last_token]], device=device))
    return output[0]


def _check_called_once(model: PreTrainedModel, sites: list[Site]) -> None:
    if not sites:
        raise _refused(model, "a forward pass on text calls none of its attention modules")
    seen: set[nn.Module] = set()
    for site in sites:
        if site.module in seen:
            raise _refused(
                model, f"it calls {site.name} for several layers, which could not have prefixes of their own"
            )
        seen.add(site.module)


def _refused(model: PreTrainedModel, reason: str) -> AptValueError:
    return AptValueError(
        f"model: got {type(model).__name__}, where {reason}; accepted: a transformers text model with an attention "
        "module for every layer that goes through the attention interface, such as BERT, Llama or T5."
    )


def _one_line(problem: Exception) -> str:
    return f"{type(problem).__name__}: {problem}".partition("\n")[0][:160]
