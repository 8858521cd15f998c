"""Every control of the Budget page in Streamlit's own test runner, on measures whose truth is known."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from analysis.budgets import allocate, allocate_covering
from analysis.budgets.locks import changed_locks
from apt_core.budget_file import BudgetFile, Source, budget_text, parse_budget
from apt_core.inference_format import INFERENCE_FILE
from apt_core.measure_format import MEASURES_FILE, read_measures, write_measures
from apt_core.run_format import ADAPTER_FILE, ADAPTER_FOLDER
from tests.analysis.simulated_measures import simulate
from tests.app_pages import TIMEOUT, rerun, texts

EFFECTS = np.arange(1.0, 7)[:, None] + np.random.default_rng(0).uniform(0, 0.5, (6, 16))
EFFECTS /= EFFECTS.sum()
"""six layers of 16 tokens, the upper ones worth most"""


SHAPES = {"layer_shapes": [[12, 32, 32, 384, 12]] * 6, "layer_kinds": ["encoder"] * 6, "backbone_dtype": "float32"}
"""a virtual token has 1,152 parameters, its gate included, and 3,072 bytes of cache"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The app looks at ``tmp_path/runs``."""
    monkeypatch.setattr(sys, "argv", ["app.py", "--runs", str(tmp_path / "runs")])
    return tmp_path / "runs"


@pytest.fixture
def plain_run(folder, record_run) -> Path:
    """A run that was not measured."""
    return record_run(folder / "a", steps=20, **SHAPES)


@pytest.fixture
def run(plain_run) -> Path:
    """The same, measured token by token."""
    (plain_run / ADAPTER_FOLDER).mkdir()
    (plain_run / ADAPTER_FOLDER / ADAPTER_FILE).write_bytes(b"adapter")
    measures = simulate(list(EFFECTS), tokens=True, noise=0, num_examples=40)
    measures.adapter_sha256 = hashlib.sha256(b"adapter").hexdigest()
    write_measures(plain_run, measures)
    return plain_run


def budget(state: dict | None = None, **query: str) -> AppTest:
    app = AppTest.from_string("from analysis.pages import budget\nbudget.show()", default_timeout=TIMEOUT)
    for key, value in query.items():
        app.query_params[key] = value
    for key, value in (state or {}).items():
        app.session_state[key] = value
    return rerun(app)


def lengths_of(app: AppTest) -> list[int]:
    """Of the command that retrains with the lengths of the table."""
    words = next(code.value for code in app.code if " retrain " in code.value).split()
    return [int(length) for length in words[words.index("--prefix-lengths") + 1].split(",")]


def table_of(app: AppTest):
    """The editable table of layers."""
    return app.dataframe[0].value


def costs_shown(app: AppTest) -> pd.DataFrame:
    """The table of costs, by whose they are."""
    return next(table.value for table in app.dataframe if "lengths" in table.value).set_index("lengths")


def number(app: AppTest, label: str):
    return next(element for element in app.number_input if element.label == label)


def options(app: AppTest, key: str) -> list[str]:
    return list(app.button_group(key=key).options)


def test_without_measures_only_what_works_is_offered_and_the_command_is_named(plain_run):
    app = budget()
    assert options(app, "method") == ["share", "threshold", "topk", "coverage"]
    assert options(app, "importance") == ["gate"]
    assert f"python -m apt_core measure {plain_run}" in texts(app.code)
    assert "Greedy and pareto, and weights other than the gates, need measures" in texts(app.caption)
    assert list(table_of(app).columns) == ["layer", "gate mass", "length now", "lock", "new length"]


def test_with_measures_everything_is_offered_with_verdict_and_effect(run):
    app = budget()
    assert options(app, "method") == ["share", "threshold", "topk", "coverage", "greedy", "pareto"]
    assert options(app, "importance") == ["gate", "norm", "attention", "effect"]
    assert "on the Evidence page" in texts([*app.success, *app.warning, *app.error])
    effect = table_of(app)["effect (nats)"].to_numpy()
    assert effect / effect.sum() == pytest.approx(EFFECTS.sum(axis=1), rel=1e-3)
    assert "measure " not in texts(app.code)


@pytest.mark.parametrize("method", ["share", "threshold", "topk", "coverage", "greedy", "pareto"])
def test_every_method_gives_its_lengths_for_a_total(run, method):
    limit = {"coverage": {"limit_coverage": "total"}, "pareto": {"limit_tolerance": "total"}}.get(method, {})
    app = budget(method=method, total="24", **limit)
    assert lengths_of(app) == list(allocate(EFFECTS, 24, method).prefix_lengths)
    assert list(table_of(app)["new length"]) == lengths_of(app)


@pytest.mark.parametrize("importance", ["norm", "attention", "effect"])
def test_weights_can_be_chosen(run, importance):
    app = budget(importance=importance)
    assert f"{importance} mass" in table_of(app).columns
    assert f"weights: {importance}, measured on validation data" in texts(app.caption)


def test_coverage_and_tolerance_find_their_total(run):
    app = budget(method="coverage", limit_coverage="coverage", coverage="50")
    assert lengths_of(app) == list(allocate_covering(EFFECTS, 50).prefix_lengths)
    assert "Each layer keeps at least" in texts(app.caption)
    app = budget(method="pareto")
    assert number(app, "Tolerance").value == 5
    assert "Predicted loss" in texts(app.caption)
    few = sum(lengths_of(app))
    assert sum(lengths_of(rerun(number(app, "Tolerance").set_value(20.0)))) < few


@pytest.mark.parametrize(
    ("limit", "amount", "total"), [("parameters", 100 + 6 + 10 * 1152, 10), ("kv-bytes", 3072 * 20 + 1, 20)]
)
def test_costs_limit_the_total(plain_run, limit, amount, total):
    app = budget(limit=limit, **{limit: str(amount)})
    assert sum(lengths_of(app)) == total
    assert "The largest total within the limit" in texts(app.caption)


def test_costs_of_the_budget_stand_beside_full_and_uniform(plain_run):
    shown = costs_shown(budget(total="48"))
    assert list(shown.index) == ["this run", "uniform, same total", "this budget"]
    assert list(shown["virtual tokens"]) == [96, 48, 48]
    assert list(shown["trained parameters"]) == [96 * 1152 + 106, 48 * 1152 + 106, 48 * 1152 + 106]


def test_only_limits_whose_costs_are_known_are_offered(folder, record_run):
    record_run(folder / "new", steps=3, **SHAPES)
    record_run(folder / "older", steps=3)
    record_run(folder / "strange", steps=3, apt_config={"token_gate": "of another version"})
    assert budget(run="runs/new").selectbox(key="limit").options == ["total", "parameters", "kv-bytes"]
    app = budget(run="runs/older")
    assert app.selectbox(key="limit").options == ["total", "parameters"]
    assert "the KV cache: an older run" in texts(app.caption)
    app = budget(run="runs/strange")
    assert app.selectbox(key="limit").options == ["total"]
    assert "What these lengths cost cannot be counted" in texts(app.error)


def test_measures_without_effects_do_not_offer_greedy(run):
    bare = read_measures(run, [16] * 6).model_copy(update={"tokens": None, "layers": [None] * 6})
    write_measures(run, bare)
    app = budget(method="greedy")
    assert options(app, "method") == ["share", "threshold", "topk", "coverage", "pareto"]
    assert sum(lengths_of(app)) == 48


def test_damaged_latencies_are_said_and_the_rest_works(plain_run):
    (plain_run / INFERENCE_FILE).write_text("{")
    app = budget()
    assert "The measured latencies cannot be used" in texts(app.caption)
    assert "kv-bytes" in app.selectbox(key="limit").options
    assert sum(lengths_of(app)) == 48


def test_bounds_and_multiples_are_kept(plain_run):
    lengths = lengths_of(budget(total="48", min="4", max="16", multiple="4"))
    assert all(4 <= length <= 16 and length % 4 == 0 for length in lengths)
    assert sum(lengths) == 48


def test_locked_layers_keep_their_length_and_stay_ticked(plain_run):
    app = budget({"budget_locks": {"runs/a": {0: 12, 5: 0}}})
    lengths = lengths_of(app)
    assert (lengths[0], lengths[5], sum(lengths)) == (12, 0, 48)
    assert list(table_of(app)["lock"]) == [True, False, False, False, False, True]


def test_locks_over_the_total_are_said_and_can_be_taken_away(plain_run):
    app = budget({"budget_locks": {"runs/a": {0: 40, 5: 20}}})
    assert "The locked layers take 60 of it" in texts(app.error)
    app = rerun(next(button for button in app.button if button.label == "Unlock all layers").click())
    assert not app.error
    assert sum(lengths_of(app)) == 48


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ({2: {"lock": True}}, {0: 5, 2: 7}),
        ({2: {"lock": True, "new length": 9}}, {0: 5, 2: 9}),
        ({2: {"new length": 9}}, {0: 5}),
        ({0: {"new length": 1}}, {0: 1}),
        ({0: {"lock": False}}, {}),
        ({2: {"lock": True, "new length": None}}, {0: 5, 2: 0}),
    ],
)
def test_what_is_edited_in_the_table_becomes_locks(edits, expected):
    assert changed_locks({0: 5}, [5, 6, 7], edits, "lock", "new length") == expected


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"method": "topk", "total": "97"}, "total: got 97; accepted: 0 to 96"),
        ({"total": "50", "multiple": "8"}, "a multiple of 8; the nearest are 48 and 56"),
        ({"total": "4", "min": "1"}, "total: got 4; accepted: 6 to"),
        ({"min": "9", "max": "3"}, "min-per-layer: got 9; accepted: at most 3"),
        ({"limit": "parameters", "parameters": "5"}, "parameters: got 5; accepted: at least 100"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_crashes(plain_run, query, message):
    app = budget(**query)
    assert message in texts(app.error)
    assert not any(" retrain " in code.value for code in app.code)


@pytest.mark.parametrize(
    "query",
    [
        {"method": "greedy"},
        {"method": "magic"},
        {"importance": "norm"},
        {"limit": "weight"},
        {"total": "x"},
        {"total": "-5"},
        {"total": "1e999"},
        {"min": "-inf"},
        {"max": "1e300"},
        {"min": "nan"},
        {"multiple": "0"},
        {"limit": "milliseconds"},
    ],
)
def test_addresses_that_make_no_sense_show_a_budget_all_the_same(plain_run, query):
    assert sum(lengths_of(budget(**query))) == 48


def test_amounts_of_another_run_are_forgotten(plain_run, record_run):
    record_run(plain_run.parent / "b", steps=5, lengths=(4,) * 6)
    app = budget(run="runs/a", total="30")
    assert sum(lengths_of(app)) == 30
    app = rerun(app.selectbox(key="run").set_value("runs/b"))
    assert number(app, "Total virtual tokens").value == 12
    assert sum(lengths_of(app)) == 12


def test_download_holds_the_budget_and_what_it_rests_on(run, monkeypatch):
    made = {}
    monkeypatch.setattr(st, "download_button", lambda label, data, *_, **__: made.update({label: data}))
    app = budget(method="greedy", total="24", max="10")
    found = parse_budget(made["Download budget (JSON)"]().encode(), "file")
    assert found.prefix_lengths == lengths_of(app)
    assert (found.method, found.importance, found.max_per_layer, found.edited) == (
        "greedy",
        "measured effect",
        10,
        False,
    )
    assert found.source.name == "a"
    assert found.source.adapter_sha256 == hashlib.sha256(b"adapter").hexdigest()
    assert found.evidence["verdict"]
    assert found.evidence["reasons"]


def uploaded(app: AppTest, content: bytes) -> AppTest:
    return rerun(app.file_uploader[0].upload("mine.json", content, "application/json"))


def test_uploaded_budget_gives_its_lengths_with_where_they_came_from(plain_run):
    made = BudgetFile(
        prefix_lengths=[1, 2, 3, 4, 5, 6],
        total=21,
        method="greedy",
        source=Source(name="<b>other</b>"),
        evidence={"headline": "Follow *with* care."},
    )
    app = uploaded(budget(), budget_text(made).encode())
    assert lengths_of(app) == [1, 2, 3, 4, 5, 6]
    assert "21 virtual tokens by greedy from <b>other</b>, as in the file" in texts(app.info)
    assert "\\<b\\>" in app.info[-1].value
    assert "The audit said then: Follow *with* care" in texts(app.info)
    assert "made from the run <b>other</b>, not from a" in texts(app.warning)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "mine.json: damaged, not readable as JSON"),
        (b'{"prefix_lengths": [1, 2], "total": 4}', "total is 4, but prefix_lengths sum to 3"),
        (b'{"prefix_lengths": [1, 2], "total": 3}', "lengths for 2 layers, made from another run"),
        (b'{"prefix_lengths": [0, 0, 0, 0, 0, 0], "total": 0}', "Every layer has length 0"),
    ],
)
def test_uploaded_file_that_does_not_fit_is_said(plain_run, content, message):
    assert message in texts(uploaded(budget(), content).error)


def test_damaged_measures_are_said_and_the_rest_works(run):
    (run / MEASURES_FILE).write_text("{")
    app = budget()
    assert "cannot be used" in texts(app.error)
    assert options(app, "method") == ["share", "threshold", "topk", "coverage"]
    assert sum(lengths_of(app)) == 48


def test_one_layer_and_a_run_without_tokens(folder, record_run):
    record_run(folder / "one", steps=3, lengths=(4,))
    assert lengths_of(budget(run="runs/one")) == [2]
    record_run(folder / "none", steps=3, lengths=(0, 0))
    assert "nothing to share out" in texts(budget(run="runs/none").info)


def test_typed_lengths_outlive_a_lock_that_changes_no_suggestion_and_another_page(plain_run):
    lengths = lengths_of(budget())
    typed = {("runs/a", tuple(lengths)): {0: lengths[0] + 1}}
    app = budget({"budget_typed": typed})
    assert lengths_of(app) == [lengths[0] + 1, *lengths[1:]]
    app = budget({"budget_typed": typed, "budget_locks": {"runs/a": {4: lengths[4]}}})
    assert lengths_of(app)[4] == lengths[4]
    if lengths_of(budget({"budget_locks": {"runs/a": {4: lengths[4]}}})) == lengths:
        assert lengths_of(app)[0] == lengths[0] + 1
    assert lengths_of(budget({"budget_typed": {("runs/other", tuple(lengths)): {0: 99}}})) == lengths
