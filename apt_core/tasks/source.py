"""Where a task's data is and which columns hold what, as a person says it; no torch."""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from apt_core.config import Settings

Name = Annotated[str, Field(min_length=1)]

FILES = ("train_file", "validation_file", "test_file")
PLACES = ("data_dir", "dataset_name", "dataset_config_name", *FILES)
COLUMNS = (
    "text_column",
    "text_pair_column",
    "label_column",
    "tokens_column",
    "tags_column",
    "prompt_column",
    "target_column",
)


class DataSource(Settings):
    """A place (a folder, a dataset, or files) and what its columns mean.

    Raises:
        AptValueError: on fields that contradict each other, all in one sentence each.
    """

    data_dir: Name | None = None
    """folder with the task's files: train, validation (or dev, valid) and test, with an ending that says the format"""
    dataset_name: Name | None = None
    """dataset on the Hugging Face Hub, or a local dataset folder"""
    dataset_config_name: Name | None = None
    """configuration of the dataset (a Hub dataset's subset)"""
    train_file: Name | None = None
    """training examples: .csv, .tsv, .jsonl, .json, .parquet, or CoNLL (.conll, .iob, .bio, .txt)"""
    validation_file: Name | None = None
    """validation examples; without them a share of the training examples is set aside"""
    test_file: Name | None = None
    """test examples; never needed for training"""
    text_column: Name | None = None
    """column with the text (default: text)"""
    text_pair_column: Name | None = None
    """column with a second text, for classification of pairs"""
    label_column: Name | None = None
    """column with the class: text, whole numbers or booleans (default: label)"""
    tokens_column: Name | None = None
    """column with the list of tokens (default: tokens); in CoNLL files its number, counted from 0 (default: 0)"""
    tags_column: Name | None = None
    """column with one tag per token (default: tags); in CoNLL files its number, -1 is the last (default: -1)"""
    prompt_column: Name | None = None
    """column with what the model is given (default: prompt)"""
    target_column: Name | None = None
    """column with what the model is to write (default: target)"""
    tag_scheme: Literal["auto", "iob1", "iob2", "bioes"] = "auto"
    """how tags mark the spans of entities; bioes is BILOU too; auto: found in the training tags"""
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    """share of the training examples set aside where there is no validation split, the same for every seed"""

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        problems = [*self._places_at_odds(), *self._columns_at_odds()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _places_at_odds(self) -> list[str]:
        files = [name for name in FILES if getattr(self, name)]
        places = [name for name in ("data_dir", "dataset_name") if getattr(self, name)] + files[:1]
        problems = [f"{one} and {other} are two places; give one" for one, other in combinations(places, 2)]
        if files and not self.train_file:
            problems.append(f"{files[0]} needs train_file; give the training examples too")
        if self.dataset_config_name and not self.dataset_name:
            problems.append("dataset_config_name is part of a dataset; give dataset_name too")
        return problems

    def _columns_at_odds(self) -> list[str]:
        given = [name for name in COLUMNS if getattr(self, name)]
        problems = [
            f"{one} and {other} are both {getattr(self, one)!r}; name two columns"
            for one, other in combinations(given, 2)
            if getattr(self, one) == getattr(self, other)
        ]
        kinds = (
            ("text_column", "text_pair_column", "label_column"),
            ("tokens_column", "tags_column"),
            ("prompt_column", "target_column"),
        )
        used = [next(name for name in kind if name in given) for kind in kinds if set(kind) & set(given)]
        problems += [f"{one} and {other} belong to different tasks; give one" for one, other in combinations(used, 2)]
        return problems

    @property
    def place(self) -> str | None:
        """The field that says where the data is; None where nothing does."""
        return next((name for name in ("data_dir", "dataset_name", "train_file") if getattr(self, name)), None)

    def moved(self, **place: str) -> Self:
        """The same columns at another place: data may have moved since a run was trained.

        Args:
            place: ``data_dir``, or fields of a dataset, or of files; those not given of the same kind stay.
        """
        kinds = (("data_dir",), ("dataset_name", "dataset_config_name"), FILES)
        left = {field for kind in kinds if place and not set(kind) & place.keys() for field in kind}
        kept = {field: value for field, value in self.given().items() if field not in left}
        return type(self)(**{**kept, **place})

    def given(self) -> dict[str, Any]:
        """Only what differs from the defaults, fit for JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)
