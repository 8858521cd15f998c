"""Prefixes on a frozen backbone, held against the frozen backbone, PEFT and the saved file."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file
from transformers import BertForMultipleChoice, BertForTokenClassification, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from apt_core import AptConfig, AptError, AptModel, get_apt_model
from apt_core.model import WEIGHTS_FILE
from benchmarks.small_backbones import build

NUM_LAYERS = 3
IMPLEMENTATIONS = ["eager", "sdpa", "flex_attention"]


def logits(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(**batch).logits


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_all_lengths_zero_equals_the_backbone_bit_for_bit(backbone, batch, implementation):
    backbone.set_attn_implementation(implementation)
    expected = logits(backbone, batch)
    model = get_apt_model(backbone, AptConfig(prefix_lengths=(0,) * NUM_LAYERS))
    assert torch.equal(logits(model, batch), expected)
    assert model.count_parameters()["prefix"] == 0


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_gates_of_one_equal_pefts_prefix_tuning(backbone, batch, implementation):
    backbone.set_attn_implementation(implementation)
    num_tokens = 5
    reference = get_peft_model(
        copy.deepcopy(backbone),
        PrefixTuningConfig(
            task_type="SEQ_CLS",
            num_virtual_tokens=num_tokens,
            num_layers=NUM_LAYERS,
            token_dim=backbone.config.hidden_size,
            num_attention_heads=backbone.config.num_attention_heads,
        ),
    )
    table = reference.prompt_encoder["default"].embedding.weight.detach()  # [P, L * 2 * H * D]
    heads = backbone.config.num_attention_heads
    vectors = table.view(num_tokens, 2 * NUM_LAYERS, heads, -1).permute(1, 2, 0, 3)  # [2 L, H, P, D]
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=num_tokens, token_gate="none"))
    with torch.no_grad():
        for layer, prefix in enumerate(model.prefixes):
            prefix.key.copy_(vectors[2 * layer])
            prefix.value.copy_(vectors[2 * layer + 1])
    shifted = {**batch, "position_ids": torch.arange(9)[None] + num_tokens}  # PEFT counts the prefix as positions
    torch.testing.assert_close(logits(model, shifted), logits(reference, batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("token_gate", ["hidden", "static", "none"])
def test_gated_prefix_equals_a_hand_written_forward(backbone, batch, token_gate):
    """One layer of attention written out, with alpha and lambda as in equations 3 and 4."""
    model = get_apt_model(backbone, AptConfig(prefix_lengths=(4, 0, 0), token_gate=token_gate))
    prefix = model.prefixes[0]
    attention = model.bert.encoder.layer[0].attention.self
    hidden = torch.randn(2, 7, 32)
    with torch.no_grad():
        prefix.layer_scale.weight.fill_(1.7)
        alpha = {
            "hidden": lambda: torch.sigmoid(hidden[:, 0] @ prefix.token_gate.weight.T),
            "static": lambda: torch.sigmoid(prefix.token_gate.weight).expand(2, -1),
            "none": lambda: torch.ones(2, 4),
        }[token_gate]()
        weight = 1.7 * alpha[:, None, :, None]

        def heads(linear):
            return linear(hidden).view(2, 7, 4, 8).transpose(1, 2)

        key = torch.cat([weight * prefix.key, heads(attention.key)], dim=2)
        value = torch.cat([weight * prefix.value, heads(attention.value)], dim=2)
        scores = heads(attention.query) @ key.transpose(2, 3) / 8**0.5
        expected = (scores.softmax(-1) @ value).transpose(1, 2).reshape(2, 7, 32)
        received = attention(hidden)[0]
    torch.testing.assert_close(received, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("token_gate", ["hidden", "static", "none"])
@pytest.mark.parametrize("layer_scale", [True, False])
def test_gradients_reach_prefix_gates_and_head_and_nothing_else(backbone, batch, token_gate, layer_scale):
    config = AptConfig(prefix_lengths=(2, 0, 3), token_gate=token_gate, layer_scale=layer_scale)
    model = get_apt_model(backbone, config)
    model.train()
    model(**batch, labels=torch.tensor([0, 2])).loss.backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == set(model.trained_state_dict())
    for name, parameter in model.trained_state_dict().items():
        assert parameter.grad.abs().sum() > 0, name
    assert any("token_gate" in name for name in reached) == (token_gate != "none")
    assert any("layer_scale" in name for name in reached) == layer_scale
    assert not any("layer.1." in name for name in reached)


def test_prefix_gradients_after_an_evaluation_forward_are_not_zero(backbone, batch):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2))
    logits(model, batch)
    model.train()
    model(**batch, labels=torch.tensor([0, 2])).loss.backward()
    assert all(prefix.key.grad.abs().sum() > 0 for prefix in model.prefixes)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_padding_does_not_change_a_sentences_output(backbone, batch, implementation):
    backbone.set_attn_implementation(implementation)
    model = get_apt_model(backbone, AptConfig(prefix_lengths=(4, 1, 0)))
    alone = {name: value[1:, :6] for name, value in batch.items()}
    torch.testing.assert_close(logits(model, batch)[1:], logits(model, alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_implementation_changed_later_is_followed_with_equal_outputs(backbone, batch, implementation):
    model = get_apt_model(backbone, AptConfig(prefix_lengths=(4, 1, 0)))
    expected = logits(model, batch)
    model.set_attn_implementation(implementation)
    torch.testing.assert_close(logits(model, batch), expected, atol=1e-4, rtol=1e-4)


def test_eager_attention_weights_show_the_virtual_tokens_in_front(backbone, batch):
    backbone.set_attn_implementation("eager")
    model = get_apt_model(backbone, AptConfig(prefix_lengths=(4, 0, 1)))
    with torch.no_grad():
        weights = model(**batch, output_attentions=True).attentions
    assert [weight.shape[-1] for weight in weights] == [9 + 4, 9, 9 + 1]


def test_deep_copy_has_prefixes_of_its_own(backbone, batch):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2))
    expected = logits(model, batch)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.prefixes[0].key.add_(3)
    assert torch.equal(logits(model, batch), expected)
    assert not torch.equal(logits(twin, batch), expected)


def test_saved_keys_are_exactly_the_trained_ones(backbone, tmp_path):
    model = get_apt_model(backbone, AptConfig(prefix_lengths=(2, 0, 3)))
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / WEIGHTS_FILE)
    expected = {"classifier.weight", "classifier.bias"}
    for layer in (0, 2):
        home = f"bert.encoder.layer.{layer}.attention.self.apt_prefix"
        expected |= {f"{home}.{part}" for part in ("key", "value", "token_gate.weight", "layer_scale.weight")}
    assert set(saved) == expected
    assert saved["bert.encoder.layer.2.attention.self.apt_prefix.key"].shape == (4, 3, 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", WEIGHTS_FILE]


def test_from_pretrained_restores_outputs(backbone, batch, tmp_path):
    frozen = copy.deepcopy(backbone)
    model = get_apt_model(backbone, AptConfig(prefix_lengths=(2, 0, 3), token_gate="static"))
    model.save_pretrained(tmp_path)
    again = AptModel.from_pretrained(tmp_path, frozen)
    assert torch.equal(logits(again, batch), logits(model, batch))
    assert again.apt_config == model.apt_config


def test_from_pretrained_without_backbone_loads_the_one_named(make_backbone, batch, tmp_path):
    folder = tmp_path / "backbone"
    make_backbone(model_class=BertForTokenClassification).save_pretrained(folder)
    model = get_apt_model(BertForTokenClassification.from_pretrained(folder), AptConfig(num_virtual_tokens=2))
    model.save_pretrained(tmp_path / "adapter")
    again = AptModel.from_pretrained(tmp_path / "adapter")
    assert isinstance(again, BertForTokenClassification)
    assert torch.equal(logits(again, batch), logits(model, batch))


def test_from_pretrained_with_other_lengths_names_the_tensor(make_backbone, backbone, tmp_path):
    get_apt_model(make_backbone(), AptConfig(num_virtual_tokens=2)).save_pretrained(tmp_path)
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=3))
    with pytest.raises(AptError, match=r"layer\.0.*apt_prefix.*got \(4, 2, 8\)"):
        model.load_trained(tmp_path)


@pytest.mark.parametrize("content", ["not json", "[]", '{"apt_config": {"token_gate": "sigmoid"}}', "{}"])
def test_from_pretrained_with_damaged_settings_raises(backbone, tmp_path, content):
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(AptError):
        AptModel.from_pretrained(tmp_path, backbone)


def test_from_pretrained_with_damaged_weights_raises(backbone, tmp_path):
    frozen = copy.deepcopy(backbone)
    get_apt_model(backbone, AptConfig(num_virtual_tokens=2)).save_pretrained(tmp_path)
    weights = tmp_path / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(AptError, match="damaged"):
        AptModel.from_pretrained(tmp_path, frozen)


def test_count_parameters_sums_to_the_whole_model(backbone):
    before = backbone.num_parameters()
    model = get_apt_model(backbone, AptConfig(prefix_lengths=(2, 0, 3)))
    counts = model.count_parameters()
    assert counts["prefix"] == 2 * (2 + 3) * 32
    assert counts["token_gate"] == (2 + 3) * 32
    assert counts["layer_scale"] == 2
    assert counts["head"] == 32 * 3 + 3
    assert counts["frozen"] == before - counts["head"]
    assert sum(counts.values()) == sum(parameter.numel() for parameter in model.parameters())


def test_multiple_choice_head_is_trained(make_backbone, batch):
    model = get_apt_model(make_backbone(model_class=BertForMultipleChoice), AptConfig(num_virtual_tokens=2))
    pairs = {name: value.view(1, 2, -1) for name, value in batch.items()}
    assert logits(model, pairs).shape == (1, 2)
    assert model.count_parameters()["head"] == 33


def test_modules_to_save_are_trained_instead_of_the_head(backbone):
    config = AptConfig(num_virtual_tokens=2, modules_to_save=("classifier", "bert.pooler"))
    model = get_apt_model(backbone, config)
    assert "bert.pooler.dense.weight" in model.trained_state_dict()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"prefix_lengths": (2, 2)}, r"prefix_lengths: got \[2, 2\]; accepted: 3 integers, one per layer"),
        ({"modules_to_save": ("nonsense",)}, r"modules_to_save: got 'nonsense'; accepted: .*classifier"),
    ],
)
def test_get_apt_model_with_settings_for_another_backbone_raises(backbone, config, message):
    with pytest.raises(AptError, match=message):
        get_apt_model(backbone, AptConfig(**config))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("BERT", AptConfig(prefix_lengths=(4, 0, 2), shift_positions=True)),
        ("T5", AptConfig(gate_pooling="first")),
    ],
)
def test_model_that_is_refused_stays_as_it_was(name, config):
    model = build(name, "sdpa")
    before = [(parameter_name, parameter.requires_grad) for parameter_name, parameter in model.named_parameters()]
    with pytest.raises(AptError, match=r"shift_positions|gate_pooling"):
        get_apt_model(model, config)
    assert [(each, parameter.requires_grad) for each, parameter in model.named_parameters()] == before
    assert isinstance(get_apt_model(model, AptConfig(num_virtual_tokens=2)), AptModel)


def test_deberta_pools_over_real_positions_only():
    """Its own mask has numbers where others have booleans."""
    model = get_apt_model(build("DeBERTa-v2"), AptConfig(num_virtual_tokens=2, gate_pooling="mean", gate_init_std=1.0))
    input_ids = torch.randint(4, 64, (1, 6), generator=torch.Generator().manual_seed(0))
    padded = torch.cat([input_ids, torch.zeros(1, 3, dtype=torch.long)], dim=1)
    with torch.no_grad():
        expected = model.eval()(input_ids=input_ids, attention_mask=torch.ones_like(input_ids)).logits
        received = model(input_ids=padded, attention_mask=(padded > 0).long()).logits
    torch.testing.assert_close(received, expected, atol=1e-5, rtol=1e-5)


def test_get_apt_model_twice_raises(backbone):
    model = get_apt_model(backbone, AptConfig())
    with pytest.raises(AptError, match="has prefixes already"):
        get_apt_model(model, AptConfig())


def test_shifted_positions_hold_while_generating_from_a_cache():
    """GPT-2 has learned positions: token by token from a cache must be what full forwards give."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=99, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=98)
    model = GPT2LMHeadModel(config).eval()
    shifted = AptConfig(num_virtual_tokens=5, token_gate="static", shift_positions=True)
    model = get_apt_model(model, shifted).eval()
    text = torch.tensor([[4, 8, 15, 16]])
    expected = text
    with torch.no_grad():
        for _ in range(6):
            best = model(input_ids=expected, use_cache=False).logits[:, -1].argmax(dim=-1)
            expected = torch.cat([expected, best[:, None]], dim=1)
        generated = model.generate(
            text, attention_mask=torch.ones_like(text), max_new_tokens=6, do_sample=False, pad_token_id=0
        )
        first = model(input_ids=text, use_cache=True)
        second = model(input_ids=expected[:, 4:5], past_key_values=first.past_key_values, use_cache=True)
        whole = model(input_ids=expected[:, :5], use_cache=False).logits[:, -1]
    assert generated.tolist() == expected.tolist()
    torch.testing.assert_close(second.logits[:, -1], whole, atol=1e-5, rtol=1e-5)
