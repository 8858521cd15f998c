"""The averages that are recorded, held against gates computed by hand."""

from __future__ import annotations

import numpy as np
import torch
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from apt_core import AptConfig, get_apt_model
from apt_core.gate_tally import GateTally


def test_average_equals_gates_computed_from_the_hidden_states(backbone, batch):
    model = get_apt_model(backbone, AptConfig(prefix_lengths=(4, 0, 2)))
    hidden = {}
    for layer in (0, 2):
        module = model.bert.encoder.layer[layer].attention.self
        module.register_forward_hook(lambda _, args, __, layer=layer: hidden.setdefault(layer, args[0]))
    with torch.no_grad():
        model.prefixes[2].layer_scale.weight.fill_(-1.5)
        with GateTally(model, training=False) as tally:
            model(**batch)
            averages = tally.average()
        for layer in (0, 2):
            expected = torch.sigmoid(hidden[layer][:, 0] @ model.prefixes[layer].token_gate.weight.T)
            length = expected.shape[1]
            np.testing.assert_allclose(averages.token_gate[layer, :length], expected.mean(0), rtol=1e-6)
            np.testing.assert_allclose(
                averages.token_gate_std[layer, :length], expected.std(0, correction=0), rtol=1e-4, atol=1e-8
            )
    assert np.isnan(averages.token_gate[1]).all()
    assert np.isnan(averages.token_gate[2, 2:]).all()
    np.testing.assert_array_equal(averages.layer_scale, [1.0, np.nan, -1.5])


def test_average_runs_over_all_passes_of_a_step(backbone, batch):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2))
    halves = [{name: value[index : index + 1] for name, value in batch.items()} for index in (0, 1)]
    with torch.no_grad(), GateTally(model, training=False) as tally:
        model(**batch)
        whole = tally.average()
        for half in halves:
            model(**half)
        parts = tally.average()
    np.testing.assert_allclose(parts.token_gate, whole.token_gate, atol=1e-6)
    np.testing.assert_allclose(parts.token_gate_std, whole.token_gate_std, atol=1e-6)


def test_passes_of_the_other_mode_are_not_collected(backbone, batch):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2))
    with torch.no_grad(), GateTally(model, training=True) as tally:
        model.eval()(**batch)
        assert np.isnan(tally.average().token_gate).all()
        model.train()(**batch)
        assert not np.isnan(tally.average().token_gate).any()


def test_without_token_gates_the_recorded_gate_is_one(backbone, batch):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2, token_gate="none", layer_scale=False))
    with torch.no_grad(), GateTally(model, training=False) as tally:
        model(**batch)
        averages = tally.average()
    assert (averages.token_gate == 1).all()
    assert (averages.token_gate_std == 0).all()
    assert (averages.layer_scale == 1).all()


def test_closed_tally_leaves_no_hook(backbone):
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2))
    GateTally(model, training=True).close()
    assert not any(prefix.token_gate._forward_hooks for prefix in model.prefixes)


def test_per_position_gates_are_averaged_over_real_positions_only():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    model = get_apt_model(LlamaForCausalLM(config).eval(), AptConfig(num_virtual_tokens=2, gate_init_std=1.0))
    input_ids = torch.randint(3, 50, (2, 7))
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, :4] = 0
    gates = {}
    for layer, prefix in enumerate(model.prefixes):
        prefix.token_gate.register_forward_hook(lambda _, __, output, layer=layer: gates.setdefault(layer, output))
    with torch.no_grad(), GateTally(model, training=False) as tally:
        model(input_ids=input_ids, attention_mask=attention_mask)
        averages = tally.average()
    for layer in (0, 1):
        real = gates[layer][attention_mask.bool()]
        assert real.shape == (10, 2)
        np.testing.assert_allclose(averages.token_gate[layer], real.mean(0), rtol=1e-5)
        np.testing.assert_allclose(averages.token_gate_std[layer], real.std(0, correction=0), rtol=1e-4)
    with torch.no_grad(), GateTally(model, training=False, per_sequence=True) as tally:
        model(input_ids=input_ids, attention_mask=attention_mask)
        (rows, _) = tally.take()
    torch.testing.assert_close(rows[1], gates[0][1, 4:].mean(0))


def test_decoder_of_a_classifier_leaves_out_the_padding_of_its_source():
    torch.manual_seed(0)
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 16}
    config = BartConfig(vocab_size=50, d_model=16, pad_token_id=1, eos_token_id=2, num_labels=3, **sizes)
    model = BartForSequenceClassification(config).eval()
    model = get_apt_model(model, AptConfig(num_virtual_tokens=2, gate_init_std=1.0))
    text = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 1, 1]])
    real = text != 1
    gates = []
    model.prefixes[1].token_gate.register_forward_hook(lambda _, __, output: gates.append(output))
    with torch.no_grad(), GateTally(model, training=False) as tally:
        model(input_ids=text, attention_mask=real.long(), labels=torch.tensor([0, 1]))
        averages = tally.average()
    assert gates[0].dim() == 3
    np.testing.assert_allclose(averages.token_gate[1], gates[0][real].mean(0), rtol=1e-5)


def test_decoder_gates_leave_out_positions_without_label():
    torch.manual_seed(0)
    config = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    model = get_apt_model(T5ForConditionalGeneration(config).eval(), AptConfig(num_virtual_tokens=2, gate_init_std=1.0))
    labels = torch.tensor([[5, 6, 7, 8], [5, 6, -100, -100]])
    gates = []
    model.prefixes[1].token_gate.register_forward_hook(lambda _, __, output: gates.append(output))
    with torch.no_grad(), GateTally(model, training=False) as tally:
        model(input_ids=torch.randint(3, 50, (2, 5)), labels=labels)
        averages = tally.average()
    np.testing.assert_allclose(averages.token_gate[1], gates[0][labels != -100].mean(0), rtol=1e-5)
