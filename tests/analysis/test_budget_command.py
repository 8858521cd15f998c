"""``python -m analysis budget``: what it prints and writes, and ``retrain --budget`` with it."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from analysis.__main__ import app
from analysis.audit import audit_run
from analysis.budgets import allocate
from analysis.runs import open_run
from apt_core.budget_file import chosen_lengths, read_budget
from apt_core.command_line import run_typer
from apt_core.inference_format import INFERENCE_FILE
from apt_core.measure_format import MEASURES_FILE, read_measures, write_measures
from apt_core.run_format import ADAPTER_FILE, ADAPTER_FOLDER
from tests.analysis.simulated_measures import simulate

EFFECTS = np.arange(1.0, 7)[:, None] + np.random.default_rng(0).uniform(0, 0.5, (6, 16))
EFFECTS /= EFFECTS.sum()


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs ``python -m analysis budget`` in-process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["program", "budget", *words])
        with pytest.raises(SystemExit) as ending:
            run_typer(app)
        captured = capsys.readouterr()
        return ending.value.code, captured.out, captured.err

    return run


@pytest.fixture
def run(record_run, tmp_path) -> Path:
    """A run that was measured token by token, its true effects known."""
    folder = record_run(tmp_path / "run", steps=20, data_hash="data")
    (folder / ADAPTER_FOLDER).mkdir()
    (folder / ADAPTER_FOLDER / ADAPTER_FILE).write_bytes(b"adapter")
    measures = simulate(list(EFFECTS), tokens=True, noise=0, num_examples=40)
    measures.adapter_sha256 = hashlib.sha256(b"adapter").hexdigest()
    write_measures(folder, measures)
    return folder


def test_json_holds_what_it_always_held_and_what_the_budget_rests_on(call, run):
    code, out, err = call(
        "run", "--total", "40", "--method", "topk", "--importance", "norm", "--min-per-layer", "0,1,2,3,4,4",
        "--max-per-layer", "12", "--multiple-of", "2", "--lock", "1=3,6=5", "--json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    printed = json.loads(out)
    assert {name: printed[name] for name in ("total", "method", "run", "min_per_layer", "max_per_layer")} == {
        "total": 40,
        "method": "topk",
        "run": "run",
        "min_per_layer": [0, 1, 2, 3, 4, 4],
        "max_per_layer": 12,
    }
    assert sum(printed["prefix_lengths"]) == 40
    assert (printed["prefix_lengths"][0], printed["prefix_lengths"][5]) == (3, 5)
    assert (printed["importance"], printed["multiple_of"], printed["locks"]) == ("norm", 2, {"1": 3, "6": 5})
    assert printed["constraint"] == {"limit": "total", "amount": 40.0, "relative": False}
    assert printed["source"]["name"] == "run"
    assert printed["source"]["data_hash"] == "data"
    assert printed["source"]["adapter_sha256"] == hashlib.sha256(b"adapter").hexdigest()
    assert printed["evidence"]["verdict"] in ("follow the gates", "follow with care", "do not follow")
    assert printed["evidence"]["numbers"]["thresholds"]


def test_file_is_what_retrain_takes(call, run):
    code, out, _ = call("run", "--tolerance", "5%", "--out", "budget.json")
    assert code == 0
    assert out.splitlines()[-1] == "  python -m apt_core retrain run --budget budget.json"
    said: list[str] = []
    lengths = chosen_lengths(run, None, Path("budget.json"), said.append)
    assert said == []
    found = read_budget(Path("budget.json"))
    assert tuple(found.prefix_lengths) == lengths == allocate(EFFECTS, found.total, "topk").prefix_lengths
    assert (found.method, found.constraint.amount, found.constraint.relative) == ("pareto", 5, True)
    assert "Predicted loss" in found.notes[0]
    code, _, err = call("run", "--total", "4", "--out", "budget.json")
    assert (code, "which exists; accepted: a new file" in err) == (2, True)


def test_text_says_method_weights_notes_and_verdict(call, run):
    _, out, _ = call("run", "--total", "24", "--method", "greedy")
    assert "weights: measured effect, each virtual token left out, validation data" in out
    assert "effect (nats)" in out
    assert "\naudit: " in out
    _, out, _ = call("run", "--coverage", "50")
    assert "Each layer keeps at least" in out


def test_run_that_was_not_measured_says_so_and_names_the_command(call, run):
    (run / MEASURES_FILE).unlink()
    _, out, _ = call("run", "--total", "24")
    assert "audit: not measured; 'python -m apt_core measure run' does it." in out
    printed = json.loads(call("run", "--total", "24", "--json")[1])
    assert (printed["evidence"], printed["importance_source"]) == (None, "from the recorded gates")
    code, _, err = call("run", "--total", "24", "--method", "greedy")
    assert (code, "'python -m apt_core measure run' does it" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "Missing option '--total', or one of --parameters, --kv-bytes, --milliseconds, --coverage, --tolerance."),
        ("--total 4 --coverage 90", "--total and --coverage: two limits; give one."),
        ("--coverage 90 --method share", "method: got 'share'; accepted: coverage"),
        ("--total 4 --lock 1", "lock: got '1'; accepted: LAYER=LENGTH"),
        ("--total 4 --lock 1=9", "The locked layers take 9 of it"),
        ("--total 50 --multiple-of 8", "the nearest are 48 and 56"),
        ("--total 4 --min-per-layer 1,1", "min-per-layer: got [1, 1]; accepted: one integer, or 6 of them"),
        ("--tolerance lots", "tolerance: got 'lots'"),
        ("--coverage 120", "coverage: got 120.0; accepted: 0 to 100 per cent"),
        ("--parameters 5", "parameters: got 5; accepted: at least 100, what the smallest possible total of 0 costs"),
        ("--kv-bytes 5", "kv-bytes: not known for this run: an older run"),
        (
            "--milliseconds 3",
            "milliseconds: not known for this run: not measured; 'python -m apt_core bench-inference' does it",
        ),
        ("--total 4 --out no/such/folder.json", "out: got 'no/such/folder.json'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(call, run, words, message):
    code, out, err = call("run", *words.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_damaged_measures_are_named(call, run):
    (run / MEASURES_FILE).write_text("{")
    code, _, err = call("run", "--total", "4")
    assert (code, "measures.json: damaged" in err) == (2, True)


@pytest.mark.parametrize(
    ("method", "missing", "left_out"),
    [
        ("greedy", "the effect of layers", {"layers": [None] * 6, "tokens": None}),
        ("pareto", "no deletion curve in an order of importance", {"curves": []}),
    ],
)
def test_measures_without_what_a_method_needs_name_the_command_with_its_cost(call, run, method, missing, left_out):
    write_measures(run, read_measures(run, [16] * 6).model_copy(update=left_out))
    code, out, err = call("run", "--total", "24", "--method", method)
    assert (code, out) == (2, "")
    assert f"{method}: {missing} was" in err
    assert "measured; 'python -m apt_core measure run --cost 0' does it." in err


def test_damaged_latencies_stop_only_a_budget_of_milliseconds(call, run):
    (run / INFERENCE_FILE).write_text("{")
    for limit, amount in (("--total", "17"), ("--parameters", "20000")):  # 1,152 for each token
        code, out, err = call("run", limit, amount, "--json")
        assert (code, json.loads(out)["total"], err.count("\n")) == (0, 17, 1)
        assert err.startswith("note: The measured latencies cannot be used: ")
        assert "inference.json: damaged" in err
    code, _, err = call("run", "--milliseconds", "3")
    assert (code, err.count("\n")) == (2, 1)
    assert "milliseconds: not known for this run: The measured latencies cannot be used" in err


def test_run_of_the_python_api_is_not_told_to_use_commands_that_refuse_it(call, record_run, tmp_path):
    record_run(tmp_path / "own", steps=3, task="", training={})
    code, out, _ = call("own", "--total", "24")
    assert code == 0
    assert "retrain it there with these lengths" in out
    assert "measure it there" in out
    assert "python -m apt_core" not in out


def test_what_is_proposed_instead_asks_for_as_much_and_by_the_same_rules(call, run, monkeypatch):
    advice = audit_run(open_run(run))._replace(use="effect")
    monkeypatch.setattr("analysis.commands.budget.audit_run", lambda opened: advice)
    _, out, _ = call("run", "--total", "52", "--lock", "1=4", "--multiple-of", "8")
    assert "analysis budget run --total 52 --importance effect --lock 1=4 --multiple-of 8" in out
    monkeypatch.setattr("analysis.commands.budget.audit_run", lambda opened: advice._replace(use="uniform"))
    _, out, _ = call("run", "--total", "52", "--lock", "1=4", "--multiple-of", "8")
    assert "uniform, as the audit says; not by your rules" in out
    _, out, _ = call("run", "--total", "24", "--method", "greedy")
    assert "as the audit says" not in out  # it does not rest on gates
