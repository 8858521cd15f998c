"""Rows, filters and groups of the Runs page, and the small curves in it."""

from __future__ import annotations

import json

import pytest

from analysis.run_curves import MAX_POINTS, MAX_WHOLE_BYTES, curves_of, thinned
from analysis.run_edits import save_notes
from analysis.run_table import (
    COLUMNS,
    DEFAULT_COLUMNS,
    SEVERAL,
    Filter,
    Group,
    entries_of,
    group_of,
    grouped,
    lengths_text,
    matching,
    rows_of,
    setting_names,
)
from analysis.runs import find_runs


@pytest.fixture
def entries(tmp_path, record_run):
    """copa-1 (0.5), copa-2 (0.5, hidden), pydoc (0.5, tag paper), all with 40 steps."""
    root = tmp_path / "runs"
    training = {"epochs": 2, "learning_rate": 0.01, "note": "x"}
    for number, (name, task) in enumerate((("copa-1", "copa"), ("copa-2", "copa"), ("pydoc", "pydoc-topic"))):
        fields = {"training": {**training, "seed": 10 - number}, "created_at": f"2026-01-0{9 - number}T00:00:00+00:00"}
        record_run(root / name, task=task, **fields)
    save_notes([root], root / "copa-2", hidden=True)
    save_notes([root], root / "pydoc", tags=["Paper", "good"])
    return entries_of(find_runs([root]).runs)


def names(entries) -> list[str]:
    return [entry.run.name for entry in entries]


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        (Filter(), ["copa-1", "pydoc"]),
        (Filter(hidden=True), ["copa-1", "copa-2", "pydoc"]),
        (Filter(text="COPA", hidden=True), ["copa-1", "copa-2"]),
        (Filter(text="minilm topic"), ["pydoc"]),
        (Filter(text="paper"), ["pydoc"]),
        (Filter(text="copa topic"), []),
        (Filter(statuses=["finished"]), ["copa-1", "pydoc"]),
        (Filter(statuses=["running", "failed"]), []),
        (Filter(tasks=["pydoc-topic"]), ["pydoc"]),
        (Filter(tags=["Paper", "good"]), ["pydoc"]),
        (Filter(tags=["Paper", "bad"]), []),
    ],
)
def test_matching_leaves_what_fits_every_part(entries, wanted, left):
    assert names(matching(entries, wanted)) == left


def test_setting_names_start_with_the_usual_ones_and_hold_every_setting(entries):
    settings = setting_names(entries)
    assert settings[:2] == ["task", "model"]
    assert {"training.learning_rate", "training.note", "apt_config.token_gate", "virtual tokens"} <= set(settings)


def test_grouped_orders_numbers_as_numbers(entries):
    assert {value: names(runs) for value, runs in grouped(entries, "training.seed").items()} == {
        "8": ["pydoc"],
        "9": ["copa-2"],
        "10": ["copa-1"],
    }
    assert list(grouped(entries, "training.absent")) == ["none"]


def test_group_of_gives_mean_and_range(entries):
    for entry, value in zip(entries, (0.25, 0.75, 0.5), strict=True):
        entry.run.info.metrics["validation"]["accuracy"] = value
    groups = grouped(entries, "task")
    assert group_of("copa", groups["copa"]) == Group("copa", 2, "accuracy", 2, 0.5, 0.25, 0.75)


def test_group_of_different_tasks_averages_nothing(entries):
    assert group_of("all", entries) == Group("all", 3, SEVERAL, 0, None, None, None)


def test_group_without_a_measured_metric_has_no_mean(entries):
    entries[0].run.info.metrics.clear()
    assert group_of("x", entries[:1]) == Group("x", 1, "accuracy", 0, None, None, None)


def test_rows_of_has_a_cell_for_every_column(entries):
    (row, *_) = rows_of(entries, [*COLUMNS, "training.learning_rate", "training.note", "apt_config.absent"])
    assert row["run"] == "runs/copa-1"
    assert (row["status"], row["validation"], row["metric"]) == ("finished", 0.5, "accuracy")
    assert (row["virtual tokens"], row["prefix lengths"]) == (96, "16 x 6")
    assert row["trained parameters"] == 768 * 96 + 384 * 96 + 100
    assert row["curve"] == [0.125, 0.25, 0.375, 0.5]
    assert row["loss curve"] == [0.2, 0.1, pytest.approx(2 / 30), 0.05]
    assert row["age"].isoformat() == "2026-01-09T00:00:00+00:00"
    assert (row["training.learning_rate"], row["training.note"], row["apt_config.absent"]) == (0.01, "x", None)
    assert set(DEFAULT_COLUMNS) < set(COLUMNS)


def test_damaged_notes_are_said_in_the_notes_column(entries, tmp_path):
    (tmp_path / "runs" / "pydoc" / "notes.json").write_text("{")
    pydoc = rows_of(entries_of(find_runs([tmp_path / "runs"]).runs), ["run", "notes"])[-1]
    assert "notes.json: damaged" in pydoc["notes"]


@pytest.mark.parametrize(
    ("lengths", "text"), [([16] * 6, "16 x 6"), ([3], "3"), ([1, 2], "1 2"), ([], ""), ([0, 0], "0 x 2")]
)
def test_lengths_text_is_short_where_all_are_the_same(lengths, text):
    assert lengths_text(lengths) == text


def write_metrics(folder, rows) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_curves_are_thinned_and_keep_the_last_value(tmp_path):
    write_metrics(tmp_path / "a", [{"step": step, "loss": 1000 - step} for step in range(1000)])
    curves = curves_of(tmp_path / "a", "accuracy")
    assert len(curves.loss) == MAX_POINTS
    assert (curves.loss[0], curves.loss[-1]) == (1000, 1)
    assert curves.metric == ()


def test_curves_of_a_huge_file_come_from_all_over_it(tmp_path):
    rows = [{"step": step, "loss": step, "note": "x" * 200} for step in range(40_000)]
    write_metrics(tmp_path / "a", rows)
    assert (tmp_path / "a" / "metrics.jsonl").stat().st_size > 2 * MAX_WHOLE_BYTES
    loss = curves_of(tmp_path / "a", "accuracy").loss
    assert len(loss) == MAX_POINTS
    assert loss == tuple(sorted(loss))
    assert (loss[0], loss[-1]) == (0, 39_999)


def test_curves_follow_the_file_as_it_grows(tmp_path):
    write_metrics(tmp_path / "a", [{"eval_f1": 0.5}])
    assert curves_of(tmp_path / "a", "f1").metric == (0.5,)
    write_metrics(tmp_path / "a", [{"eval_f1": 0.5}, {"eval_f1": 0.75}])
    assert curves_of(tmp_path / "a", "f1").metric == (0.5, 0.75)


def test_curves_pass_over_what_is_no_number(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"loss": 1}\n{"loss": NaN}\n{"loss": "2"}\n{"loss": true}\n["loss"]\n{"loss"\n{"loss": 1e999}\n{"loss": 3}\n'
    )
    assert curves_of(tmp_path, "f1").loss == (1, 3)


@pytest.mark.parametrize(("count", "left"), [(2, [0, 9]), (4, [0, 3, 6, 9]), (20, list(range(10)))])
def test_thinned_keeps_first_and_last(count, left):
    assert thinned(list(range(10)), count) == left
