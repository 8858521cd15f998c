"""Prefixes to a stock PEFT ``PREFIX_TUNING`` adapter, and back.

PEFT hands a prefix over as a key/value cache, so the text's positions start after it, at P. That is matched in two
ways. Rotary positions are relative: rotating the prefix's keys by P positions gives the same scores. Absolute ones are
not: a BERT must be trained with ``AptConfig(shift_positions=True)``, which counts positions as PEFT does.

Axes: L layers, H key/value heads, P virtual tokens, D head size.
"""

from __future__ import annotations

import copy
import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PrefixTuningConfig
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from apt_core.backbones import load_backbone
from apt_core.config import AptConfig
from apt_core.errors import AptValueError, bad_value
from apt_core.model import AptModel, get_apt_model
from apt_core.peft_format import HEAD_PREFIX, TABLE, WEIGHTS_FILE, PeftAdapter, num_labels, read_peft
from apt_core.prefix import LayerPrefix
from apt_core.run_format import check_new_folder

TOLERANCE = 1e-4
_TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
}
_AUTO_CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "CAUSAL_LM": "AutoModelForCausalLM",
}
_NO_GATES = {"token_gate": "none", "layer_scale": False}


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
    bare = copy.deepcopy(model)
    bare.fold_gates()
    folded = bare.prefixes
    _check_sizes(folded)
    length = folded[0].num_virtual_tokens
    keys = [_rotated(model, prefix.key.detach(), length) for prefix in folded]
    values = [prefix.value.detach() for prefix in folded]
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
    bare.prune((0,) * len(folded))
    bare.apt_config = bare.apt_config.model_copy(update={"shift_positions": False})
    try:
        worst = _difference(model, PeftModel.from_pretrained(bare, folder), _small_batch(model))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
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


def import_peft(
    folder: str | Path,
    backbone: PreTrainedModel,
    config: AptConfig | None = None,
    *,
    say: Callable[[str], None] = print,
) -> Any:
    """Puts a PEFT prefix tuning adapter on ``backbone``, in place, with the outputs that it has in PEFT.

    With ``config`` its gates are put on top, and keys and values are divided by what these start at, ``gate_init``.
    That leaves the outputs as they are for static gates, and for hidden gates with ``gate_init_std=0``; other hidden
    gates start near ``gate_init``, and so do the outputs.

    Args:
        folder: what PEFT's ``save_pretrained`` wrote.
        backbone: the model that the adapter was trained on.
        config: gates and other settings; lengths are the adapter's. None: no gates.
        say: told which modules, such as the head of another task, the adapter has but cannot be taken; these start as
            ``backbone`` has them. Without ``config`` that is an error.

    Returns:
        An ``AptModel`` to use, or to go on training.

    Raises:
        AptFileNotFoundError, AptValueError: if it is no prefix tuning adapter, not one of this backbone, or ``config``
            contradicts it.
    """
    adapter = read_peft(Path(folder))
    model, left = _put_on(backbone, adapter, config or AptConfig(**_NO_GATES))
    if left and config is None:
        raise AptValueError(f"{folder}: {left[0]}; accepted: an adapter for this head.")
    for reason in left:
        say(f"note: not taken from {folder}: {reason}; it starts as the backbone has it")
    return model


def import_adapter(folder: Path, out: Path, *, model: str | None = None, say: Callable[[str], None] = print) -> None:
    """Writes a PEFT prefix tuning adapter as one of ours, after seeing that both give the same outputs.

    Args:
        folder: what PEFT's ``save_pretrained`` wrote.
        out: new or empty folder, for ``AptModel.from_pretrained``.
        model: folder or name of the backbone; None: as the adapter names it.
        say: receives one-line messages for the user.

    Raises:
        AptError: if the adapter cannot be imported, with the reason; nothing is written then.
    """
    check_new_folder(out)
    adapter = read_peft(folder)
    task_type = getattr(adapter.settings.task_type, "value", adapter.settings.task_type)
    if task_type not in _AUTO_CLASSES:
        raise bad_value(f"{folder}: task_type", task_type, ", ".join(_AUTO_CLASSES))
    name = model or adapter.settings.base_model_name_or_path
    if not name:
        raise bad_value("model", None, "the backbone of the adapter, which does not name it", "Add --model.")
    labels = num_labels(adapter)
    head = {"num_labels": labels} if labels and task_type != "CAUSAL_LM" else {}
    backbone, fresh = load_backbone(name, _AUTO_CLASSES[task_type], dtype="float32", **head)
    held = {parameter for group in adapter.modules.values() for parameter in group}
    random = [module for module in fresh if not any(parameter.startswith(module + ".") for parameter in held)]
    for module in random:
        say(f"note: neither {name} nor the adapter holds {module}: it has random values, to be trained")
    bare = copy.deepcopy(backbone.eval())
    imported, left = _put_on(backbone, adapter, AptConfig(**_NO_GATES, modules_to_save=tuple(random) or None))
    if left:
        raise AptValueError(f"{folder}: {left[0]}; accepted: an adapter of {name}.")
    batch = _small_batch(bare)
    worst = _difference(imported, PeftModel.from_pretrained(bare, folder), batch)
    if not worst < TOLERANCE:
        raise AptValueError(
            f"{folder}: outputs would differ from PEFT's by {worst:.1g}; accepted: an adapter of a backbone with full "
            "attention and rotary or learned positions."
        )
    imported.save_pretrained(out)
    say(
        f"{out}: outputs equal PEFT's on a small batch (largest difference {worst:.1g}, at most {TOLERANCE:g}); "
        f"load it with AptModel.from_pretrained({str(out)!r})"
    )


def _put_on(backbone: PreTrainedModel, adapter: PeftAdapter, config: AptConfig) -> tuple[AptModel, list[str]]:
    """The model, and why modules that the adapter holds were not taken."""
    folder, settings, length = adapter.folder, adapter.settings, adapter.settings.num_virtual_tokens
    _check_config(adapter, config, shift=_rotary(backbone) is None)
    own: dict[str, dict[str, torch.nn.Parameter]] = {
        module: {name: parameter for name, parameter in backbone.named_parameters() if name.startswith(module + ".")}
        for module in adapter.modules
    }
    left = []
    for module, tensors in adapter.modules.items():
        received = {name: tuple(value.shape) for name, value in tensors.items()}
        expected = {name: tuple(parameter.shape) for name, parameter in own[module].items()}
        if received != expected:
            left.append(f"{module}: got {received}, but {type(backbone).__name__} has {expected or 'none'}")
    modules = dict.fromkeys([*(config.modules_to_save or ()), *(module for module in own if own[module])])
    config = config.model_copy(
        update={
            "num_virtual_tokens": length,
            "prefix_lengths": None,
            "kept_tokens": None,
            "shift_positions": _rotary(backbone) is None,
            "modules_to_save": tuple(modules) or None,
        }
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
    start = 1.0 if config.token_gate == "none" else config.gate_init
    vectors = adapter.table.view(length, 2 * len(model.prefixes), heads, size).permute(1, 2, 0, 3)  # [2 L, H, P, D]
    refused = {reason.partition(":")[0] for reason in left}
    with torch.no_grad():
        for layer, prefix in enumerate(model.prefixes):
            prefix.key.copy_(_rotated(model, vectors[2 * layer].to(prefix.key), -length) / start)
            prefix.value.copy_(vectors[2 * layer + 1] / start)
        for module, tensors in adapter.modules.items():
            for name, value in tensors.items() if module not in refused else ():
                model.get_parameter(name).copy_(value)
    return model, left


def _check_config(adapter: PeftAdapter, config: AptConfig, *, shift: bool) -> None:
    """Refuses settings that contradict the adapter."""
    length, given = adapter.settings.num_virtual_tokens, config.model_fields_set
    if config.prefix_lengths is not None and set(config.prefix_lengths) != {length}:
        raise bad_value(
            "prefix_lengths", list(config.prefix_lengths), f"{length} for every layer, as {adapter.folder} has"
        )
    if config.prefix_lengths is None and "num_virtual_tokens" in given and config.num_virtual_tokens != length:
        raise bad_value("num_virtual_tokens", config.num_virtual_tokens, f"{length}, as {adapter.folder} has")
    if config.prefix_projection:
        raise bad_value("prefix_projection", True, "False, because the adapter holds keys and values themselves")
    if "shift_positions" in given and config.shift_positions != shift:
        kind = "absolute" if shift else "rotary"
        raise bad_value("shift_positions", config.shift_positions, f"{shift}: the backbone's positions are {kind}")


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
    _task_type(model)


def _check_sizes(prefixes: list[LayerPrefix]) -> None:
    shapes = {(prefix.key.shape, prefix.value.shape) for prefix in prefixes}
    if len(shapes) != 1 or any(key != value for key, value in shapes):
        raise AptValueError("model: its layers have heads of different sizes, which PEFT's one table cannot hold.")


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


def _small_batch(model: PreTrainedModel) -> dict[str, Tensor]:
    """Two texts of 7 sub-words, the same every time."""
    draw = torch.Generator().manual_seed(0)
    highest = min(1_000, model.get_input_embeddings().num_embeddings)
    input_ids = torch.randint(2, highest, (2, 7), generator=draw).to(model.device)
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


def _difference(model: AptModel, reference: PeftModel, batch: dict[str, Tensor]) -> float:
    """Largest difference of the logits between ``model`` and PEFT with the adapter, both in evaluation mode."""
    training = model.training
    with torch.no_grad():
        expected, received = model.eval()(**batch).logits, reference.eval()(**batch).logits
    model.train(training)
    return (expected - received).abs().max().item()
