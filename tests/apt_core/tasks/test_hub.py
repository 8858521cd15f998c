"""Datasets through the library ``datasets``: local folders stand for the Hub, which tests never reach."""

from __future__ import annotations

from pathlib import Path

import datasets
import huggingface_hub
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value

from apt_core.errors import AptError
from apt_core.tasks import load_task
from apt_core.tasks.source import DataSource

BOOLEAN = ClassLabel(names=["False", "True"])
TEXT = Value("string")
SUPERGLUE = {
    "boolq": ({"question": "is it", "passage": "It is."}, BOOLEAN, ("is it", "It is.")),
    "cb": (
        {"premise": "P", "hypothesis": "H"},
        ClassLabel(names=["entailment", "contradiction", "neutral"]),
        ("P", "H"),
    ),
    "rte": ({"premise": "P", "hypothesis": "H"}, ClassLabel(names=["entailment", "not_entailment"]), ("P", "H")),
    "wic": ({"word": "w", "sentence1": "A w.", "sentence2": "B w."}, BOOLEAN, ("w: A w.", "B w.")),
    "wsc": (
        {"text": "Tom said he came.", "span1_text": "Tom", "span2_text": "he"},
        BOOLEAN,
        ("Tom said he came.", "he refers to Tom"),
    ),
}


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def write(folder: Path, features: dict, **splits: list[dict]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        columns = {name: [row[name] for row in rows] for name in features}
        Dataset.from_dict(columns, features=Features(features)).to_parquet(folder / f"{split}.parquet")
    return str(folder)


@pytest.mark.parametrize("name", SUPERGLUE)
def test_superglue_is_read_with_the_hubs_fields_and_hidden_test_labels(tmp_path, name):
    row, labels, texts = SUPERGLUE[name]
    rows = [{**row, "label": index} for index in range(labels.num_classes)]
    features = {**dict.fromkeys(row, TEXT), "label": labels}
    folder = write(tmp_path / "d", features, train=rows, validation=rows, test=[{**row, "label": -1}])
    task = load_task(name, DataSource(dataset_name=folder))
    assert [(each["text"], each["text_pair"]) for each in task.splits["train"]] == [texts] * len(rows)
    assert [each["label"] for each in task.splits["validation"]] == list(range(len(rows)))
    assert task.labels == tuple(label.lower() for label in labels.names)
    assert set(task.splits) == {"train", "validation"}
    assert task.notes == ("test: left out, its labels are hidden",)


def test_copa_is_read_with_the_hubs_fields(tmp_path):
    row = {"premise": "It rained.", "choice1": "Wet.", "choice2": "Dry.", "question": "effect", "idx": 7, "label": 1}
    features = dict.fromkeys(row, TEXT) | {"idx": Value("int32"), "label": ClassLabel(names=["choice1", "choice2"])}
    folder = write(tmp_path / "d", features, train=[row], validation=[row], test=[{**row, "label": -1}])
    task = load_task("copa", DataSource(dataset_name=folder))
    assert task.splits["train"] == [
        {
            "id": "train-7",
            "context": "It rained. What happened as a result?",
            "choices": ["Wet.", "Dry."],
            "label": 1,
        }
    ]
    assert "test" not in task.splits


WORDS = {"tokens": Sequence(TEXT), "ner_tags": Sequence(ClassLabel(names=["O", "B-location", "I-location"]))}
TAGGED = [{"tokens": ["New", "York", "!"], "ner_tags": [1, 2, 0]}]


def test_wnut17_is_read_from_tokens_and_ner_tags(tmp_path):
    folder = write(tmp_path / "d", WORDS, train=TAGGED, validation=TAGGED, test=TAGGED)
    task = load_task("wnut17", DataSource(dataset_name=folder))
    assert task.splits["test"][0]["tags"] == ["B-location", "I-location", "O"]


@pytest.mark.parametrize("place", ["dataset_name", "data_dir"])
def test_tags_that_are_integers_get_their_names(tmp_path, place):
    folder = write(tmp_path / "d", WORDS, train=TAGGED, validation=TAGGED)
    task = load_task("token-classification", DataSource(**{place: folder}, tags_column="ner_tags"))
    assert task.splits["train"][0]["tags"] == ["B-location", "I-location", "O"]


@pytest.mark.parametrize("place", ["dataset_name", "data_dir"])
def test_classes_have_the_order_of_the_features(tmp_path, place):
    features = {"text": TEXT, "label": ClassLabel(names=["neg", "neutral", "a positive"])}
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 2}]
    folder = write(tmp_path / "d", features, train=rows, validation=rows, test=[{"text": "c", "label": -1}])
    task = load_task("text-classification", DataSource(**{place: folder}))
    assert task.labels == ("neg", "neutral", "a positive")
    assert [row["label"] for row in task.splits["train"]] == [0, 2]
    assert set(task.splits) == {"train", "validation"}


def test_other_splits_are_named_in_a_note(tmp_path, monkeypatch):
    rows = Dataset.from_dict({"text": ["a", "b"] * 5, "label": ["x", "y"] * 5})
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, config: DatasetDict({"train": rows, "dev": rows, "extra": rows})
    )
    task = load_task("text-classification", DataSource(dataset_name="some/set"))
    assert task.notes == ("splits of the dataset that are not read: extra",)
    assert len(task.splits["validation"]) == 10


def test_a_missing_value_names_dataset_split_and_row(tmp_path):
    rows = [{"text": "a", "label": "x"}, {"text": None, "label": "y"}]
    folder = write(tmp_path / "d", {"text": TEXT, "label": TEXT}, train=rows)
    with pytest.raises(AptError, match=r"dataset .*d, split train: row 2: 'text' is empty"):
        load_task("text-classification", DataSource(dataset_name=folder))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset_name": "no-one/nothing"}, "cannot be read: Couldn't reach .*HF_HUB_OFFLINE is set: unset it"),
        ({"dataset_name": "./not/here"}, "cannot be read: Couldn't find"),
        ({"dataset_name": "{folder}", "dataset_config_name": "de"}, "'de', cannot be read: .*--dataset-config-name"),
    ],
)
def test_a_dataset_that_cannot_be_had_is_one_line(tmp_path, fields, message):
    folder = write(tmp_path / "d", {"text": TEXT, "label": TEXT}, train=[{"text": "a", "label": "x"}])
    fields = {name: value.format(folder=folder) for name, value in fields.items()}
    with pytest.raises(AptError, match=message) as raised:
        load_task("text-classification", DataSource(**fields))
    assert "\n" not in str(raised.value)


def test_a_dataset_without_train_lists_its_splits(tmp_path):
    folder = write(tmp_path / "d", {"text": TEXT, "label": TEXT}, test=[{"text": "a", "label": "x"}])
    with pytest.raises(AptError, match="has no train split"):
        load_task("text-classification", DataSource(dataset_name=folder))


def test_a_local_python_script_is_not_run(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "d.py").write_text("raise SystemExit('run')")
    with pytest.raises(AptError, match="Datasets made by a Python script are not run"):
        load_task("text-classification", DataSource(dataset_name=str(tmp_path / "d")))


@pytest.fixture
def scripted(monkeypatch):
    """A Hub on which ``some/set`` is a script, with a Parquet copy of two configurations."""
    calls = []

    def load_dataset(name, config=None, **options):
        calls.append((name, config, options))
        if "revision" not in options:
            raise RuntimeError("Dataset scripts are no longer supported, but found set.py")
        return DatasetDict({"train": Dataset.from_dict({"text": ["a", "b"] * 5, "label": ["x", "y"] * 5})})

    files = ["README.md", "en/train/0000.parquet", "de/train/0000.parquet"]
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *args, **options: files)
    return calls


def test_a_script_on_the_hub_is_read_from_its_parquet_copy(scripted):
    load_task("text-classification", DataSource(dataset_name="some/set", dataset_config_name="de"))
    assert scripted[-1] == ("some/set", None, {"data_dir": "de", "revision": "refs/convert/parquet"})


def test_a_script_with_several_configurations_needs_one(scripted):
    with pytest.raises(AptError, match="dataset_config_name: got None for dataset 'some/set'; accepted: de, en"):
        load_task("text-classification", DataSource(dataset_name="some/set"))
