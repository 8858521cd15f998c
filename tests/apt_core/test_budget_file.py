"""Budget files: what is written is read again; damaged, foreign and hostile ones are refused in one line."""

from __future__ import annotations

import json
import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_core.__main__ import app
from apt_core.budget_file import (
    MAX_BUDGET_BYTES,
    BudgetFile,
    Constraint,
    Source,
    budget_text,
    chosen_lengths,
    parse_budget,
    read_budget,
    write_budget,
)
from apt_core.command_line import run_typer
from apt_core.config import AptConfig, TrainSettings
from apt_core.errors import AptError, AptFileExistsError, AptFileNotFoundError, AptValueError
from apt_core.run_format import read_run_info
from apt_core.tasks.source import DataSource
from apt_core.train import TrainJob, train

LENGTHS = st.lists(st.integers(0, 1024), min_size=1, max_size=40)


def budget(lengths: list[int], **fields) -> BudgetFile:
    return BudgetFile(prefix_lengths=lengths, total=sum(lengths), **fields)


@given(LENGTHS, st.text(max_size=20), st.one_of(st.none(), st.integers(0, 9), LENGTHS))
def test_what_is_written_is_read_again(lengths, method, at_most):
    written = budget(
        lengths,
        method=method,
        max_per_layer=at_most,
        constraint=Constraint(limit="tolerance", amount=5, relative=True),
        locks={"1": 3},
        source=Source(name="a", model="m", data_hash="d", prefix_lengths=lengths),
        notes=["a note"],
        evidence={"verdict": "do not follow", "numbers": {"area": 0.25}},
    )
    assert parse_budget(budget_text(written).encode(), "file") == written


def test_a_file_is_written_once(tmp_path):
    path = tmp_path / "budget.json"
    write_budget(path, budget([4, 0, 8]))
    assert read_budget(path).prefix_lengths == [4, 0, 8]
    with pytest.raises(AptFileExistsError, match="which exists; accepted: a new file"):
        write_budget(path, budget([1]))
    assert read_budget(path).total == 12
    with pytest.raises(AptValueError, match="out: got"):
        write_budget(tmp_path / "missing" / "budget.json", budget([1]))


def test_lengths_alone_as_the_first_versions_of_the_page_wrote_them_are_enough():
    text = b'{"prefix_lengths": [2, 4], "total": 6, "method": "topk", "run": "a", "min_per_layer": 0, "new field": 1}'
    assert parse_budget(text, "file").method == "topk"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged, not readable as JSON"),
        (b"{", "damaged, not readable as JSON"),
        (b"[" * 100_000, "damaged, not readable as JSON"),
        (b"\xff\xfe\xfd", "damaged, not readable as JSON"),
        (b'{"prefix_lengths": [' + b"9" * 5000 + b'], "total": 1}', "damaged, not readable as JSON"),
        (b"[1, 2]", "holds a list instead of an object"),
        (b"{}", "prefix_lengths: Field required; total: Field required"),
        (b'{"version": 2, "prefix_lengths": [1], "total": 1}', "version: got 2; accepted: up to 1. Update this"),
        (b'{"version": "x", "prefix_lengths": [1], "total": 1}', "version: got 'x'"),
        (b'{"prefix_lengths": [], "total": 0}', "prefix_lengths: got"),
        (b'{"prefix_lengths": [1, -1], "total": 0}', "prefix_lengths.1: got -1"),
        (b'{"prefix_lengths": [1, 1025], "total": 1026}', "prefix_lengths.1: got 1025"),
        (b'{"prefix_lengths": [1, 2.5], "total": 3}', "prefix_lengths.1: got 2.5"),
        (b'{"prefix_lengths": [1, true], "total": 2}', "prefix_lengths.1: got True"),
        (b'{"prefix_lengths": [1, "2"], "total": 3}', "prefix_lengths.1: got '2'"),
        (b'{"prefix_lengths": [1, 2], "total": 4}', "total is 4, but prefix_lengths sum to 3"),
        (b'{"prefix_lengths": [1], "total": 1, "constraint": {"limit": "magic", "amount": 1}}', "constraint.limit"),
        (b'{"prefix_lengths": [1], "total": 1, "constraint": {"limit": "total", "amount": NaN}}', "constraint.amount"),
        (b'{"prefix_lengths": [1], "total": 1, "evidence": [1]}', "evidence: got"),
        (b'{"prefix_lengths": [1], "total": 1, "method": "' + b"x" * 5000 + b'"}', "method: got"),
        (b'{"prefix_lengths": ' + json.dumps([0] * 10_001).encode() + b', "total": 0}', "prefix_lengths: got"),
        (b" " * (MAX_BUDGET_BYTES + 1), "larger than the"),
    ],
)
def test_content_that_is_no_budget_is_refused(content, message):
    with pytest.raises(AptValueError, match=f"^file: .*{message}"):
        parse_budget(content, "file")


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.floats(), st.text()), st.lists, max_leaves=8))
def test_no_content_of_a_field_crashes(value):
    for field in BudgetFile.model_fields:
        content = json.dumps({"prefix_lengths": [1], "total": 1, field: value}).encode()
        with suppress(AptError):
            json.loads(budget_text(parse_budget(content, "file")))


@pytest.mark.parametrize("kind", ["missing", "link", "folder", "pipe", "large"])
def test_what_is_no_regular_file_of_some_size_is_refused(tmp_path, kind):
    path = tmp_path / "budget.json"
    (tmp_path / "target.json").write_text(budget_text(budget([1])))
    if kind == "link":
        path.symlink_to(tmp_path / "target.json")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(MAX_BUDGET_BYTES + 1)
    with pytest.raises(AptFileNotFoundError if kind == "missing" else AptValueError, match=r"budget.json: "):
        read_budget(path)


@pytest.fixture
def run(record_run, tmp_path) -> Path:
    return record_run(tmp_path / "mine", steps=2, data_hash="data")


def test_lengths_of_a_file_made_from_the_run_are_taken_without_a_word(run, tmp_path):
    path = tmp_path / "budget.json"
    made = Source(name="mine", model="sentence-transformers/all-MiniLM-L6-v2", data_hash="data")
    write_budget(path, budget([1, 2, 3, 4, 5, 0], source=made))
    said: list[str] = []
    assert chosen_lengths(run, None, path, said.append) == (1, 2, 3, 4, 5, 0)
    assert said == []
    assert chosen_lengths(run, "1,2,3", None, said.append) == (1, 2, 3)


def test_lengths_of_a_file_made_from_another_run_come_with_notes(run, tmp_path):
    path = tmp_path / "budget.json"
    write_budget(path, budget([8] * 6, source=Source(name="theirs", model="other/model", data_hash="other")))
    said: list[str] = []
    assert chosen_lengths(run, None, path, said.append) == (8,) * 6
    assert said == [
        "note: This budget was made from the run theirs, not from mine.",
        "note: It was made on the backbone other/model, not on sentence-transformers/all-MiniLM-L6-v2.",
        "note: It was made on other data than this run was trained on (their hashes differ).",
    ]


def test_lengths_for_another_number_of_layers_are_refused(run, tmp_path):
    path = tmp_path / "budget.json"
    write_budget(path, budget([8] * 12, source=Source(name="theirs", model="bert-base-uncased")))
    message = "budget: got 'lengths for 12 layers, made from theirs on bert-base-uncased'; accepted: lengths for 6 "
    with pytest.raises(AptValueError, match=message):
        chosen_lengths(run, None, path, print)


@pytest.mark.parametrize("given", [(None, None), ("1,2", Path("budget.json"))])
def test_neither_or_both_are_refused(run, given):
    with pytest.raises(AptValueError, match="give either --prefix-lengths or --budget FILE"):
        chosen_lengths(run, *given, print)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("mine", "give either --prefix-lengths or --budget FILE"),
        ("mine --budget missing.json", "missing.json: no such file. 'python -m analysis budget RUN"),
        ("mine --budget twelve.json", "lengths for 12 layers, made from another run"),
        ("missing --budget twelve.json", "missing: not a run folder"),
    ],
)
def test_retrain_with_a_budget_that_cannot_be_is_one_line(run, monkeypatch, capsys, words, message):
    monkeypatch.chdir(run.parent)
    write_budget(Path("twelve.json"), budget([8] * 12))
    monkeypatch.setattr(sys, "argv", ["program", "retrain", *words.split()])
    with pytest.raises(SystemExit) as ending:
        run_typer(app)
    printed = capsys.readouterr()
    assert (ending.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert message in printed.err


def test_retrain_with_a_budget_trains_its_lengths(backbone_folder, data_folder, tmp_path, monkeypatch, capsys):
    job = TrainJob(
        task="copa",
        out=tmp_path / "run",
        model=str(backbone_folder),
        apt=AptConfig(num_virtual_tokens=2),
        training=TrainSettings(epochs=1, batch_size=8, device="cpu"),
        data=DataSource(data_dir=str(data_folder)),
    )
    train(job, say=lambda line: None)
    lengths = [1, *[0] * (read_run_info(job.out).num_layers - 1)]
    write_budget(tmp_path / "budget.json", budget(lengths, source=Source(name="another")))
    words = ["retrain", str(job.out), "--budget", str(tmp_path / "budget.json"), "--out", str(tmp_path / "new")]
    monkeypatch.setattr(sys, "argv", ["program", *words, "--json"])
    with pytest.raises(SystemExit) as ending:
        run_typer(app)
    printed = capsys.readouterr()
    assert ending.value.code == 0
    assert json.loads(printed.out)["prefix_lengths"] == lengths
    assert "note: This budget was made from the run another, not from run." in printed.err
    assert read_run_info(tmp_path / "new").command == shlex.join(["python", "-m", "apt_core", *words])
