"""What the Errors page reads and computes, cached until the file or the run changes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import streamlit as st

from analysis.error_prediction import Prediction, answer_features, predict_errors
from analysis.error_views import VIEWS, entities_table
from analysis.errors import GroupTests, LayerTests, over_classes
from analysis.example_texts import SPLIT, Texts, load_texts
from analysis.examples import Examples, read_examples, with_token_gates
from analysis.runs import Run
from apt_core.errors import AptFileNotFoundError
from apt_core.example_gates_format import ExampleGates, example_gates_path, open_example_gates
from apt_core.run_format import PREDICTIONS_FILE, RunInfo
from apt_core.tasks.source import DataSource

TEXTS_KEPT = "10m"
"""how long texts are kept in memory; then the data is read again, which may have changed"""


MAX_TOKEN_GATES = 4_000_000
"""values that are compared by virtual token: the first examples that fit, 2,604 of 24 layers x 64 virtual tokens"""


class Predicted(NamedTuple):
    """The examples of a run as they were at a moment."""

    key: tuple[str, int, int]
    """folder, and what changes whenever the file does"""
    examples: Examples


class TokenTests(NamedTuple):
    """The numbers of a view for every virtual token."""

    groups: GroupTests
    """tests: [G, L * P], layer by layer"""
    num_examples: int


def predicted(run: Run) -> Predicted:
    """The predictions of a run.

    Raises:
        AptError: if there are none, or they cannot be read.
        OSError: if the folder may not be looked into.
    """
    path = run.folder / PREDICTIONS_FILE
    try:
        found = os.lstat(path)
        key = (str(run.folder), found.st_mtime_ns, found.st_size)
    except FileNotFoundError:
        key = (str(run.folder), 0, 0)
    return Predicted(key, _examples(key, run.info))


@st.cache_resource(max_entries=8, show_spinner="Reading the predictions")
def _examples(key: tuple[str, int, int], _info: RunInfo) -> Examples:
    return read_examples(Path(key[0]), _info)


def tests_of(data: Predicted, view: str) -> GroupTests:
    """The numbers of one view."""
    return _tests(data.key, view, data.examples)


@st.cache_resource(max_entries=32, show_spinner="Comparing gates")
def _tests(key: tuple[str, int, int], view: str, _examples: Examples) -> GroupTests:
    return VIEWS[view].tests(_examples)


def classes_of(data: Predicted, view: str) -> LayerTests:
    """Whether gates differ between any gold, or any predicted, classes."""
    return _classes(data.key, view, data.examples)


@st.cache_resource(max_entries=16, show_spinner=False)
def _classes(key: tuple[str, int, int], view: str, _examples: Examples) -> LayerTests:
    return over_classes(_examples.gates, _examples.gold if view == "gold" else _examples.predicted)


def predictions_of(data: Predicted) -> tuple[Prediction | str, Prediction | str]:
    """How well gates, and how well what is known without them, tell errors."""
    return _predictions(data.key, data.examples)


@st.cache_resource(max_entries=16, show_spinner="Predicting errors from gates")
def _predictions(key: tuple[str, int, int], _examples: Examples) -> tuple[Prediction | str, Prediction | str]:
    gates = predict_errors(_examples.gates, _examples.error)
    return gates, predict_errors(answer_features(_examples), _examples.error)


def entities_of(data: Predicted) -> pd.DataFrame:
    """How the entities of each type went."""
    return _entities(data.key, data.examples)


@st.cache_resource(max_entries=8, show_spinner=False)
def _entities(key: tuple[str, int, int], _examples: Examples) -> pd.DataFrame:
    return entities_table(_examples)


def texts_of(run: Run, source: DataSource) -> Texts:
    """The texts of a run's examples.

    Raises:
        AptError: if the data cannot be had.
    """
    return _texts(str(run.folder), json.dumps(source.given(), sort_keys=True), run.info, source)


@st.cache_resource(max_entries=4, ttl=TEXTS_KEPT, show_spinner="Reading the texts")
def _texts(folder: str, given: str, _info: RunInfo, _source: DataSource) -> Texts:
    return load_texts(_info, _source)


def token_gates_of(run: Run) -> ExampleGates:
    """The token gates of single examples.

    Raises:
        AptError: if they were not written, or cannot be read.
        OSError: if the folder may not be looked into.
    """
    return _token_gates(_token_gates_key(run), tuple(run.info.prefix_lengths))


def token_tests_of(run: Run, data: Predicted, view: str, gates: ExampleGates) -> TokenTests:
    """The numbers of one view for every virtual token.

    Raises:
        AptError: if the token gates are gone or cannot be read.
    """
    return _token_tests((*data.key, *_token_gates_key(run)), view, data.examples, gates)


def _token_gates_key(run: Run) -> tuple[str, int, int]:
    path = example_gates_path(run.folder, SPLIT)
    try:
        found = os.lstat(path)
    except FileNotFoundError as problem:
        raise AptFileNotFoundError(f"{path}: not written yet.") from problem
    return str(run.folder), found.st_mtime_ns, found.st_size


@st.cache_resource(max_entries=8, show_spinner=False)
def _token_gates(key: tuple[str, int, int], lengths: tuple[int, ...]) -> ExampleGates:
    return open_example_gates(Path(key[0]), SPLIT, lengths)


@st.cache_resource(max_entries=8, show_spinner="Comparing token gates")
def _token_tests(key: tuple[str | int, ...], view: str, _examples: Examples, _gates: ExampleGates) -> TokenTests:
    places = {name: place for place, name in enumerate(_examples.ids)}
    ids = _gates.ids[: MAX_TOKEN_GATES // max(1, _gates.mean.size)]
    rows = [row for row, name in enumerate(ids) if name in places]
    gates = _gates.read_many(0, len(ids))[rows]
    chosen = with_token_gates(_examples, [places[ids[row]] for row in rows], gates)
    return TokenTests(VIEWS[view].tests(chosen), len(rows))
