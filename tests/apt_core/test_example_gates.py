"""Token gates of single examples: what 'evaluate --token-gates' writes, and reading a file of any origin."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from apt_core import evaluate_run as evaluate_run_module
from apt_core.config import AptConfig, TrainSettings
from apt_core.errors import AptFileNotFoundError, AptValueError
from apt_core.evaluate_run import evaluate_run, load_run
from apt_core.example_gates_format import (
    MAX_BYTES,
    example_gates_path,
    examples_that_fit,
    open_example_gates,
    write_example_gates,
)
from apt_core.run_format import PREDICTIONS_FILE, read_json_lines, read_run_info
from apt_core.tasks import load_task
from apt_core.tasks.source import DataSource
from apt_core.train import TrainJob, train

LENGTHS = (3, 0, 5)


@pytest.fixture(scope="module", params=["copa", "wnut17"])
def run(request, backbone_folder, data_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / request.param
    train(
        TrainJob(
            task=request.param,
            out=folder,
            model=str(backbone_folder),
            apt=AptConfig(prefix_lengths=LENGTHS),
            training=TrainSettings(epochs=1, batch_size=8, learning_rate=0.01, device="cpu"),
            data=DataSource(data_dir=str(data_folder)),
        ),
        say=lambda _: None,
    )
    return folder


def gates_one_by_one(folder: Path, data_folder: Path) -> np.ndarray:
    """Each validation example through the model on its own, gates caught by plain hooks: [N, L, P]."""
    from apt_core.backbones import load_tokenizer
    from apt_core.tasks import family_of

    info = read_run_info(folder)
    task = load_task(info.task, DataSource(data_dir=str(data_folder)))
    tokenizer, model, family = load_tokenizer(info.model), load_run(folder).eval(), family_of(task)
    encoded, collate = family.encode(task, "validation", tokenizer, 62), family.collator(tokenizer)
    result = np.full((len(encoded), len(LENGTHS), max(LENGTHS)), np.nan, np.float32)
    for place in range(len(encoded)):
        batch = collate([{name: value for name, value in encoded[place].items() if name != "length"}])
        for layer, prefix in enumerate(model.prefixes):
            if prefix is not None:
                seen: list[torch.Tensor] = []
                handle = prefix.token_gate.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output))
                with torch.no_grad():
                    model(**batch)
                handle.remove()
                result[place, layer, : LENGTHS[layer]] = seen[0].mean(dim=0).numpy()
    return result


def test_gates_of_every_example_are_those_of_a_pass_of_its_own(run, data_folder):
    evaluate_run(run, "validation", token_gates=True)
    found = open_example_gates(run, "validation", LENGTHS)
    expected = gates_one_by_one(run, data_folder)
    rows = read_json_lines(run / PREDICTIONS_FILE)
    assert found.ids == [row["id"] for row in rows]
    assert np.ptp(expected[:, 2], axis=0).max() > 1e-4  # they do differ
    for place, row in enumerate(rows):
        gates = found.read(place)
        np.testing.assert_allclose(gates, expected[place], atol=2e-6)
        means = [np.mean(gates[layer, :length]) if length else None for layer, length in enumerate(LENGTHS)]
        assert row["layer_gates"] == [None if mean is None else pytest.approx(mean, abs=2e-6) for mean in means]


def test_without_the_option_nothing_is_written(run):
    example_gates_path(run, "test").unlink(missing_ok=True)
    evaluate_run(run, "test")
    assert not example_gates_path(run, "test").exists()


def test_missing_predictions_are_made_again_and_others_left_alone(run):
    path = run / PREDICTIONS_FILE
    before = path.read_bytes()
    path.unlink()
    evaluate_run(run, "test")
    assert not path.exists()
    evaluate_run(run, "validation")
    again = [json.loads(line) for line in path.read_bytes().splitlines()]
    for row, old in zip(again, map(json.loads, before.splitlines()), strict=True):
        assert row == {**old, "loss": pytest.approx(old["loss"], abs=2e-6), "layer_gates": pytest.approx(
            [gate if gate is not None else None for gate in old["layer_gates"]], abs=2e-6)}  # fmt: skip
    path.write_text("{}\n")
    evaluate_run(run, "validation")
    assert path.read_text() == "{}\n"
    path.write_bytes(before)


def test_examples_that_do_not_fit_are_left_out_and_said(run, monkeypatch, capsys):
    monkeypatch.setattr(evaluate_run_module, "examples_that_fit", lambda lengths: 5)
    evaluate_run(run, "validation", token_gates=True)
    assert "note: token gates of the first 5 examples only; 128 MiB hold no more" in capsys.readouterr().err
    found = open_example_gates(run, "validation", LENGTHS)
    assert found.ids == [row["id"] for row in read_json_lines(run / PREDICTIONS_FILE)][:5]


def test_examples_that_fit_stay_under_the_limit():
    count = examples_that_fit((64,) * 24)
    assert count * 2 * 24 * 64 <= MAX_BYTES < (count + 1) * 2 * 24 * 64
    assert examples_that_fit((0, 0)) > 0


@given(
    mean=st.floats(0.01, 0.99),
    spread=st.floats(0, 0.3),
    seed=st.integers(0, 10),
)
def test_what_is_read_back_is_as_exact_as_its_deviation(tmp_path_factory, mean, spread, seed):
    folder = tmp_path_factory.mktemp("gates")
    gates = np.clip(np.random.default_rng(seed).normal(mean, spread, (6, 2, 3)), 1e-3, 1 - 1e-3).astype(np.float32)
    write_example_gates(folder, "validation", [f"v-{place}" for place in range(6)], gates)
    found = open_example_gates(folder, "validation", (3, 3))
    back = np.stack([found.read(place) for place in range(6)])
    np.testing.assert_array_equal(found.read_many(2, 3), back[2:5])
    deviation = np.abs(gates - gates.mean(axis=0))
    assert (np.abs(back - gates) <= deviation * 2**-10 + 2e-7).all()


@pytest.fixture
def good(tmp_path) -> Path:
    gates = np.random.default_rng(0).random((4, 2, 3)).astype(np.float32)
    return write_example_gates(tmp_path, "validation", list("abcd"), gates)


def test_file_is_plain_safetensors(good):
    arrays = load_file(good)
    assert {name: array.shape for name, array in arrays.items() if name != "ids"} == {
        "mean": (2, 3),
        "deviation": (4, 2, 3),
    }
    assert json.loads(arrays["ids"].tobytes()) == list("abcd")


def test_file_that_is_not_there_names_the_command(tmp_path):
    with pytest.raises(AptFileNotFoundError, match=r"evaluate .* --split validation --token-gates"):
        open_example_gates(tmp_path, "validation", (3, 3))


def test_lengths_of_another_run_are_refused(good):
    with pytest.raises(AptValueError, match="do not fit the run's 2 layers x 4 virtual tokens"):
        open_example_gates(good.parent, "validation", (4, 1))


def test_link_is_refused(good):
    real = good.rename(good.with_name("real"))
    good.symlink_to(real)
    with pytest.raises(AptValueError, match="link"):
        open_example_gates(good.parent, "validation", (3, 3))


def test_file_cut_off_or_replaced_meanwhile_is_said(good):
    found = open_example_gates(good.parent, "validation", (3, 3))
    good.write_bytes(good.read_bytes()[:-40])
    with pytest.raises(AptValueError, match="cannot be read"):
        found.read(3)
    with pytest.raises(AptValueError, match="does not fit its place"):
        open_example_gates(good.parent, "validation", (3, 3))


BAD = {
    "no deviation": ({"deviation": None}, "deviation has type 'None'"),
    "float64": ({"deviation": np.zeros((4, 2, 3))}, "deviation has type 'F64'; accepted: F16"),
    "other mean": ({"mean": np.zeros((1, 3), np.float32)}, "do not fit the run's"),
    "two axes": ({"deviation": np.zeros((4, 6), np.float16)}, "do not fit the run's"),
    "ids no json": ({"ids": np.frombuffer(b"[1", np.uint8)}, "its ids are not JSON"),
    "ids too few": ({"ids": np.frombuffer(b'["a"]', np.uint8)}, "its ids are no list of 4 texts"),
    "ids numbers": ({"ids": np.frombuffer(b"[1,2,3,4]", np.uint8)}, "its ids are no list of 4 texts"),
    "ids nested": ({"ids": np.frombuffer(b"[" * 100_000, np.uint8)}, "its ids are not JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_damaged_files_are_refused_with_the_reason(good, name):
    changes, message = BAD[name]
    arrays = {**load_file(good), **changes}
    save_file({key: array for key, array in arrays.items() if array is not None}, good)
    with pytest.raises(AptValueError, match=message) as raised:
        open_example_gates(good.parent, "validation", (3, 3))
    assert str(raised.value).startswith(str(good))


@given(content=st.binary(max_size=200))
def test_anything_else_is_refused_in_words(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("bad")
    example_gates_path(folder, "validation").write_bytes(content)
    with pytest.raises(AptValueError):
        open_example_gates(folder, "validation", (3, 3))
