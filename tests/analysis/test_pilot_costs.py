"""What a pilot costs, and that data is checked before it starts."""

from __future__ import annotations

import pytest

from analysis.pilot_costs import START_SECONDS, check_data, duration, forward_passes, training_seconds
from analysis.runs import find_runs
from apt_core.errors import AptError
from apt_core.tasks.source import DataSource
from tests.analysis.pilot_world import PILOT

ROWS = "text,label\n" + "".join(
    f"text number {number},{'even' if number % 2 == 0 else 'odd'}\n" for number in range(40)
)


def test_time_is_scaled_from_the_newest_run_of_the_same_task(tmp_path, record_run):
    sizes = {"train": 100, "validation": 60}
    record_run(
        tmp_path / "a", steps=2, split_sizes=sizes, training={"epochs": 1}, created_at="2026-01-02T00:00:00+00:00"
    )
    record_run(tmp_path / "b", steps=2, task="copa", split_sizes=sizes, training={"epochs": 4}, model="other")
    wanted = forward_passes(2, {"train": 144, "validation": 360})
    assert wanted == 2 * (3 * 144 + 360)
    expected = START_SECONDS + 12.0 * wanted / (3 * 100 + 60)  # record_run's trainings take 12 s
    assert training_seconds(PILOT, find_runs([tmp_path]).runs) == pytest.approx(expected)


def test_time_is_unknown_without_a_run_to_learn_from(tmp_path, record_run):
    assert training_seconds(PILOT, []) is None
    record_run(tmp_path / "a", steps=2, model="other", split_sizes={"train": 10}, training={"epochs": 1})
    record_run(tmp_path / "b", steps=2, training={"epochs": "many"}, split_sizes={"train": 10})
    assert training_seconds(PILOT, find_runs([tmp_path]).runs) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3, "less than a minute"), (60, "about a minute"), (600, "about 10 minutes"), (9000, "about 2.5 hours")],
)
def test_durations_are_no_more_exact_than_estimates(seconds, words):
    assert duration(seconds) == words


def test_own_data_is_counted_after_the_few_shots(tmp_path):
    (tmp_path / "train.csv").write_text(ROWS)
    source = DataSource(train_file=str(tmp_path / "train.csv"))
    assert check_data("text-classification", source, None, 1).split_sizes == {"train": 36, "validation": 4}
    few = check_data("text-classification", source, 3, 1)
    assert few.split_sizes["train"] == 6
    assert few.labels == 2


@pytest.mark.parametrize(
    ("task", "data", "shots", "said"),
    [
        ("copa", {}, None, "data-dir"),
        ("copa", {"data_dir": "not/here"}, None, "not/here"),
        ("text-classification", {"train_file": "{folder}/train.csv"}, 30, "at most"),
        ("text-classification", {"train_file": "{folder}/train.csv", "label_column": "kind"}, None, "kind"),
        ("text-classification", {"train_file": "{folder}/broken.jsonl"}, None, "broken.jsonl:1"),
    ],
)
def test_unusable_data_is_refused_in_one_line(tmp_path, task, data, shots, said):
    (tmp_path / "train.csv").write_text(ROWS)
    (tmp_path / "broken.jsonl").write_text("{")
    source = DataSource(**{name: value.format(folder=tmp_path) for name, value in data.items()})
    with pytest.raises(AptError, match=said) as problem:
        check_data(task, source, shots, 1)
    assert "\n" not in str(problem.value)
