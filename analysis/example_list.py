"""Which examples a list shows, in which order, and its rows."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from analysis.example_texts import whole_text
from analysis.examples import Examples, names_of
from apt_core.tasks.base import Example

PER_PAGE = 100
MAX_SHOWN_TEXT = 300
"""characters of a text in a row of the list"""
IN_ORDER, BY_LOSS = "order of the data", "loss"
Outcome = Literal["all", "wrong", "right"]


class Wanted(NamedTuple):
    """What is to be shown; an empty text leaves all."""

    outcome: Outcome = "all"
    gold: str = ""
    predicted: str = ""
    search: str = ""
    """part of the text, upper and lower case alike"""
    by: str = IN_ORDER
    largest_first: bool = True


def orders(examples: Examples) -> list[str]:
    """What the list can be sorted by."""
    present = np.flatnonzero(np.isfinite(examples.gates).any(axis=0))
    return [IN_ORDER, BY_LOSS, *(f"gate of layer {layer + 1}" for layer in present)]


def answers(examples: Examples) -> list[str]:
    """What can be gold or predicted: classes, choices or entity types, in alphabetical order."""
    both = (*examples.gold, *examples.predicted)
    return sorted({name for answer in both for name in names_of(answer, examples.kind)})


def choose(examples: Examples, wanted: Wanted, texts: dict[str, Example]) -> np.ndarray:
    """The examples to show, as places counted from 0, in the order to show them; unknown losses and gates go last.

    Args:
        texts: id to example, where they are known; a search finds nothing in the others.
    """
    kept = np.ones(len(examples.ids), dtype=bool)
    if wanted.outcome != "all":
        kept &= examples.error == (wanted.outcome == "wrong")
    for name, of in ((wanted.gold, examples.gold), (wanted.predicted, examples.predicted)):
        if name:
            kept &= np.array([name in names_of(answer, examples.kind) for answer in of])
    if wanted.search:
        words = wanted.search.casefold()
        kept &= np.array(
            [name in texts and words in whole_text(texts[name]).casefold() for name in examples.ids], dtype=bool
        )
    places = np.flatnonzero(kept)
    if wanted.by == IN_ORDER:
        return places
    layer = wanted.by.removeprefix("gate of layer ")
    values = (examples.loss if wanted.by == BY_LOSS else examples.gates[:, int(layer) - 1])[places]
    return places[np.argsort(-values if wanted.largest_first else values, kind="stable")]


def list_table(examples: Examples, places: np.ndarray, texts: dict[str, Example]) -> pd.DataFrame:
    """One row per example of ``places``, with each layer's gate; texts only where they are known."""
    table = pd.DataFrame({"id": [examples.ids[place] for place in places]})
    if examples.kind == "target":
        table["sub-words"] = [examples.gold[place] for place in places]
        table["ranked first"] = [examples.predicted[place] for place in places]
    else:
        table["outcome"] = np.where(examples.error[places] == 1, "wrong", "right")
        table["gold"] = [_shown(examples.gold[place], examples) for place in places]
        table["predicted"] = [_shown(examples.predicted[place], examples) for place in places]
    table["loss (nats)"] = examples.loss[places]
    if texts:
        known = (texts.get(examples.ids[place]) for place in places)
        table["text"] = ["" if example is None else _shortened(whole_text(example)) for example in known]
    for layer in np.flatnonzero(np.isfinite(examples.gates).any(axis=0)):
        table[f"layer {layer + 1}"] = examples.gates[places, layer]
    return table


def _shown(answer: str | list[str], examples: Examples) -> str:
    return answer if isinstance(answer, str) else ", ".join(names_of(answer, examples.kind)) or "no entity"


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_SHOWN_TEXT else text[: MAX_SHOWN_TEXT - 3] + "..."
