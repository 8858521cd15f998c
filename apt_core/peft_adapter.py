"""Prefixes to a stock PEFT ``PREFIX_TUNING`` adapter, and back.

PEFT hands a prefix over as a key/value cache, so the text's positions start after it, at P. That is matched in two
ways. Rotary positions are relative: rotating the prefix's keys by P positions gives the same scores. Absolute ones are
not: a BERT must be trained with ``AptConfig(shift_positions=True)``, which counts positions as PEFT does.

Axes: L layers, H key/value heads, P virtual tokens, D head size.
"""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, PrefixTuningConfig
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from apt_core.config import AptConfig
from apt_core.errors import AptFileNotFoundError, AptValueError, bad_value
from apt_core.model import AptModel, get_apt_model
from apt_core.run_format import check_new_folder

WEIGHTS_FILE = "adapter_model.safetensors"
TABLE = "prompt_embeddings"
HEAD_PREFIX = "base_model."
TOLERANCE = 1e-4
_TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
}


def export_peft(model: AptModel, folder: str | Path) -> None:
    """Writes ``model`` as a PEFT prefix tuning adapter, after seeing that PEFT gives the same outputs with it.

    Args:
        model: from ``get_apt_model``; static gates and scales are folded into the prefix, ``model`` stays as it is.
        folder: new or empty folder.

    Raises:
        AptValueError: if PEFT has no way to hold it, with the reason: gates that depend on the input, lengths that
            differ, sizes that differ from layer to layer, a task type that PEFT does not know, or absolute positions.
    """
    folder = Path(folder)
    check_new_folder(folder)
    _check_exportable(model)
    folded = [prefix(prefix.key.new_zeros(1, 1, 1)) for prefix in model.prefixes]
    length = model.prefixes[0].num_virtual_tokens
    keys = [_rotated(model, part.key[0].detach(), length) for part in folded]
    values = [part.value[0].detach() for part in folded]
    vectors = torch.stack([part for pair in zip(keys, values, strict=True) for part in pair])  # [2 L, H, P, D]
    heads, size = vectors.shape[1], vectors.shape[3]
    settings = PrefixTuningConfig(
        task_type=_task_type(model),
        num_virtual_tokens=length,
        num_layers=len(folded),
        token_dim=heads * size,
        num_attention_heads=heads,
        num_transformer_submodules=1,
        encoder_hidden_size=heads * size,
        inference_mode=True,
        base_model_name_or_path=model.config.name_or_path or None,
        modules_to_save=list(model.apt_config.modules_to_save or ()) or None,
    )
    head = {
        HEAD_PREFIX + name: value.detach().cpu().contiguous()
        for name, value in model.trained_state_dict().items()
        if "apt_prefix" not in name.split(".")
    }
    table = vectors.permute(2, 0, 1, 3).reshape(length, -1).cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    settings.save_pretrained(folder)
    save_file({TABLE: table, **head}, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    worst = _difference_under_peft(model, folder)
    if not worst < TOLERANCE:
        for path in folder.iterdir():
            path.unlink()
        why = (
            "and this backbone's positions are absolute; accepted: a model trained with AptConfig(shift_positions=True)"
            if _rotary(model) is None
            else "which leave a sliding window as text does; accepted: a backbone with full attention"
        )
        raise AptValueError(
            f"model: PEFT's outputs would differ by {worst:.1g}, because it counts virtual tokens as positions, {why}."
        )


def import_peft(folder: str | Path, backbone: PreTrainedModel) -> Any:
    """Puts a PEFT prefix tuning adapter on ``backbone``, in place, without gates: the same outputs as PEFT's.

    Args:
        folder: what PEFT's ``save_pretrained`` wrote.
        backbone: the model that the adapter was trained on, with its head.

    Returns:
        An ``AptModel`` to use, or to go on training.

    Raises:
        AptFileNotFoundError, AptValueError: if it is no prefix tuning adapter, or not one of this backbone.
    """
    folder = Path(folder)
    if not (folder / WEIGHTS_FILE).is_file() or not (folder / "adapter_config.json").is_file():
        raise AptFileNotFoundError(f"{folder}: not a PEFT adapter; accepted: a folder with adapter_config.json.")
    settings = PeftConfig.from_pretrained(folder)
    if not isinstance(settings, PrefixTuningConfig) or settings.num_transformer_submodules != 1:
        raise bad_value(f"{folder}: peft_type", settings.peft_type.value, "PREFIX_TUNING of an encoder or a decoder")
    tensors = load_file(folder / WEIGHTS_FILE)
    length = settings.num_virtual_tokens
    config = AptConfig(
        num_virtual_tokens=length,
        token_gate="none",
        layer_scale=False,
        shift_positions=_rotary(backbone) is None,
        modules_to_save=tuple(dict.fromkeys(name for name in settings.modules_to_save or () if hasattr(backbone, name)))
        or None,
    )
    model = get_apt_model(backbone, config)
    heads, _, size = model.prefixes[0].key.shape
    received = (settings.num_layers, settings.num_attention_heads, settings.token_dim)
    if received != (len(model.prefixes), heads, heads * size):
        raise bad_value(
            f"{folder}: num_layers, num_attention_heads, token_dim",
            received,
            f"{(len(model.prefixes), heads, heads * size)}, as {type(backbone).__name__} has",
        )
    table = tensors.pop(TABLE)
    vectors = table.view(length, 2 * len(model.prefixes), heads, size).permute(1, 2, 0, 3)  # [2 L, H, P, D]
    with torch.no_grad():
        for layer, prefix in enumerate(model.prefixes):
            prefix.key.copy_(_rotated(model, vectors[2 * layer].to(prefix.key), -length))
            prefix.value.copy_(vectors[2 * layer + 1])
        for name, value in tensors.items():
            model.get_parameter(name.removeprefix(HEAD_PREFIX)).copy_(value)
    return model


def _check_exportable(model: AptModel) -> None:
    config = model.apt_config
    if config.token_gate == "hidden":
        raise bad_value(
            "token_gate", "hidden", "static or none", "PEFT's prefixes cannot depend on the input; retrain with static."
        )
    lengths = set(config.prefix_lengths)
    if len(lengths) != 1 or 0 in lengths:
        raise bad_value(
            "prefix_lengths", list(config.prefix_lengths), "one length over 0 for all layers", "PEFT has only that."
        )
    if model.config.is_encoder_decoder:
        raise bad_value("model", type(model).__name__, "an encoder or a decoder", "PEFT spreads a prefix otherwise.")
    shapes = {(prefix.key.shape, prefix.value.shape) for prefix in model.prefixes}
    if len(shapes) != 1 or any(key != value for key, value in shapes):
        raise AptValueError("model: its layers have heads of different sizes, which PEFT's one table cannot hold.")
    _task_type(model)


def _task_type(model: AptModel) -> str:
    for ending, task_type in _TASK_TYPES.items():
        if type(model).__name__.endswith(ending):
            return task_type
    raise bad_value("model", type(model).__name__, "a model that ends in " + ", ".join(_TASK_TYPES))


def _rotary(model: PreTrainedModel) -> torch.nn.Module | None:
    return next((module for name, module in model.named_modules() if name.endswith("rotary_emb")), None)


def _rotated(model: PreTrainedModel, keys: Tensor, positions: int) -> Tensor:
    """Keys [H, P, D] turned by that many rotary positions; as they are where positions are absolute."""
    rotary = _rotary(model)
    if rotary is None:
        return keys
    apply = getattr(inspect.getmodule(type(rotary)), "apply_rotary_pos_emb", None)
    if apply is None:
        raise AptValueError(f"model: {type(model).__name__} has rotary positions of a kind that is not known here.")
    cos, sin = rotary(keys[None], torch.full((1, keys.shape[1]), positions, device=keys.device))
    return apply(keys[None], keys[None], cos, sin)[1][0]


def _difference_under_peft(model: AptModel, folder: Path) -> float:
    """Largest difference of the logits of a small batch between ``model`` and PEFT with the adapter."""
    bare = copy.deepcopy(model)
    bare.fold_gates()
    bare.prune((0,) * len(bare.prefixes))
    bare.apt_config = bare.apt_config.model_copy(update={"shift_positions": False})
    draw = torch.Generator().manual_seed(0)
    highest = min(1_000, model.get_input_embeddings().num_embeddings)
    input_ids = torch.randint(2, highest, (2, 7), generator=draw).to(model.device)
    batch = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    training = model.training
    with torch.no_grad():
        expected = model.eval()(**batch).logits
        received = PeftModel.from_pretrained(bare, folder).eval()(**batch).logits
    model.train(training)
    return (expected - received).abs().max().item()
