"""The card of an adapter: what it says, that the Hub can read it, and that it gives nothing away."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import BertForSequenceClassification, BertModel

from apt_core import AptConfig, AptError, AptModel, get_apt_model
from apt_core.gate_profile import BAR_CELLS, bars, gate_profile, layer_names
from apt_core.markdown import code_block, last_name, one_line, plain, public_command
from apt_core.model_card import model_card
from benchmarks.small_backbones import build

LENGTHS = (2, 0, 3)


@pytest.fixture
def model(backbone) -> AptModel:
    backbone.config.name_or_path = "google-bert/bert-base-uncased"
    return get_apt_model(backbone, AptConfig(prefix_lengths=LENGTHS))


def rows_of(card: ModelCard, heading: str) -> list[list[str]]:
    """Cells of the table under a heading, without its head."""
    part = card.content.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_card_of_a_run_has_its_results_settings_and_metadata(model, record_run, tmp_path):
    folder = record_run(
        tmp_path / "run",
        lengths=LENGTHS,
        task="copa",
        data_hash="ab" * 32,
        split_sizes={"validation": 100},
        best_step=20,
        versions={"torch": "2.13.0"},
    )
    card = model_card(model, folder, "me/copa-apt")
    assert card.data.base_model == "google-bert/bert-base-uncased"
    assert card.data.library_name == "apt-gate-studio"
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.metrics == ["accuracy"]
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.dataset_split, result.metric_value) == ("copa", "validation", 0.5)
    assert ["validation", "100", "accuracy", "0.5"] in rows_of(card, "Results")
    assert "one seed (1)" in card.content
    assert "SHA-256 abababababab." in card.content
    assert ["epochs", "2"] in rows_of(card, "Training")
    assert "torch 2.13.0" in card.content
    assert "Towards Adaptive Prefix Tuning" in card.content
    assert "at step 20" in card.content


def test_parameters_in_the_card_sum_to_the_model(model):
    rows = {part: int(count.replace(",", "")) for part, count in rows_of(model_card(model), "Parameters")}
    assert sum(rows.values()) == model.num_parameters()
    assert rows["frozen"] == model.count_parameters()["frozen"]


def test_gates_in_the_card_are_those_recorded_at_the_best_step(model, record_run, tmp_path):
    folder = record_run(tmp_path / "run", lengths=LENGTHS, best_step=20)
    rows = rows_of(model_card(model, folder), "Prefix")
    assert [row[:2] for row in rows] == [["1", "2"], ["2", "0"], ["3", "3"]]
    assert rows[1][2:] == ["", "", "", ""]
    gate, scale, weight = map(float, rows[2][2:5])
    assert gate == pytest.approx(0.2 + 0.6 * 20 / 40, abs=0.1)  # what record_run writes for the last layer
    assert scale == pytest.approx(1 + 20 / 40)
    assert weight == pytest.approx(gate * scale, abs=2e-3)
    assert rows[2][5] == "█" * BAR_CELLS


def test_static_gates_without_a_run_are_read_from_the_model(make_backbone):
    model = get_apt_model(make_backbone(), AptConfig(prefix_lengths=LENGTHS, token_gate="static", gate_init=0.25))
    with torch.no_grad():
        model.prefixes[2].layer_scale.weight.fill_(-2)
    profile = gate_profile(model, None, None)
    np.testing.assert_allclose(profile.weight, [0.25, np.nan, 0.5], rtol=1e-5)
    assert profile.has_gates


def test_hidden_gates_without_a_run_are_not_made_up(model):
    card = model_card(model)
    assert [row[2:5] for row in rows_of(card, "Prefix")] == [["", "1.000", ""], ["", "", ""], ["", "1.000", ""]]
    assert "no training was recorded with them" in card.content


def test_card_of_a_model_without_gates_says_so(make_backbone):
    model = get_apt_model(make_backbone(), AptConfig(prefix_lengths=LENGTHS, token_gate="none", layer_scale=False))
    card = model_card(model)
    assert "It has no gates." in card.content
    assert rows_of(card, "Prefix") == [["1", "2"], ["2", "0"], ["3", "3"]]


def test_kept_tokens_of_a_pruned_model_are_listed(make_backbone):
    model = get_apt_model(make_backbone(), AptConfig(prefix_lengths=LENGTHS, token_gate="static"))
    with torch.no_grad():
        model.prefixes[2].token_gate.weight.copy_(torch.tensor([1.0, -1.0, 2.0]))
    model.prune((0, 0, 2))
    assert [row[:3] for row in rows_of(model_card(model), "Prefix")][2] == ["3", "2", "0 2"]


def test_card_holds_no_local_path_and_no_host(make_backbone, record_run, tmp_path):
    home = tmp_path / "someone" / "models"
    backbone = make_backbone()
    backbone.config.name_or_path = str(home / "my-bert")
    model = get_apt_model(backbone, AptConfig(prefix_lengths=LENGTHS))
    command = f"python -m apt_core train --model {home / 'my-bert'} --data-dir={home}/data --out runs/secret/x --seed 1"
    folder = record_run(
        tmp_path / "run",
        lengths=LENGTHS,
        command=command,
        model=str(home / "my-bert"),
        data_dir=str(home / "data"),
        data={"train_file": str(home / "train.csv")},
    )
    content = model_card(model, folder).content
    assert "someone" not in content
    assert str(tmp_path) not in content
    assert "secret" not in content
    assert "python -m apt_core train --model my-bert --data-dir=data --out x --seed 1" in content
    assert "base_model" not in content
    assert re.search(r"[\s(\"'=]/\w", content) is None


@pytest.mark.parametrize(
    "name", ["a|b", "`x`\n# Heading", "---\nlicense: mit\n---", "<script>", "[a](http://b)", "{{ x }}"]
)
def test_names_that_could_break_the_card_are_shown_as_they_are(model, record_run, tmp_path, name):
    folder = record_run(tmp_path / "run", lengths=LENGTHS, task=name, labels=[name], metric_name=name, command=name)
    card = ModelCard(model_card(model, folder).content)
    assert card.data.eval_results[0].dataset_name == one_line(name)
    assert card.data.license is None
    headings = [line for line in card.content.splitlines() if line.startswith("# ")]
    assert len(headings) == 1
    assert f"Task: {plain(name)}, with the labels {plain(name)}." in card.text


def test_example_in_the_card_runs_on_a_named_and_on_a_local_backbone(backbone_folder, tmp_path, monkeypatch, capsys):
    backbone = BertForSequenceClassification.from_pretrained(backbone_folder, id2label={0: "no", 1: "yes"})
    model = get_apt_model(backbone, AptConfig(num_virtual_tokens=2))
    model.save_pretrained(tmp_path / "adapter", model_card_kwargs={"repo_id": "adapters/mine"})
    card = ModelCard.load(tmp_path / "adapter" / "README.md")
    code = re.search(r"```python\n(.*?)\n```", card.content, re.DOTALL)[1]
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapter").rename(tmp_path / "adapters" / "mine")
    (tmp_path / backbone_folder.name).symlink_to(backbone_folder)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "card", "exec"), {})
    assert capsys.readouterr().out.strip() in ("['no']", "['yes']")


def test_example_of_a_language_model_generates():
    model = get_apt_model(build("GPT-2"), AptConfig(num_virtual_tokens=2))
    content = model_card(model).content
    assert "model.generate(**inputs" in content
    assert "from transformers import AutoTokenizer, GPT2LMHeadModel" in content


def test_model_without_a_head_has_no_pipeline(make_backbone):
    card = model_card(get_apt_model(make_backbone(model_class=BertModel), AptConfig(num_virtual_tokens=2)))
    assert card.data.pipeline_tag is None


def test_layers_of_an_encoder_decoder_are_named_by_their_attention():
    assert layer_names(("encoder", "encoder", "decoder", "cross", "decoder", "cross")) == [
        "encoder 1",
        "encoder 2",
        "decoder 1",
        "cross 1",
        "decoder 2",
        "cross 2",
    ]


def test_folder_that_is_no_run_is_refused(model, tmp_path):
    with pytest.raises(AptError, match="not a run folder"):
        model_card(model, tmp_path)


def test_bars_are_relative_to_the_largest():
    assert bars(np.array([1.0, 0.5, 0.0, np.nan])) == ["█" * BAR_CELLS, "█" * (BAR_CELLS // 2), "", ""]
    assert bars(np.array([np.nan, 0.0])) == ["", ""]


@pytest.mark.parametrize(
    ("command", "public"),
    [
        (
            "python -m apt_core train --model google-bert/bert-base-uncased",
            "python -m apt_core train --model google-bert/bert-base-uncased",
        ),
        ("/usr/bin/python3 -m apt_core retrain /home/me/runs/a", "python3 -m apt_core retrain a"),
        ("python x --data-dir '/home/me/my data'", "python x --data-dir 'my data'"),
        (r"python x --out 'C:\Users\me\run' --model 'D:/models/b'", "python x --out run --model b"),
        ("python x --model ../up --train-file=~/a.csv", "python x --model up --train-file=a.csv"),
        ("python x --out runs/a --prefix-lengths 4,0,8", "python x --out a --prefix-lengths 4,0,8"),
        ("python 'unclosed", ""),
        ("", ""),
    ],
)
def test_public_command_keeps_names_and_cuts_paths(command, public):
    assert public_command(command) == public


def test_code_block_is_closed_by_its_own_fence_only():
    assert code_block("a\n```\nb", "sh") == "````sh\na\n```\nb\n````"


def test_last_name_of_paths_of_any_system():
    assert [last_name(path) for path in ("/a/b", "b/", "C:\\a\\b", "b", "")] == ["b", "b", "b", "b", ""]
