"""Costs that are counted from a run's shapes equal those of the real tensors of real models."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from analysis.costs import cost_of, token_costs
from apt_core import AptConfig, GateRecorder, concatenate, get_apt_model
from apt_core.model import WEIGHTS_FILE
from apt_core.run_format import read_run_info
from apt_core.sites import find_sites
from benchmarks.small_backbones import batch_of, build

METHODS = {
    "hidden": {},
    "hidden with bias": {"gate_init": 0.3},
    "static": {"token_gate": "static"},
    "scale alone": {"token_gate": "none"},
    "no gates": {"token_gate": "none", "layer_scale": False},
    "projected": {"prefix_projection": True, "encoder_hidden_size": 12},
    "projected, own width": {"prefix_projection": True, "token_gate": "static"},
}
NAMES = ["BERT", "DeBERTa-v2", "Llama", "Gemma 4", "T5"]
PATTERNS = [(4, 4, 4, 4), (3, 0, 5, 2), (0, 1, 0, 0), (0, 0, 0, 0)]


def lengths_of(num_layers: int, pattern: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(pattern[layer % 4] for layer in range(num_layers))


def num_layers_of(name: str) -> int:
    return len(find_sites(build(name)))


def model_with(name: str, lengths: tuple[int, ...], implementation: str = "eager", dtype=torch.float32, **method):
    backbone = build(name, implementation).to(dtype)
    return get_apt_model(backbone, AptConfig(prefix_lengths=lengths, **method)).eval()


def recorded(folder, model):
    """What a run of this model says."""
    recorder = GateRecorder(folder)
    recorder.start(model)
    recorder.close()
    return read_run_info(folder)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_adapter_bytes_are_those_of_real_models(tmp_path, name, method):
    num_layers = num_layers_of(name)
    info = recorded(tmp_path / "run", model_with(name, (2,) * num_layers, **METHODS[method]))
    for pattern in PATTERNS:
        lengths = lengths_of(num_layers, pattern)
        model = model_with(name, lengths, **METHODS[method])
        counts = model.count_parameters()
        cost = cost_of(info, lengths)
        assert cost.parameters == sum(counts.values()) - counts["frozen"]
        model.fold_projection()
        model.save_pretrained(tmp_path / "adapter")
        tensors = load_file(tmp_path / "adapter" / WEIGHTS_FILE)
        assert cost.adapter_bytes == sum(tensor.nbytes for tensor in tensors.values())


def test_further_modules_to_save_are_counted(tmp_path):
    method = {"modules_to_save": ("classifier", "bert.pooler")}
    info = recorded(tmp_path, model_with("BERT", (2, 2, 2), **method))
    assert info.num_parameters["head"] > 32 * 32
    counts = model_with("BERT", (0, 7, 1), **method).count_parameters()
    assert cost_of(info, (0, 7, 1)).parameters == sum(counts.values()) - counts["frozen"]


def test_half_precision_backbone_has_a_float32_adapter(tmp_path):
    model = model_with("BERT", (2, 2, 2), dtype=torch.bfloat16)
    info = recorded(tmp_path / "run", model)
    assert info.backbone_dtype == "bfloat16"
    model.save_pretrained(tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / WEIGHTS_FILE)
    assert cost_of(info, (2, 2, 2)).adapter_bytes == sum(tensor.nbytes for tensor in tensors.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "token_gate"), [("BERT", "hidden"), ("Llama", "static"), ("Gemma 4", "static"), ("T5", "none")]
)
def test_cache_bytes_are_those_of_the_tensors_put_in_front(tmp_path, monkeypatch, name, token_gate, dtype):
    num_layers = num_layers_of(name)
    info = recorded(tmp_path, model_with(name, (2,) * num_layers, dtype=dtype, token_gate=token_gate))
    lengths = lengths_of(num_layers, (3, 0, 5, 2))
    model = model_with(name, lengths, dtype=dtype, token_gate=token_gate)
    added = []
    in_front = concatenate._in_front

    def counted(prefix, main):
        longer = in_front(prefix, main)
        added.append((longer.nbytes - main.nbytes) / len(main))
        return longer

    monkeypatch.setattr(concatenate, "_in_front", counted)
    with torch.no_grad():
        model(**batch_of(model))
    assert cost_of(info, lengths).kv_cache_bytes == sum(added) > 0


@pytest.mark.parametrize("token_gate", ["hidden", "static"])
@pytest.mark.parametrize("name", ["BERT", "Llama", "Gemma 4", "T5"])
def test_multiply_adds_are_what_torch_counts(tmp_path, name, token_gate):
    """torch counts matrix products (2 floating-point operations per multiply-add) and no product of single numbers.

    Under eager attention, because it does not know the fused kernel for CPUs. What it leaves out: keys and values, or
    scores and weights, times their gate.
    """
    num_layers = num_layers_of(name)
    lengths = lengths_of(num_layers, (3, 0, 5, 2))
    model = model_with(name, lengths, token_gate=token_gate)
    info = recorded(tmp_path, model)
    batch = batch_of(model)
    counted = _operations(model, batch) - _operations(build(name), batch)
    costs = token_costs(info)
    expected = 0
    for layer, kind in enumerate(info.layer_kinds):
        heads, key, value, _, query_heads = info.layer_shapes[layer]
        of_text = name != "T5" or kind == "encoder"
        queries = batch["input_ids" if of_text else "decoder_input_ids"].shape[1]
        per_query, per_sequence = int(costs.multiply_adds[layer]), int(costs.sequence_multiply_adds[layer])
        if token_gate == "hidden" and kind == "encoder":
            per_sequence -= heads * (key + value)
        elif token_gate == "hidden":
            per_query -= 2 * query_heads
        expected += len(batch["input_ids"]) * lengths[layer] * (queries * per_query + per_sequence)
    assert counted == 2 * expected > 0


def _operations(model, batch) -> int:
    model.requires_grad_(False)  # it hangs hooks on what has a gradient
    with FlopCounterMode(display=False) as counter:
        model(**copy.deepcopy(batch))
    return counter.get_total_flops()
