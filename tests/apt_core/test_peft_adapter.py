"""Adapters to and from the installed PEFT, with equal outputs."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model

from apt_core import AptConfig, AptError, AptModel, get_apt_model
from apt_core.peft_adapter import export_peft, import_adapter, import_peft
from benchmarks.small_backbones import SMALL, build

CASES = [("BERT", True), ("RoBERTa", True), ("Llama", False), ("Qwen3", False), ("GPT-2", True)]


def trained(name: str, shift: bool, token_gate: str = "static") -> tuple:
    """A bare backbone, and one with a uniform prefix whose every part has been moved, as training would."""
    bare = build(name, "sdpa")
    config = AptConfig(num_virtual_tokens=3, token_gate=token_gate, shift_positions=shift)
    model = get_apt_model(copy.deepcopy(bare), config).eval()
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.trained_state_dict().values():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return bare, model


def logits(model, batch) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**batch).logits


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    input_ids = torch.randint(4, 64, (2, 8), generator=torch.Generator().manual_seed(0))
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


@pytest.mark.parametrize(("name", "shift"), CASES)
def test_exported_adapter_gives_equal_outputs_in_peft(tmp_path, batch, name, shift):
    bare, model = trained(name, shift)
    expected = logits(model, batch)
    export_peft(model, tmp_path / "peft")
    again = PeftModel.from_pretrained(bare, tmp_path / "peft")
    torch.testing.assert_close(logits(again, batch), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(logits(model, batch), expected)  # the model itself is left as it was
    assert model.apt_config.token_gate == "static"


@pytest.mark.parametrize(
    ("name", "task_type"),
    [("BERT", "SEQ_CLS"), ("RoBERTa", "SEQ_CLS"), ("Llama", "CAUSAL_LM"), ("GPT-2", "CAUSAL_LM")],
)
@pytest.mark.parametrize("padded", [False, True])
def test_imported_adapter_gives_equal_outputs(tmp_path, batch, name, task_type, padded):
    if padded:
        batch["input_ids"][1, 6:] = batch["attention_mask"][1, 6:] = 0
    bare = build(name, "sdpa")
    reference = get_peft_model(copy.deepcopy(bare), PrefixTuningConfig(task_type=task_type, num_virtual_tokens=4))
    reference.save_pretrained(tmp_path)
    model = import_peft(tmp_path, copy.deepcopy(bare))
    torch.testing.assert_close(logits(model, batch), logits(reference, batch), atol=1e-5, rtol=1e-5)
    assert model.apt_config.prefix_lengths == (4, 4, 4)


def test_there_and_back_again(tmp_path, batch):
    bare, model = trained("BERT", shift=True)
    export_peft(model, tmp_path)
    torch.testing.assert_close(logits(import_peft(tmp_path, bare), batch), logits(model, batch), atol=1e-5, rtol=1e-5)


def test_absolute_positions_that_peft_would_shift_are_refused_and_nothing_is_left(tmp_path):
    _, model = trained("BERT", shift=False)
    with pytest.raises(AptError, match=r"counts virtual tokens as positions.*shift_positions=True"):
        export_peft(model, tmp_path / "peft")
    assert not any((tmp_path / "peft").iterdir())


def test_sliding_window_that_hides_pefts_prefix_is_refused(tmp_path):
    _, model = trained("Mistral, sliding window", shift=False)
    with pytest.raises(AptError, match="leave a sliding window as text does"):
        export_peft(model, tmp_path / "peft")


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("BERT", {"token_gate": "hidden"}, "token_gate: got 'hidden'; accepted: static or none"),
        ("BERT", {"prefix_lengths": (2, 3, 2)}, r"prefix_lengths: got \[2, 3, 2\]; accepted: one length over 0"),
        ("BERT", {"prefix_lengths": (0, 0, 0)}, "prefix_lengths"),
        ("T5", {}, "accepted: an encoder or a decoder"),
        ("Gemma 4", {}, "heads of different sizes"),
    ],
)
def test_what_peft_cannot_hold_is_refused_with_the_reason(tmp_path, name, config, message):
    model = get_apt_model(build(name), AptConfig(**{"token_gate": "static", **config}))
    with pytest.raises(AptError, match=message):
        export_peft(model, tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


def test_export_into_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(AptError, match="accepted: a folder that is new or empty"):
        export_peft(trained("Llama", shift=False)[1], tmp_path)


def test_import_of_another_kind_of_adapter_is_refused(tmp_path):
    get_peft_model(build("Llama"), LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])).save_pretrained(
        tmp_path
    )
    with pytest.raises(AptError, match="peft_type: got 'LORA'; accepted: PREFIX_TUNING"):
        import_peft(tmp_path, build("Llama"))


def test_import_of_an_adapter_of_another_backbone_is_refused(tmp_path):
    reference = get_peft_model(build("GPT-2"), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    reference.save_pretrained(tmp_path)
    with pytest.raises(AptError, match=r"num_attention_heads, token_dim: got .*as LlamaForCausalLM has"):
        import_peft(tmp_path, build("Llama"))


def test_import_of_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(AptError, match="not a PEFT adapter"):
        import_peft(tmp_path, build("Llama"))


GATES = [
    ("BERT", "SEQ_CLS", {"token_gate": "static"}),
    ("BERT", "SEQ_CLS", {"token_gate": "static", "gate_init": 0.9, "layer_scale": False}),
    ("BERT", "SEQ_CLS", {"token_gate": "hidden", "gate_init": 0.8, "gate_init_std": 0.0}),
    ("BERT", "SEQ_CLS", {"token_gate": "none"}),
    ("Llama", "CAUSAL_LM", {"token_gate": "static", "gate_init": 0.7}),
    ("Llama", "CAUSAL_LM", {"token_gate": "hidden", "gate_init_std": 0.0}),
]


def saved_by_peft(folder, name: str, task_type: str, **settings) -> tuple:
    """A bare backbone, and PEFT's model on a copy of it, which is saved too."""
    bare = build(name, "sdpa")
    config = PrefixTuningConfig(task_type=task_type, num_virtual_tokens=4, **settings)
    reference = get_peft_model(copy.deepcopy(bare), config)
    reference.save_pretrained(folder)
    return bare, reference


@pytest.mark.parametrize(("name", "task_type", "config"), GATES)
def test_imported_adapter_with_gates_on_top_starts_with_equal_outputs(tmp_path, batch, name, task_type, config):
    bare, reference = saved_by_peft(tmp_path, name, task_type)
    model = import_peft(tmp_path, bare, AptConfig(**config))
    torch.testing.assert_close(logits(model, batch), logits(reference, batch), atol=1e-5, rtol=1e-5)
    assert model.apt_config.token_gate == config["token_gate"]
    assert model.apt_config.prefix_lengths == (4, 4, 4)
    gates = [parameter for part, parameter in model.trained_state_dict().items() if "token_gate" in part]
    assert bool(gates) == (config["token_gate"] != "none")


def test_imported_adapter_with_hidden_gates_starts_near_pefts_outputs(tmp_path, batch):
    bare, reference = saved_by_peft(tmp_path, "BERT", "SEQ_CLS")
    torch.manual_seed(0)
    model = import_peft(tmp_path, bare, AptConfig(token_gate="hidden", gate_init_std=0.001))
    torch.testing.assert_close(logits(model, batch), logits(reference, batch), atol=1e-2, rtol=1e-2)
    assert not torch.allclose(logits(model, batch), logits(reference, batch), atol=1e-6)


def test_adapter_with_a_projection_is_imported_by_its_result(tmp_path, batch):
    bare, reference = saved_by_peft(tmp_path, "BERT", "SEQ_CLS", prefix_projection=True, encoder_hidden_size=24)
    model = import_peft(tmp_path, bare, AptConfig(token_gate="static"))
    torch.testing.assert_close(logits(model, batch), logits(reference, batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"prefix_lengths": (4, 4, 3)}, r"prefix_lengths: got \[4, 4, 3\]; accepted: 4 for every layer"),
        ({"num_virtual_tokens": 5}, "num_virtual_tokens: got 5; accepted: 4"),
        ({"prefix_projection": True}, "prefix_projection: got True"),
        ({"shift_positions": False}, "shift_positions: got False; accepted: True: the backbone's positions are absol"),
    ],
)
def test_import_with_settings_that_contradict_the_adapter_is_refused(tmp_path, config, message):
    bare, _ = saved_by_peft(tmp_path, "BERT", "SEQ_CLS")
    with pytest.raises(AptError, match=message):
        import_peft(tmp_path, bare, AptConfig(**config))


def test_head_of_another_task_is_left_fresh_with_a_config_and_refused_without(tmp_path, batch):
    bare, _ = saved_by_peft(tmp_path, "BERT", "SEQ_CLS")
    bare.classifier = torch.nn.Linear(32, 5)
    bare.config.num_labels = bare.num_labels = 5
    before = bare.classifier.weight.detach().clone()
    said = []
    model = import_peft(tmp_path, copy.deepcopy(bare), AptConfig(token_gate="static"), say=said.append)
    assert torch.equal(model.classifier.weight, before)
    assert model.classifier.weight.requires_grad
    assert logits(model, batch).shape == (2, 5)
    assert len(said) == 1
    assert "classifier: got {'classifier.bias': (2,)" in said[0]
    with pytest.raises(AptError, match=r"classifier: got .* accepted: an adapter for this head"):
        import_peft(tmp_path, bare)


@pytest.mark.parametrize(
    ("name", "task_type", "settings"),
    [("BERT", "SEQ_CLS", {}), ("Llama", "CAUSAL_LM", {}), ("BERT", "SEQ_CLS", {"prefix_projection": True})],
)
def test_import_adapter_writes_one_of_ours_with_equal_outputs(tmp_path, batch, name, task_type, settings):
    bare = build(name, "sdpa")
    (bare if task_type == "CAUSAL_LM" else bare.base_model).save_pretrained(tmp_path / "backbone")  # without the head
    bare.name_or_path = str(tmp_path / "backbone")
    config = PrefixTuningConfig(task_type=task_type, num_virtual_tokens=4, **settings)
    reference = get_peft_model(bare, config)
    reference.save_pretrained(tmp_path / "peft")
    said = []
    import_adapter(tmp_path / "peft", tmp_path / "ours", say=said.append)
    again = AptModel.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(logits(again, batch), logits(reference, batch), atol=1e-5, rtol=1e-5)
    assert len(said) == 1
    assert "outputs equal PEFT's" in said[0]


def test_import_adapter_takes_the_number_of_labels_from_the_head(tmp_path, batch):
    config = transformers.BertConfig(**SMALL, num_labels=7)
    bare = transformers.BertForTokenClassification(config).eval()
    bare.base_model.save_pretrained(tmp_path / "backbone")
    reference = get_peft_model(bare, PrefixTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=2))
    reference.save_pretrained(tmp_path / "peft")
    import_adapter(tmp_path / "peft", tmp_path / "ours", model=str(tmp_path / "backbone"))
    again = AptModel.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(logits(again, batch), logits(reference, batch), atol=1e-5, rtol=1e-5)


def test_import_adapter_says_what_neither_side_holds_and_keeps_it(tmp_path, batch):
    saved_by_peft(tmp_path / "peft", "BERT", "SEQ_CLS")
    transformers.BertModel(transformers.BertConfig(**SMALL), add_pooling_layer=False).save_pretrained(
        tmp_path / "other"
    )
    said = []
    import_adapter(tmp_path / "peft", tmp_path / "ours", model=str(tmp_path / "other"), say=said.append)
    assert "holds bert.pooler.dense: it has random values" in said[0]
    first, second = (logits(AptModel.from_pretrained(tmp_path / "ours"), batch) for _ in range(2))
    assert torch.equal(first, second)


def test_import_adapter_that_names_no_backbone_asks_for_it(tmp_path):
    saved_by_peft(tmp_path / "peft", "BERT", "SEQ_CLS")
    with pytest.raises(AptError, match=r"model: got None.*Add --model"):
        import_adapter(tmp_path / "peft", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_import_adapter_on_another_backbone_is_refused_and_nothing_is_left(tmp_path):
    saved_by_peft(tmp_path / "peft", "BERT", "SEQ_CLS")
    config = transformers.BertConfig(**{**SMALL, "num_hidden_layers": 2})
    transformers.BertModel(config).save_pretrained(tmp_path / "other")
    with pytest.raises(AptError, match=r"num_layers, .*got \(3, 4, 32\); accepted: \(2, 4, 32\)"):
        import_adapter(tmp_path / "peft", tmp_path / "ours", model=str(tmp_path / "other"))
    assert not (tmp_path / "ours").exists()


def test_import_of_an_encoder_decoder_adapter_is_refused(tmp_path):
    bare, _ = saved_by_peft(tmp_path, "T5", "SEQ_2_SEQ_LM")
    with pytest.raises(AptError, match="num_transformer_submodules: got 2; accepted: 1"):
        import_peft(tmp_path, bare)


@pytest.mark.parametrize(("task_type", "name"), [("FEATURE_EXTRACTION", "BERT"), (None, "BERT")])
def test_import_adapter_of_another_task_type_is_refused(tmp_path, task_type, name):
    saved_by_peft(tmp_path / "peft", name, "SEQ_CLS")
    path = tmp_path / "peft" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "task_type": task_type}))
    with pytest.raises(AptError, match=r"task_type: got .*accepted: SEQ_CLS, TOKEN_CLS, CAUSAL_LM"):
        import_adapter(tmp_path / "peft", tmp_path / "ours")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("adapter_config.json", b"not json"),
        ("adapter_config.json", b"[]"),
        ("adapter_config.json", b'{"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4}'),
        ("adapter_model.safetensors", b"\0" * 40),
    ],
)
def test_import_of_a_damaged_adapter_is_refused(tmp_path, file, content):
    bare, _ = saved_by_peft(tmp_path, "BERT", "SEQ_CLS")
    (tmp_path / file).write_bytes(content)
    with pytest.raises(AptError, match=r"damaged|accepted"):
        import_peft(tmp_path, bare)
