"""Adapters to and from the installed PEFT, with equal outputs."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model

from apt_core import AptConfig, AptError, get_apt_model
from apt_core.peft_adapter import export_peft, import_peft
from benchmarks.small_backbones import build

CASES = [("BERT", True), ("Llama", False), ("Qwen3", False), ("GPT-2", True)]


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


@pytest.mark.parametrize(("name", "task_type"), [("BERT", "SEQ_CLS"), ("Llama", "CAUSAL_LM"), ("GPT-2", "CAUSAL_LM")])
def test_imported_adapter_gives_equal_outputs(tmp_path, batch, name, task_type):
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
