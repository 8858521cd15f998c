"""Every architecture of ``benchmarks.architectures`` under every attention implementation; and those in no list."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
import transformers
from transformers import GenerationConfig, StaticCache

from apt_core import AptConfig, AptError, get_apt_model
from benchmarks.architectures import CHECKS, TOLERANCE, difference, logits
from benchmarks.small_backbones import ARCHITECTURES, batch_of, build, is_decoder_only, with_prefixes

EXACT = {"lengths 0 = backbone": 0.0, "gradients": 0.0}
DECODERS = [name for name in ARCHITECTURES if ARCHITECTURES[name][0].endswith(("ForCausalLM", "LMHeadModel"))]
ENCODER_DECODERS = ["T5", "BART"]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_is_right(name, implementation, check):
    measured = CHECKS[check](name, implementation)
    if measured is None:
        assert check in ("cached = full", "no leak")
        assert name not in (*DECODERS, *ENCODER_DECODERS)
    else:
        assert measured <= EXACT.get(check, TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["BERT", "ModernBERT", "Llama", "Mistral, sliding window", "BART"])
@pytest.mark.parametrize("check", ["lengths 0 = backbone", "= eager", "cached = full", "no leak"])
def test_architecture_is_right_with_flex_attention(name, check):
    assert (CHECKS[check](name, "flex_attention") or 0.0) <= EXACT.get(check, TOLERANCE)


@pytest.mark.parametrize("token_gate", ["static", "none"])
@pytest.mark.parametrize("name", ["BERT", "Llama", "Mistral, sliding window", "T5", "GPT-2"])
def test_prefixes_without_hidden_gates_are_equal_under_eager_and_sdpa(name, token_gate):
    """These are concatenated, hidden gates of decoders are not: both paths see causal, windowed and biased masks."""
    model = with_prefixes(name, "eager", token_gate)
    batch = batch_of(model)
    expected = logits(model, batch)
    model.set_attn_implementation("sdpa")
    real = batch["attention_mask"].bool() if is_decoder_only(model) else slice(None)
    assert difference(expected[real], logits(model, batch)[real]) < TOLERANCE


@pytest.mark.parametrize("token_gate", ["hidden", "static"])
@pytest.mark.parametrize("name", DECODERS)
def test_causal_attention_without_a_mask_is_aligned_to_the_last_key(name, token_gate):
    """sdpa's own causal mask is top-left: with a prefix in front it would hide the present."""
    eager, sdpa = (with_prefixes(name, implementation, token_gate) for implementation in ("eager", "sdpa"))
    batch = {"input_ids": batch_of(eager)["input_ids"][:1]}
    assert difference(logits(eager, batch), logits(sdpa, batch)) < TOLERANCE


@pytest.mark.parametrize("token_gate", ["hidden", "static"])
@pytest.mark.parametrize("name", ["GPT-2", "Llama", "Mistral, sliding window"])
def test_split_and_concatenated_paths_give_equal_outputs_and_gradients(name, token_gate, monkeypatch):
    """The same static prefix through both; and the fused path with per-position gates against the one written out."""
    from apt_core import attention, split

    def outputs_and_gradients():
        model = with_prefixes(name, "sdpa", token_gate)
        output = model(**batch_of(model)).logits
        output.pow(2).mean().backward()
        return output, [parameter.grad for parameter in model.trained_state_dict().values()]

    expected, expected_gradients = outputs_and_gradients()
    if token_gate == "hidden":
        monkeypatch.setattr(split, "_can_fuse", lambda *_: False)
    else:
        monkeypatch.setattr(attention, "concatenated_attention", split.split_attention)
    received, gradients = outputs_and_gradients()
    torch.testing.assert_close(received, expected, atol=1e-4, rtol=1e-4)
    for one, other in zip(expected_gradients, gradients, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", [*DECODERS, *ENCODER_DECODERS])
def test_generate_with_cache_equals_generate_without(name, beams):
    """Greedily and with beams, in a padded batch (decoders on the left)."""
    model = with_prefixes(name, "sdpa")
    batch = {key: value for key, value in batch_of(model).items() if key in ("input_ids", "attention_mask")}
    settings = GenerationConfig(
        max_new_tokens=6,
        num_beams=beams,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
        decoder_start_token_id=model.config.decoder_start_token_id if name in ENCODER_DECODERS else None,
    )
    texts = [
        model.generate(**batch, generation_config=copy.deepcopy(settings), use_cache=use_cache)
        for use_cache in (True, False)
    ]
    assert torch.equal(*texts)


@pytest.mark.parametrize("name", ["Llama", "GPT-2"])
def test_static_cache_gives_what_no_cache_gives(name):
    model = with_prefixes(name, "sdpa")
    input_ids = batch_of(model)["input_ids"][:1]
    expected = logits(model, {"input_ids": input_ids})
    cache = StaticCache(config=model.config, max_cache_len=20)
    with torch.no_grad():
        first = model(input_ids=input_ids[:, :6], past_key_values=cache, use_cache=True).logits
        rest = [
            model(input_ids=input_ids[:, position : position + 1], past_key_values=cache, use_cache=True).logits
            for position in range(6, input_ids.shape[1])
        ]
    assert difference(expected, torch.cat([first, *rest], dim=1)) < TOLERANCE


def test_long_cache_is_decoded_through_the_split_path_with_equal_outputs():
    """From LONG_CACHE keys on, a static gate too is merged and not prepended, so that the cache is not copied."""
    from apt_core.attention import LONG_CACHE

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=60, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    model = get_apt_model(transformers.LlamaForCausalLM(config).eval(), AptConfig(token_gate="static"))
    input_ids = torch.randint(3, 60, (1, LONG_CACHE + 4))
    expected = logits(model, {"input_ids": input_ids})
    with torch.no_grad():
        past = model(input_ids=input_ids[:, :-3], use_cache=True).past_key_values
        steps = [
            model(input_ids=input_ids[:, position : position + 1], past_key_values=past, use_cache=True).logits
            for position in range(LONG_CACHE + 1, LONG_CACHE + 4)
        ]
    assert difference(expected[:, -3:], torch.cat(steps, dim=1)) < TOLERANCE


@pytest.mark.parametrize("name", ["BERT", "Llama"])
def test_two_threads_with_different_batches_do_not_mix(name):
    model = with_prefixes(name, "sdpa")
    batch = batch_of(model)
    singles = [{key: value[row : row + 1] for key, value in batch.items()} for row in (0, 1)]
    expected = [logits(model, single) for single in singles]
    wrong: list[float] = []

    def work(row: int) -> None:
        for _ in range(20):
            wrong.append(difference(expected[row], logits(model, singles[row])))

    threads = [threading.Thread(target=work, args=(row,)) for row in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(wrong) < TOLERANCE


@pytest.mark.parametrize("name", ["BERT", "Llama"])
def test_gradient_checkpointing_gives_the_same_gradients(name):
    gradients = []
    for checkpointing in (False, True):
        model = with_prefixes(name, "sdpa")
        if checkpointing:
            newer = getattr(model, "activation_checkpointing_enable", None)  # the name since a transformers after 5.17
            (newer or model.gradient_checkpointing_enable)({"use_reentrant": False})
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.train()
        model(**batch_of(model)).logits.pow(2).sum().backward()
        gradients.append([parameter.grad for parameter in model.trained_state_dict().values()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["BERT", "Llama", "T5", "DeBERTa-v2"])
def test_bfloat16_backbone_with_float32_prefixes_stays_close(name):
    model = with_prefixes(name, "sdpa")
    batch = batch_of(model)
    expected = logits(model, batch)
    prefixes = {
        parameter_name: value
        for parameter_name, value in model.trained_state_dict().items()
        if "apt_" in parameter_name
    }
    model.to(torch.bfloat16)
    for parameter_name, value in prefixes.items():
        model.get_parameter(parameter_name).data = value.data.float()
    received = logits(model, batch)
    assert received.dtype == torch.bfloat16
    real = batch["attention_mask"].bool() if is_decoder_only(model) else slice(None)
    assert difference(expected[real], received.float()[real]) < 0.5


def test_autocast_trains():
    model = with_prefixes("BERT", "sdpa").train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**batch_of(model), labels=torch.tensor([0, 1])).loss
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.trained_state_dict().values())


@pytest.mark.parametrize("kinds", [("encoder",), ("decoder",), ("cross",), ("encoder", "cross")])
@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_attention_of_an_encoder_decoder_is_selectable(name, kinds):
    model = get_apt_model(build(name), AptConfig(num_virtual_tokens=2, attention=kinds))
    assert set(model._apt_kinds) == set(kinds)
    assert len(model.prefixes) == 2 * len(kinds)


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_gate_per_sequence_on_a_causal_model_is_refused(pooling):
    with pytest.raises(AptError, match=f"gate_pooling: got '{pooling}'; accepted: per-position or auto.*leak"):
        get_apt_model(build("Llama"), AptConfig(gate_pooling=pooling))


@pytest.mark.parametrize("pooling", ["first", "mean", "per-position"])
def test_encoder_gates_pool_as_asked_and_ignore_padding(pooling):
    model = with_prefixes("BERT", "sdpa", gate_pooling=pooling)
    batch = batch_of(model)
    alone = {key: value[1:, :6] for key, value in batch.items()}
    assert difference(logits(model, batch)[1:], logits(model, alone)) < TOLERANCE


def test_attention_that_the_backbone_lacks_is_refused():
    with pytest.raises(AptError, match=r"attention: got \['cross'\]; accepted: one or more of .*: encoder"):
        get_apt_model(build("BERT"), AptConfig(attention=("cross",)))


SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}


@pytest.mark.parametrize(
    ("model_class", "config_class", "settings"),
    [
        ("Phi3ForCausalLM", "Phi3Config", SMALL),
        ("OlmoForCausalLM", "OlmoConfig", SMALL),
        ("StableLmForCausalLM", "StableLmConfig", SMALL),
        ("GraniteForCausalLM", "GraniteConfig", SMALL),
        ("OPTForCausalLM", "OPTConfig", {**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    ],
)
def test_architectures_in_no_list_work_without_a_code_change(model_class, config_class, settings):
    torch.manual_seed(0)
    known = getattr(transformers, config_class)(**settings)
    model = get_apt_model(getattr(transformers, model_class)(known).eval(), AptConfig(num_virtual_tokens=3))
    assert len(model.prefixes) == 2
    batch = {"input_ids": torch.randint(4, 64, (1, 9))}
    expected = logits(model, batch)
    model.set_attn_implementation("eager")
    assert difference(expected, logits(model, batch)) < TOLERANCE


def test_attention_that_drops_keyword_arguments_is_refused():
    """Its prefix would silently do nothing."""
    from transformers.models.llama import modeling_llama

    class DeafAttention(modeling_llama.LlamaAttention):
        def forward(self, hidden_states, position_embeddings=None, attention_mask=None, past_key_values=None, **_):
            attend = modeling_llama.ALL_ATTENTION_FUNCTIONS.get_interface(
                self.config._attn_implementation, modeling_llama.eager_attention_forward
            )
            query, key, value = (
                project(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
                for project in (self.q_proj, self.k_proj, self.v_proj)
            )
            output, weights = attend(self, query, key, value, attention_mask, scaling=self.scaling)
            return self.o_proj(output.flatten(2)), weights

    DeafAttention.forward.__globals__.setdefault("ALL_ATTENTION_FUNCTIONS", modeling_llama.ALL_ATTENTION_FUNCTIONS)
    DeafAttention.forward.__globals__.setdefault("eager_attention_forward", modeling_llama.eager_attention_forward)
    model = build("Llama")
    for layer in model.model.layers:
        layer.self_attn.__class__ = DeafAttention
    with pytest.raises(AptError, match="does not hand keyword arguments on to its attention function"):
        get_apt_model(model, AptConfig())


@pytest.mark.parametrize(
    ("model_class", "config_class", "settings"),
    [
        ("MambaForCausalLM", "MambaConfig", {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1}),
        ("ViTModel", "ViTConfig", {**SMALL, "image_size": 8, "patch_size": 4}),
    ],
)
def test_architectures_that_cannot_have_prefixes_are_refused_with_the_reason(model_class, config_class, settings):
    settings = {name: value for name, value in settings.items() if name not in ("num_key_value_heads", "vocab_size")}
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**settings))
    with pytest.raises(AptError, match=rf"model: got {model_class}, where .*accepted: a transformers text model"):
        get_apt_model(model, AptConfig())
