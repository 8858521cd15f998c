"""A run's predictions: which validation examples are right, their loss and their gates. Read with bounds; no text."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from analysis.entities import spans
from apt_core.config import describe
from apt_core.errors import AptFileNotFoundError, AptValueError
from apt_core.run_format import PREDICTIONS_FILE, RunInfo, read_json_lines

Kind = Literal["class", "choice", "tags", "target"]
"""what is predicted: a class, one of several choices, a tag for every word, or a text's sub-words one after another"""
OTHER_GATES = 2e-4
"""difference of a layer's mean gate in two files that no rounding explains: token gates have three digits or more"""
MAX_ID = 1_000
"""characters"""


class Examples(NamedTuple):
    """The validation examples of a run, in the order of the split. N examples, L layers."""

    kind: Kind
    ids: list[str]  # [N]
    gold: list[Any]
    """[N] class or choice: its name; tags: the tags; target: how many sub-words there are"""
    predicted: list[Any]
    """[N] as ``gold``; target: how many sub-words are ranked first"""
    error: np.ndarray
    """[N] 1 wrong, 0 right (tags: wrong if any entity is); target: share of sub-words not ranked first; NaN unknown"""
    loss: np.ndarray
    """[N] mean cross-entropy of the example in nats; NaN unknown"""
    gates: np.ndarray
    """[N, L] token gate averaged over the layer's virtual tokens, in (0, 1), 1 without a gate; NaN without a prefix"""


class _Row(BaseModel):
    """A line of ``predictions.jsonl``."""

    model_config = ConfigDict(extra="ignore")

    id: str = Field(max_length=MAX_ID)
    gold: int | list[str] | None = None
    predicted: int | list[str] | None = None
    tokens: int | None = Field(None, ge=0)
    right: int | None = Field(None, ge=0)
    loss: float | None = None
    layer_gates: list[float | None]


_ROWS = TypeAdapter(list[_Row])


def read_examples(folder: Path, info: RunInfo) -> Examples:
    """Reads ``predictions.jsonl`` of a run.

    Raises:
        AptFileNotFoundError: if there is none or it is empty, with the command that makes it.
        AptValueError: if it is a link, damaged, too large, or does not fit the run.
    """
    path = folder / PREDICTIONS_FILE
    lines = read_json_lines(path)
    if not lines:
        raise AptFileNotFoundError(
            f"{folder}: no predictions yet. 'python -m apt_core evaluate {folder} --split validation' makes them."
        )
    try:
        rows = _ROWS.validate_python(lines)
    except ValidationError as problem:
        number = problem.errors()[0]["loc"][0] + 1
        said = describe(problem).partition("; ")[0].partition(".")[2]
        raise AptValueError(f"{path}: row {number}: {said}") from problem
    kind = _kind(rows[0], info)
    for number, row in enumerate(rows, start=1):
        if wrong := _misfit(row, kind, info):
            raise AptValueError(f"{path}: row {number}: {wrong}.")
    gold, predicted = _answers(rows, kind, info)
    return Examples(
        kind,
        [row.id for row in rows],
        gold,
        predicted,
        _errors(gold, predicted, kind),
        np.array([row.loss for row in rows], dtype=np.float64),
        np.array([row.layer_gates for row in rows], dtype=np.float64).reshape(len(rows), info.num_layers),
    )


def with_token_gates(examples: Examples, places: Sequence[int], gates: np.ndarray) -> Examples:
    """Some of the examples, with a gate per virtual token in place of one per layer.

    Args:
        places: [n] which, counted from 0.
        gates: [n, L, P], NaN where a layer has no such token; becomes [n, L * P], layer by layer.

    Raises:
        AptValueError: if their means over a layer are not the gates of these examples.
    """
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a layer without virtual tokens
        apart = np.abs(np.nanmean(gates, axis=2, dtype=np.float64) - examples.gates[places])
    if np.nanmax(apart, initial=0.0) > OTHER_GATES:
        raise AptValueError(
            "the token gates are not of these predictions: they were written with other data, or another adapter. "
            "Remove predictions.jsonl, then 'evaluate --split validation --token-gates' writes both again."
        )
    return examples._replace(
        ids=[examples.ids[place] for place in places],
        gold=[examples.gold[place] for place in places],
        predicted=[examples.predicted[place] for place in places],
        error=examples.error[places],
        loss=examples.loss[places],
        gates=gates.reshape(len(gates), gates.shape[1] * gates.shape[2]).astype(np.float64),
    )


def names_of(answer: Any, kind: Kind) -> list[str]:
    """What a list can be filtered by: the class or the choice, or the types of the entities."""
    if kind == "target":
        return []
    return sorted({name for name, _, _ in spans(answer)}) if kind == "tags" else [answer]


def _kind(row: _Row, info: RunInfo) -> Kind:
    if row.tokens is not None:
        return "target"
    if isinstance(row.gold, list):
        return "tags"
    return "class" if info.labels else "choice"


def _misfit(row: _Row, kind: Kind, info: RunInfo) -> str | None:
    """What keeps a row from being one of this run's."""
    tags = [tag for answer in (row.gold, row.predicted) if isinstance(answer, list) for tag in answer]
    if not all(map(_is_text, tags)):
        return "gold and predicted: got tags that are no Unicode text"
    if len(row.layer_gates) != info.num_layers:
        return f"layer_gates: got {len(row.layer_gates)} numbers; accepted: {info.num_layers}"
    if any(gate is not None and not (0 <= gate <= 1 or np.isnan(gate)) for gate in row.layer_gates):
        return f"layer_gates: got {str(row.layer_gates)[:80]}; accepted: numbers from 0 to 1"
    if kind == "target":
        fits = row.tokens is not None and row.right is not None and row.right <= row.tokens
        return None if fits else f"right: got {row.right} of {row.tokens}; accepted: at most as many as there are"
    answers = (row.gold, row.predicted)
    if kind == "tags":
        fits = all(isinstance(answer, list) for answer in answers) and len(row.gold) == len(row.predicted)
        return None if fits else "gold and predicted are no two lists of as many tags"
    limit = len(info.labels) or MAX_ID
    fits = all(type(answer) is int and 0 <= answer < limit for answer in answers)
    return None if fits else f"gold and predicted: got {str(answers)[:80]}; accepted: numbers from 0 to {limit - 1}"


def _is_text(words: str) -> bool:
    try:
        words.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates, which JSON can hold
        return False
    return True


def _answers(rows: Sequence[_Row], kind: Kind, info: RunInfo) -> tuple[list[Any], list[Any]]:
    if kind == "target":
        return [row.tokens for row in rows], [row.right for row in rows]
    if kind == "tags":
        return [row.gold for row in rows], [row.predicted for row in rows]
    name = (lambda index: info.labels[index]) if kind == "class" else (lambda index: f"choice {index + 1}")
    return [name(row.gold) for row in rows], [name(row.predicted) for row in rows]


def _errors(gold: list[Any], predicted: list[Any], kind: Kind) -> np.ndarray:
    if kind == "target":
        pairs = zip(gold, predicted, strict=True)
        return np.array([1 - right / tokens if tokens else np.nan for tokens, right in pairs])
    read = spans if kind == "tags" else (lambda answer: answer)
    return np.array([float(read(one) != read(other)) for one, other in zip(gold, predicted, strict=True)])
