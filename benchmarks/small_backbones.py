"""Small seeded backbones of many architectures, made from their configs: for benchmarks and tests."""

from __future__ import annotations

import copy
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from apt_core import AptConfig, get_apt_model
from apt_core.sites import find_sites

VOCABULARY = 64

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 16}

ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "BERT": ("BertForSequenceClassification", "BertConfig", SMALL),
    "RoBERTa": ("RobertaForSequenceClassification", "RobertaConfig", SMALL),
    "ELECTRA": ("ElectraForSequenceClassification", "ElectraConfig", {**SMALL, "embedding_size": 32}),
    "ALBERT": (
        "AlbertForSequenceClassification",
        "AlbertConfig",
        {**SMALL, "embedding_size": 16, "num_hidden_groups": 1},
    ),
    "DistilBERT": (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {"vocab_size": VOCABULARY, "dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4, "pad_token_id": 0},
    ),
    "ModernBERT": (
        "ModernBertForSequenceClassification",
        "ModernBertConfig",
        {**SMALL, "local_attention": 6, "global_attn_every_n_layers": 3, "cls_token_id": 2, "sep_token_id": 3},
    ),
    "DeBERTa-v2": (
        "DebertaV2ForSequenceClassification",
        "DebertaV2Config",
        {**SMALL, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
    ),
    "GPT-2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    ),
    "Llama": ("LlamaForCausalLM", "LlamaConfig", GROUPED),
    "Qwen3": ("Qwen3ForCausalLM", "Qwen3Config", GROUPED),
    "Mistral, sliding window": ("MistralForCausalLM", "MistralConfig", {**GROUPED, "sliding_window": 4}),
    "Gemma 3": (
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {**GROUPED, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "Gemma 4": (
        "Gemma4ForCausalLM",
        "Gemma4TextConfig",
        {
            **GROUPED,
            "global_head_dim": 32,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "num_kv_shared_layers": 0,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": VOCABULARY,
        },
    ),
    "T5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
    ),
    "BART": (
        "BartForConditionalGeneration",
        "BartConfig",
        {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 64,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 1,
            "decoder_start_token_id": 1,
            "forced_eos_token_id": None,
        },
    ),
}


def build(name: str, implementation: str = "eager") -> PreTrainedModel:
    """A small seeded backbone of an architecture in ``ARCHITECTURES``, in evaluation mode."""
    model_class, config_class, settings = ARCHITECTURES[name]
    torch.manual_seed(0)
    config = getattr(transformers, config_class)(**settings)
    model = getattr(transformers, model_class)(config).eval()
    with torch.no_grad():  # biases and norms start alike everywhere; make them tell positions and layers apart
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    if name != "DeBERTa-v2":
        model.set_attn_implementation(implementation)
    return model


def with_prefixes(name: str, implementation: str = "eager", token_gate: str = "hidden", **config: Any) -> Any:
    """The backbone with a prefix of another length in every layer, one of them 0."""
    model = build(name, implementation)
    num_layers = len(find_sites(copy.deepcopy(model)))
    lengths = tuple((3, 0, 5, 2)[layer % 4] for layer in range(num_layers))
    torch.manual_seed(1)
    model = get_apt_model(model, AptConfig(prefix_lengths=lengths, token_gate=token_gate, gate_init_std=0.5, **config))
    return model.eval()


def batch_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """Two texts of 9 and 6 sub-words: padded on the right, for decoders on the left."""
    draw = torch.Generator().manual_seed(3)
    input_ids = torch.randint(4, VOCABULARY, (2, 9), generator=draw)
    attention_mask = torch.ones_like(input_ids)
    padded = slice(0, 3) if is_decoder_only(model) else slice(6, 9)
    attention_mask[1, padded] = 0
    input_ids = input_ids * attention_mask
    batch = {"input_ids": input_ids, "attention_mask": attention_mask}
    if model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = torch.randint(4, VOCABULARY, (2, 5), generator=draw)
    if is_decoder_only(model):
        batch["position_ids"] = (attention_mask.cumsum(-1) - 1).clamp(min=0)
    return batch


def is_decoder_only(model: PreTrainedModel) -> bool:
    """Whether the model is a causal language model."""
    return type(model).__name__.endswith(("ForCausalLM", "LMHeadModel"))
