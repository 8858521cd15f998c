"""What a person may say about their data, and which task it means."""

from __future__ import annotations

import pytest

from apt_core.errors import AptError
from apt_core.tasks import TASKS, infer_task, load_task
from apt_core.tasks.source import DataSource


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data_dir": "a", "dataset_name": "b"}, "data_dir and dataset_name are two places"),
        ({"data_dir": "a", "train_file": "b"}, "data_dir and train_file are two places"),
        ({"dataset_name": "a", "test_file": "b"}, "dataset_name and test_file are two places.*test_file needs train"),
        ({"validation_file": "a"}, "validation_file needs train_file"),
        ({"dataset_config_name": "a"}, "dataset_config_name is part of a dataset"),
        ({"label_column": "a", "tags_column": "b"}, "label_column and tags_column belong to different tasks"),
        ({"text_column": "a", "target_column": "b"}, "text_column and target_column belong to different tasks"),
        ({"text_column": "a", "label_column": "a"}, "text_column and label_column are both 'a'"),
        ({"validation_fraction": 1}, "validation_fraction: got 1"),
        ({"tag_scheme": "bilou2"}, "tag_scheme: got 'bilou2'"),
        ({"text_column": ""}, "text_column: got ''"),
        ({"folder": "a"}, "folder"),
    ],
)
def test_data_source_with_fields_at_odds_raises_in_one_line(fields, message):
    with pytest.raises(AptError, match=message) as raised:
        DataSource(**fields)
    assert "\n" not in str(raised.value)


def test_data_source_reports_every_problem_at_once():
    with pytest.raises(AptError, match=r"dataset_config_name is part.*label_column and tags_column"):
        DataSource(dataset_config_name="a", label_column="b", tags_column="c")


def test_given_holds_only_what_was_set_and_makes_an_equal_source():
    source = DataSource(train_file="a.csv", label_column="Art der Ware")
    assert source.given() == {"train_file": "a.csv", "label_column": "Art der Ware"}
    assert DataSource(**source.given()) == source
    assert DataSource().given() == {}


@pytest.mark.parametrize(
    ("fields", "task"),
    [
        ({"label_column": "a"}, "text-classification"),
        ({"text_column": "t", "text_pair_column": "a"}, "text-classification"),
        ({"tags_column": "a"}, "token-classification"),
        ({"text_column": "a"}, None),
        ({"data_dir": "a"}, None),
    ],
)
def test_infer_task_goes_by_the_columns_given(fields, task):
    assert infer_task(DataSource(**fields)) == task


def test_infer_task_of_prompt_and_target_asks_which():
    with pytest.raises(AptError, match=r"give --task causal-lm .* or --task seq2seq-lm"):
        infer_task(DataSource(target_column="a"))


@pytest.mark.parametrize(
    ("task", "fields", "message"),
    [
        ("pydoc-topic", {"data_dir": "a"}, "data_dir: task pydoc-topic is built in and reads no data"),
        (
            "copa",
            {"train_file": "a"},
            "train_file: task copa does not read it; .*Your own data is read by --task text-",
        ),
        ("rte", {"dataset_name": "a", "label_column": "b"}, "label_column: task rte does not read it"),
        ("wnut17", {"data_dir": "a", "tag_scheme": "iob1"}, "tag_scheme: task wnut17 does not read it"),
        ("seq2seq-lm", {"train_file": "a", "text_column": "b"}, "it reads prompt_column, target_column. Leave --text-"),
        ("causal-lm", {}, "task causal-lm reads your own data; give --train-file, --data-dir or --dataset-name"),
        ("cb", {}, "task cb reads files; give --data-dir, .* or --dataset-name"),
    ],
)
def test_load_task_refuses_what_the_task_would_not_read(task, fields, message):
    with pytest.raises(AptError, match=message):
        load_task(task, DataSource(**fields))


def test_every_column_is_read_by_some_task():
    read = {field for entry in TASKS.values() for field in entry.columns}
    assert read | {"data_dir", "dataset_name", "dataset_config_name"} >= set(DataSource.model_fields) - {
        "train_file",
        "validation_file",
        "test_file",
    }
