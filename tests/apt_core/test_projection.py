"""A prefix through a small network: PEFT's, if weights are shared, and nothing of it is left after training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import PrefixTuningConfig
from peft.tuners.prefix_tuning import PrefixEncoder

from apt_core import AptConfig, get_apt_model
from apt_core.errors import AptValueError
from apt_core.peft_adapter import export_peft

LENGTHS = (4, 0, 2)
PROJECTED = AptConfig(prefix_lengths=LENGTHS, prefix_projection=True, encoder_hidden_size=24, token_gate="static")


def logits(model, batch):
    with torch.no_grad():
        return model(**batch).logits


def test_projection_computes_what_pefts_prefix_encoder_does(make_backbone):
    """One layer of PEFT's encoder with the same weights: its embedding, its two linear maps, its order of heads."""
    torch.manual_seed(0)
    peft = PrefixEncoder(
        PrefixTuningConfig(
            task_type="SEQ_CLS",
            num_virtual_tokens=4,
            token_dim=32,
            num_layers=1,
            num_attention_heads=4,
            prefix_projection=True,
            encoder_hidden_size=24,
        )
    )
    projection = get_apt_model(make_backbone(), PROJECTED).prefixes[0].projection
    with torch.no_grad():
        projection.embedding.copy_(peft.embedding.weight)
        first, second = peft.transform[0], peft.transform[2]
        projection.transform[0].load_state_dict(first.state_dict())
        # PEFT's output is keys of all heads, then values of all heads; ours has key and value of a head side by side
        order = torch.arange(64).view(2, 4, 8).transpose(0, 1).reshape(-1)
        projection.transform[2].weight.copy_(second.weight[order])
        projection.transform[2].bias.copy_(second.bias[order])
        key, value = projection()
        expected = peft(torch.arange(4)[None]).view(4, 2, 4, 8).permute(1, 2, 0, 3)  # [2, H, P, D]
    torch.testing.assert_close(torch.stack([key, value]), expected)


def test_projection_is_trained_counted_and_gone_after_folding(backbone, batch):
    model = get_apt_model(backbone, PROJECTED)
    model.train()
    model(**batch, labels=torch.tensor([0, 1])).loss.backward()
    trained = model.trained_state_dict()
    assert all(model.get_parameter(name).grad.abs().sum() > 0 for name in trained if ".projection." in name)
    one_layer = 32 * 24 + 24 + 24 * 64 + 64
    assert model.count_parameters()["prefix"] == 6 * 32 + 2 * one_layer
    expected = logits(model.eval(), batch)
    model.fold_projection()
    torch.testing.assert_close(logits(model, batch), expected, atol=0, rtol=0)
    assert model.count_parameters()["prefix"] == 6 * 2 * 32
    assert model.apt_config.prefix_projection is False


def test_projected_prefix_is_pruned_like_a_plain_one(backbone, batch):
    model = get_apt_model(backbone, PROJECTED)
    gates = np.array([[0.1, 0.9, 0.2, 0.8], [0] * 4, [0.3, 0.6, 0, 0]])
    key, value = model.prefixes[0].keys_and_values()
    assert model.prune((2, 0, 1), gates) == ((1, 3), (), (1,))
    kept = model.prefixes[0].keys_and_values()
    torch.testing.assert_close(kept[0], key[:, [1, 3]])
    torch.testing.assert_close(kept[1], value[:, [1, 3]])


def test_projected_adapter_is_saved_and_loaded(backbone, make_backbone, batch, tmp_path):
    model = get_apt_model(backbone, PROJECTED).eval()
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, make_backbone()).eval()
    assert torch.equal(logits(again, batch), logits(model, batch))


def test_fold_gates_folds_the_projection_too(backbone, batch):
    model = get_apt_model(backbone, PROJECTED).eval()
    expected = logits(model, batch)
    model.fold_gates()
    torch.testing.assert_close(logits(model, batch), expected)
    assert not any("projection" in name for name, _ in model.named_parameters())


def test_encoder_hidden_size_without_projection_raises():
    with pytest.raises(AptValueError, match="encoder_hidden_size is the width inside the projection"):
        AptConfig(encoder_hidden_size=24)


def test_prefix_dropout_acts_in_training_only(backbone, batch):
    for module in backbone.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=4, prefix_dropout=0.5)).eval()
    assert torch.equal(logits(model, batch), logits(model, batch))
    model.train()
    torch.manual_seed(0)
    first, second = logits(model, batch), logits(model, batch)
    assert not torch.equal(first, second)
    zeros = [(model.prefixes[0](torch.zeros(1, 1, 32)).key == 0).float().mean() for _ in range(50)]
    assert torch.stack(zeros).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("token_gate", ["hidden", "static"])
def test_gates_start_at_gate_init(backbone, batch, token_gate):
    config = AptConfig(prefix_lengths=(3, 3, 3), token_gate=token_gate, gate_init=0.9, gate_init_std=0)
    model = get_apt_model(backbone, config)
    gates = model.prefixes[1].token_gate(torch.randn(2, 5, 32), None)
    torch.testing.assert_close(gates, torch.full_like(gates, 0.9))
    model.prune((2, 3, 1), np.full((3, 3), 0.5))
    assert logits(model, batch).shape == (2, 3)


def test_projected_prefix_with_dropout_is_exported_while_training(backbone, tmp_path):
    """What is written is the prefix itself, whatever mode the model is in."""
    config = AptConfig(
        num_virtual_tokens=3, prefix_projection=True, prefix_dropout=0.5, token_gate="static", shift_positions=True
    )
    model = get_apt_model(backbone, config).train()
    export_peft(model, tmp_path / "peft")
    assert model.training
    assert model.apt_config.prefix_projection
