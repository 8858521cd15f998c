"""The speed benchmark: its contenders are what they say, its numbers are what they say, and it goes on where it was."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
import torch

from apt_core.errors import AptValueError
from benchmarks import contenders, speed, speed_cells, speed_copies, speed_padding, speed_page, startup
from benchmarks.contenders import (
    BACKBONE,
    HIDDEN,
    PEFT,
    PER_POSITION,
    STATIC,
    backbone,
    batch_of,
    builders,
    prepared,
    pruned_lengths,
    twin,
)
from benchmarks.results_file import alone
from benchmarks.speed_cell import summary, timed
from benchmarks.speed_cells import CELLS, Cell
from benchmarks.speed_goals import goals

TRAINING, DECODING = Cell("MiniLM", "training without dropout", 20), Cell("small Llama", "decoding", 20)
SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 12}


@pytest.fixture(autouse=True)
def small_backbones(monkeypatch):
    """The same cells, in a size that takes no time."""
    for name, size in speed_cells.SIZES.items():
        shape = {**size.settings, **SMALL, **({"num_attention_heads": 8} if size.is_decoder else {})}
        monkeypatch.setitem(speed_cells.SIZES, name, size._replace(settings=shape, batch=2, length=12))
    for module in (contenders, speed_copies):
        monkeypatch.setattr(module, "CACHE", 2000)


@pytest.mark.parametrize("key", [key for key, cell in CELLS.items() if cell.num_virtual_tokens == 20])
def test_every_contender_of_a_cell_can_be_built_and_run(key):
    cell = CELLS[key]
    model = backbone(cell)
    for name, build in builders(cell).items():
        run = prepared(build, twin(model), cell)
        run()
        assert run() is None or cell.mode == "inference", name


def test_twin_shares_the_weights_but_for_the_head():
    model = backbone(TRAINING)
    again = twin(model)
    assert again.bert.embeddings.word_embeddings.weight is model.bert.embeddings.word_embeddings.weight
    assert again.classifier.weight is not model.classifier.weight


@pytest.mark.parametrize("build", [contenders.frozen, contenders.apt], ids=["backbone", "prefix"])
def test_gradients_of_the_frozen_backbone_end_where_those_of_a_prefix_do(build):
    module = build(backbone(TRAINING), TRAINING)
    layers = next(each for each in module.modules() if hasattr(each, "encoder")).encoder.layer
    entered, attended = [], []
    layers[0].register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    layers[0].attention.self.register_forward_hook(lambda _, given, output: attended.append(output[0]))
    output = module(**batch_of(TRAINING))
    attended[0].retain_grad()
    output.loss.backward()
    assert attended[0].grad.abs().sum() > 0
    assert not entered[0].requires_grad


def test_nothing_but_the_head_of_the_frozen_backbone_is_trained():
    model = contenders.frozen(backbone(TRAINING), TRAINING)
    model(**batch_of(TRAINING)).loss.backward()
    assert {name for name, each in model.named_parameters() if each.grad is not None} == {
        "classifier.weight",
        "classifier.bias",
    }


@pytest.mark.parametrize("cell", [TRAINING, Cell("small Llama", "training", 20)])
def test_p_tuning_scheme_gives_what_peft_gives(cell):
    model = backbone(cell)
    batch = batch_of(cell)
    ours, peft = (builders(cell)[name](twin(model), cell).eval() for name in (contenders.P_TUNING, PEFT))
    ours.table.weight.data.copy_(peft.prompt_encoder["default"].embedding.weight)
    if not cell.size.is_decoder:
        peft.base_model.classifier.modules_to_save["default"].load_state_dict(ours.model.classifier.state_dict())
    torch.testing.assert_close(ours(**batch).logits, peft(**batch).logits)


def test_pruned_lengths_sum_to_the_part_of_the_total():
    lengths = pruned_lengths(TRAINING, 4)
    assert sum(lengths) == 20 * TRAINING.size.num_layers // 4
    deep = Cell("BERT-base", "training", 100)
    assert sum(pruned_lengths(deep, 2)) == 100 * deep.size.num_layers // 2


def test_decoding_copies_no_more_than_the_backbone():
    model, chosen = backbone(DECODING), builders(DECODING)
    found = {
        (name, kind): speed_copies.copies(chosen[name](twin(model), DECODING).eval(), kind)
        for name in (BACKBONE, STATIC, PER_POSITION)
        for kind in speed_copies.CACHES
    }
    layers = DECODING.size.num_layers
    for name in (BACKBONE, STATIC, PER_POSITION):
        assert found[name, "DynamicCache"] == 2 * layers  # keys and values, copied by the cache itself
        assert found[name, "StaticCache"] == 0


def test_timed_calls_every_contender_once_a_round_and_leaves_the_first_round_out():
    calls = []
    wall, processor = timed([lambda: calls.append("a"), lambda: calls.append("b")], seconds=0, seed=0)
    assert wall.shape == processor.shape == (6, 2)
    assert [sorted(calls[start : start + 2]) for start in range(0, 14, 2)] == [["a", "b"]] * 7
    assert calls[:2] * 7 != calls  # not always in the same order
    assert (processor >= 0).all()


def test_summary_compares_within_a_round():
    names = [BACKBONE, HIDDEN, "APT, pruned to 25 %", PEFT]
    phases = np.array([1.0, 3.0, 1.0, 2.0, 5.0, 1.0])[:, None]
    wall = phases * np.array([100.0, 120.0, 104.0, 125.0])
    found = summary(TRAINING, names, wall, wall)
    assert found[HIDDEN]["ratio"] == {"median": 1.2, "low": 1.2, "high": 1.2}
    assert found[HIDDEN]["to_peft"]["median"] == 0.96
    assert found["APT, pruned to 25 %"]["gives_back"] == 0.8
    assert found["APT, pruned to 25 %"]["own_cost_ms"]["median"] == 30.0  # 20 ms in the median phase of 1.5


def test_goals_say_which_cell_missed_them():
    wall = np.array([[100.0, 106.0, 104.0, 105.0]])
    names = [BACKBONE, HIDDEN, "APT, pruned to 25 %", PEFT]
    entry = {"timing": {"contenders": summary(TRAINING, names, wall, wall)}}
    found = goals({}, {TRAINING.key: entry})
    assert [goal.held for goal in found] == [False, False, False]
    assert all(TRAINING.key in goal.reached for goal in found)
    good = {"timing": {"contenders": summary(TRAINING, names, *2 * [np.array([[100.0, 104.0, 101.0, 105.0]])])}}
    assert all(goal.held for goal in goals({}, {TRAINING.key: good}))


def test_goals_are_undecided_where_rounds_scatter_around_them():
    names = [BACKBONE, HIDDEN, "APT, pruned to 25 %", PEFT]
    wall = np.array([[100.0, 104.0, 100.5, 103.0], [100.0, 106.0, 103.0, 107.0]] * 6)
    found = goals({}, {TRAINING.key: {"timing": {"contenders": summary(TRAINING, names, wall, wall)}}})
    assert [goal.held for goal in found] == [None, None, None]
    text = speed_page.page({"speed": {"cells": {}, "machine": speed.machine(), "loads": {"a": 1.0, "b": 2.5}}})
    assert "included: 1 to 2.5.\n" in text


def answered(words: tuple[str, ...]) -> dict:
    """What a child process would have printed."""
    if words[0] == "benchmarks.peak_memory":
        return {"peak_mb": 1000.0, "over_model_mb": 100.0}
    names = [BACKBONE, contenders.ADAPTERS] if "--adapters" in words else list(builders(CELLS[words[1]]))
    wall = np.linspace(90.0, 110.0, 6 * len(names)).reshape(6, len(names))
    return {
        "rounds": 6,
        "threads": 1,
        "versions": {"transformers": "0"},
        "contenders": summary(CELLS[words[1]], names, wall, wall),
    }


def test_measuring_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    asked, out = [], tmp_path / "speed.json"

    def child(python: str, threads: int, *words: str) -> dict:
        if len(asked) == 4:
            asked.append("interrupted")
            raise KeyboardInterrupt
        asked.append((python, *words))
        return answered(words)

    monkeypatch.setattr(speed, "child", child)
    flags = ["speed", "--out", str(out), "--cells", TRAINING.key, "--adapters-python", "elsewhere"]
    monkeypatch.setattr(sys, "argv", flags)
    with suppress(KeyboardInterrupt):
        speed.main()
    kept = json.loads(out.read_text())
    assert len(kept["cells"][TRAINING.key]["memory"]) == 2
    assert list(kept["machines"]) == [TRAINING.key]
    speed.main()
    done = [each for each in asked if each != "interrupted"]
    assert len(done) == len(set(done)) == 2 + len(builders(TRAINING)) + 1  # timing here and there, memory of each
    assert [each[1] for each in done if each[0] == "elsewhere"] == ["benchmarks.speed_cell", "benchmarks.peak_memory"]
    before, kept = len(asked), out.read_bytes()
    monkeypatch.setattr(speed, "machine", lambda: {"processor": "another"})  # nothing was measured on it
    speed.main()
    assert (len(asked), out.read_bytes()) == (before, kept)
    results = {"speed": json.loads(out.read_text())}
    assert f"### {TRAINING.key}" in speed_page.page(results)


def test_without_an_interpreter_for_adapters_the_page_says_so(monkeypatch):
    monkeypatch.setattr(speed, "child", lambda python, threads, *words: answered(words))
    entry: dict = {}
    for _ in speed.measure_cell(TRAINING, entry, argparse.Namespace(threads=1, seconds=0, adapters_python=None)):
        pass
    text = speed_page.page({"speed": {"cells": {TRAINING.key: entry}, "machine": speed.machine()}})
    assert "adapters: not measured: no --adapters-python was given" in text


def test_page_can_be_written_after_every_part(monkeypatch):
    monkeypatch.setattr(speed, "child", lambda python, threads, *words: answered(words))
    arguments = argparse.Namespace(threads=1, seconds=0, adapters_python="elsewhere")
    for cell in (TRAINING, DECODING):
        entry: dict = {}
        pages = []
        for _ in speed.measure_cell(cell, entry, arguments):
            pages.append(speed_page.page({"speed": {"cells": {cell.key: entry}, "machine": speed.machine()}}))
        assert len(pages) == len(set(pages)) > 3


def test_part_that_fails_does_not_keep_the_others_from_being_measured(tmp_path, monkeypatch):
    out = tmp_path / "speed.json"

    def child(python: str, threads: int, *words: str) -> dict:
        if words[0] == "benchmarks.speed_options":
            raise speed.Failed("no C++ compiler")
        return {"measured": 1}

    monkeypatch.setattr(speed, "child", child)
    monkeypatch.setattr(sys, "argv", ["speed", "--out", str(out), "--cells", "training options", "start-up"])
    with pytest.raises(SystemExit, match=r"training options: no C\+\+ compiler"):
        speed.main()
    assert "start-up" in json.loads(out.read_text())


def test_second_call_on_the_same_results_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["speed", "--out", str(tmp_path / "speed.json"), "--cells", "start-up"])
    with alone(tmp_path / "speed.json", "out"), pytest.raises(AptValueError, match=r"out: got .* no other call"):
        speed.main()
    assert list(tmp_path.iterdir()) == []


def test_parts_measured_elsewhere_are_told(monkeypatch):
    here = speed.machine()
    old = {**here, "date": "2025-01-01", "processor": "another"}
    text = speed_page.page({"speed": {"cells": {}, "machine": here, "machines": {"padding": old, "recording": here}}})
    assert "\npadding: 2025-01-01, another, " in text
    assert "recording:" not in text


def test_padding_counts_what_a_batch_computes():
    lengths = np.array([2, 9, 3, 8, 1])
    assert speed_padding.computed(lengths, np.arange(5), 2) == 9 * 2 + 8 * 2 + 1
    assert speed_padding.computed(lengths, np.array([1, 3, 2, 0, 4]), 2) == 9 * 2 + 3 * 2 + 1


def test_help_of_the_command_line_loads_nothing_large():
    (words,) = startup.COMMANDS.values()
    printed = subprocess.run([sys.executable, "-X", "importtime", *words], capture_output=True, text=True, check=True)
    loaded = {package for _, package in startup.IMPORT_LINE.findall(printed.stderr)}
    assert "pydantic" in loaded
    assert not loaded & {"torch", "transformers", "scipy", "numpy", "tqdm", "streamlit"}


def test_page_is_what_the_results_say(monkeypatch):
    """If this fails: ``python -m benchmarks.speed``."""
    monkeypatch.undo()  # the cells in their real sizes
    assert speed_page.PAGE.read_text(encoding="utf-8") == speed_page.page(speed_page.read_results())
