"""Runs are found by their metadata; damaged ones are listed with the reason."""

from __future__ import annotations

import os

import pytest

from analysis.runs import Run, family_of, find_runs, open_run
from apt_core.errors import AptError
from apt_core.run_format import RUN_FILE, RunInfo
from apt_core.run_writer import RunWriter
from apt_core.sweep_format import SWEEP_FILE


def test_find_runs_lists_newest_first_and_damaged_with_reason(record_run, tmp_path):
    record_run(tmp_path / "old", created_at="2026-01-01T00:00:00+00:00")
    record_run(tmp_path / "new", created_at="2026-02-01T00:00:00+00:00")
    for name, content in (("broken", "{"), ("future", '{"schema_version": 99}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / RUN_FILE).write_text(content)
    (tmp_path / "empty").mkdir()
    (tmp_path / ".jobs").mkdir()
    (tmp_path / "notes.txt").write_text("not a folder")
    os.symlink(tmp_path / "old", tmp_path / "linked")
    runs, rejected = find_runs([tmp_path, tmp_path / "missing"])
    assert [run.name for run in runs] == ["new", "old"]
    assert {row.folder.name: row.reason for row in rejected}.keys() == {"broken", "empty", "future", "linked"}
    reasons = {row.folder.name: row.reason for row in rejected}
    assert "damaged" in reasons["broken"]
    assert "schema_version: got 99" in reasons["future"]
    assert "no run.json" in reasons["empty"]
    assert "links are not followed" in reasons["linked"]


def test_runs_of_a_sweep_are_found_in_its_folder_and_no_deeper(record_run, tmp_path):
    record_run(tmp_path / "alone", steps=1)
    for sweep in (tmp_path / "grid", tmp_path / "grid" / "inner"):
        record_run(sweep / "run", steps=1)
        (sweep / SWEEP_FILE).write_text("{}")
    (tmp_path / "linked").symlink_to(tmp_path / "grid")
    runs, rejected = find_runs([tmp_path])
    assert {run.key for run in runs} == {f"{tmp_path.name}/alone", "grid/run"}
    assert {row.folder.relative_to(tmp_path).as_posix() for row in rejected} == {"grid/inner", "linked"}
    assert {run.name for run in find_runs([tmp_path, tmp_path / "grid"]).runs} == {"alone", "run"}
    assert len(find_runs([tmp_path / "grid", tmp_path]).runs) == 3  # what is named itself is looked into as deep


def test_runs_of_two_folders_of_one_name_have_keys_of_their_own(record_run, tmp_path):
    for place in ("a", "b"):
        record_run(tmp_path / place / "runs" / "same", steps=1)
    record_run(tmp_path / "b" / "runs" / "other", steps=1)
    runs, _ = find_runs([tmp_path / "a" / "runs", tmp_path / "b" / "runs"])
    keys = {run.key for run in runs}
    assert keys == {str(tmp_path / "a/runs/same"), str(tmp_path / "b/runs/same"), "runs/other"}


def test_run_gives_gates_metrics_and_metric(record_run, tmp_path):
    run = Run(record_run(tmp_path / "a", steps=20))
    assert run.gates.steps.tolist() == list(range(1, 21))
    assert run.metrics()[0] == {"step": 10, "loss": 0.2}
    assert (run.metric(), run.metric("test"), run.status) == (0.5, None, "finished")
    assert run.key == f"{tmp_path.name}/a"


@pytest.mark.parametrize(
    ("config", "fields", "method"),
    [
        ({"token_gate": "hidden", "layer_scale": True}, {}, "APT"),
        ({"token_gate": "static", "layer_scale": True}, {}, "APT without h"),
        ({"token_gate": "none", "layer_scale": True}, {}, "APT without alpha"),
        ({"token_gate": "hidden", "layer_scale": False}, {}, "APT without lambda"),
        ({"token_gate": "none", "layer_scale": False}, {}, "PT-2"),
        ({}, {"parent": "a", "lengths": (1, 2)}, "APT, pruned"),
        ({}, {"parent": "a", "lengths": (2, 2)}, "APT, uniform"),
    ],
)
def test_method_is_named_as_in_the_paper(record_run, tmp_path, config, fields, method):
    assert Run(record_run(tmp_path / "run", steps=1, apt_config=config, **fields)).method == method


def test_family_of_is_the_parent_and_its_children_oldest_first(record_run, tmp_path):
    for index, (name, fields) in enumerate(
        [
            ("a", {}),
            ("a-pruned", {"parent": "a"}),
            ("other", {}),
            ("a-uniform", {"parent": "a"}),
            ("b", {"parent": "x"}),
        ]
    ):
        record_run(tmp_path / name, steps=1, created_at=f"2026-01-0{index + 1}T00:00:00+00:00", **fields)
    runs = find_runs([tmp_path]).runs
    parent = next(run for run in runs if run.name == "a")
    assert [run.name for run in family_of(parent, runs)] == ["a", "a-pruned", "a-uniform"]


def test_open_run_without_recorded_steps_raises(tmp_path):
    RunWriter(tmp_path, RunInfo(num_layers=1, prefix_lengths=[1])).finish()
    with pytest.raises(AptError, match="accepted: a run with at least one recorded step"):
        open_run(tmp_path)
