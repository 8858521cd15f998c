"""The comparisons that the Errors page offers: which examples against which, in numbers, a table and a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.entities import ARROW, confusion_outcomes, entity_errors, type_outcomes
from analysis.errors import (
    FALSE_DISCOVERIES,
    MIN_GROUP,
    GroupTests,
    LayerTests,
    against_mean,
    correlation,
    differing,
    group_differences,
    outcome_differences,
)
from analysis.examples import Examples, Kind

DIFFERENCE = "difference of mean token gate"
CORRELATION = "Spearman correlation (-1 to 1)"


class View(NamedTuple):
    """One comparison."""

    kinds: tuple[Kind, ...]
    """what must be predicted for it to make sense"""
    tests: Callable[[Examples], GroupTests]
    title: str
    """of the figure; ``{name}`` is the group's"""
    unit: str
    group: str
    """what a group is called; empty where there is one only"""


VIEWS: dict[str, View] = {
    "wrong or right": View(
        ("class", "choice", "tags"),
        lambda examples: outcome_differences(examples.gates, {"wrong": examples.error}),
        "Token gates: wrong minus right examples",
        DIFFERENCE,
        "",
    ),
    "entity type": View(
        ("tags",),
        lambda examples: outcome_differences(examples.gates, type_outcomes(examples.gold, examples.predicted)),
        "Token gates: examples with a mistake in {name} minus those with all of {name} right",
        DIFFERENCE,
        "entity type",
    ),
    "entity confusion": View(
        ("tags",),
        lambda examples: against_mean(
            outcome_differences(examples.gates, confusion_outcomes(examples.gold, examples.predicted))
        ),
        "Token gates: examples with {name} (gold" + ARROW + "predicted) minus the mean of all examples",
        DIFFERENCE,
        "gold" + ARROW + "predicted",
    ),
    "gold": View(
        ("class", "choice"),
        lambda examples: group_differences(examples.gates, examples.gold),
        "Token gates: examples that are {name} minus all others",
        DIFFERENCE,
        "gold class",
    ),
    "predicted": View(
        ("class", "choice"),
        lambda examples: group_differences(examples.gates, examples.predicted),
        "Token gates: examples predicted as {name} minus all others",
        DIFFERENCE,
        "predicted class",
    ),
    "confusion": View(
        ("class", "choice"),
        lambda examples: against_mean(group_differences(examples.gates, pair_names(examples))),
        "Token gates: {name} (gold" + ARROW + "predicted) minus the mean of all examples",
        DIFFERENCE,
        "gold" + ARROW + "predicted",
    ),
    "loss": View(
        ("class", "choice", "tags", "target"),
        lambda examples: _correlated(examples, examples.loss, "loss"),
        "Token gates and loss",
        CORRELATION,
        "",
    ),
    "sub-words": View(
        ("target",),
        lambda examples: _correlated(examples, examples.error, "sub-words"),
        "Token gates and the share of sub-words not ranked first",
        CORRELATION,
        "",
    ),
}
"""name on the page -> comparison"""


def pair_names(examples: Examples) -> list[str]:
    """Gold and predicted answer of each example, as one name."""
    return [f"{gold}{ARROW}{predicted}" for gold, predicted in zip(examples.gold, examples.predicted, strict=True)]


def groups_with_numbers(groups: GroupTests) -> list[int]:
    """The groups for which there are numbers."""
    return np.flatnonzero(np.isfinite(groups.tests.value).any(axis=1)).tolist()


def sentence(tests: LayerTests, unit: str) -> str:
    """What a comparison found, in words; how large it is beside whether it is there.

    Args:
        tests: of one group, [L].
        unit: of the view.
    """
    tested = int(np.isfinite(tests.adjusted).sum())
    if not tested:
        return "No layer could be tested."
    layers = differing(tests).tolist()
    if not layers:
        return (
            f"No layer differs: the adjusted p-value is {FALSE_DISCOVERIES} or more in all {tested} that were tested."
        )
    largest = max(layers, key=lambda layer: abs(tests.effect[layer - 1]))
    said = f"layer {layers[0]} differs" if len(layers) == 1 else f"layers {', '.join(map(str, layers))} differ"
    value, effect = tests.value[largest - 1], tests.effect[largest - 1]
    in_spreads = f"{value:+.2g}, {abs(effect):.2f} standard deviations"
    size = f"a correlation of {value:+.2f}" if unit == CORRELATION else in_spreads
    return f"Of {tested} layers tested, {said}. The clearest is layer {largest}: {size}."


def tokens_sentence(tests: LayerTests, unit: str, num_tokens: int) -> str:
    """What a comparison of single virtual tokens found, in words.

    Args:
        tests: of one group, [L * P], layer by layer.
        num_tokens: P.
    """
    tested, counts = int(np.isfinite(tests.adjusted).sum()), differing(tests) - 1
    if not tested:
        return "No virtual token could be tested."
    if not len(counts):
        return f"No virtual token differs: the adjusted p-value is {FALSE_DISCOVERIES} or more in all {tested} tested."
    layer, token = divmod(int(max(counts, key=lambda place: abs(tests.effect[place]))), num_tokens)
    layers = sorted(set((counts // num_tokens + 1).tolist()))
    where = f"layer {layers[0]}" if len(layers) == 1 else f"layers {', '.join(map(str, layers))}"
    said = "differs" if len(counts) == 1 else "differ"
    value, effect = tests.value[layer * num_tokens + token], tests.effect[layer * num_tokens + token]
    size = f"a correlation of {value:+.2f}" if unit == CORRELATION else f"{value:+.2g}, {abs(effect):.2f} SD"
    return (
        f"Of {tested} virtual tokens tested, {len(counts)} {said} (dots), in {where}. The clearest is virtual token "
        f"{token + 1} of layer {layer + 1}: {size}."
    )


def classes_sentence(tests: LayerTests) -> str:
    """Whether gates differ between any classes at all, in words; ``tests`` from ``over_classes``."""
    tested = int(np.isfinite(tests.adjusted).sum())
    if not tested:
        return "Whether gates differ between classes at all could not be tested."
    layers = differing(tests).tolist()
    said = f"in layers {', '.join(map(str, layers))}" if layers else "in no layer"
    most = np.nanmax(tests.effect)
    return (
        f"Over all classes (Kruskal and Wallis), gates differ {said} of {tested} tested; classes account for at most "
        f"{most:.0%} of a layer's variance of ranks."
    )


def groups_table(groups: GroupTests) -> pd.DataFrame:
    """One row per group and layer, every number; for download."""
    num_groups, num_layers = groups.tests.value.shape
    table = pd.DataFrame(
        {
            "group": np.repeat(np.array(groups.names, dtype=object), num_layers),
            "examples": np.repeat(groups.counts[:, 0], num_layers),
            "compared_with": np.repeat(groups.counts[:, 1], num_layers),
            "layer": np.tile(np.arange(1, num_layers + 1), num_groups),
        }
    )
    for name, values in zip(groups.tests._fields, groups.tests, strict=True):
        table[name] = values.ravel()
    return table


def summary_table(view: View, groups: GroupTests, examples: Examples) -> pd.DataFrame:
    """One row per group: its size, how often it is wrong, and the layer that differs most; for the page."""
    rows = []
    wrong = _share_wrong(view, examples)
    for index, name in enumerate(groups.names):
        tests = groups.tests.of(index)
        known = np.isfinite(tests.effect)
        most = int(np.argmax(np.where(known, np.abs(tests.effect), -1)))
        rows.append(
            {
                view.group: name,
                "examples": int(groups.counts[index, 0]),
                "share wrong": wrong.get(name, np.nan),
                "layers that differ": ", ".join(map(str, differing(tests)))
                or ("none" if known.any() else "not tested"),
                "clearest layer": most + 1 if known.any() else None,
                "difference there": tests.value[most],
                "in SD": tests.effect[most],
                "adjusted p": tests.adjusted[most],
            }
        )
    if not rows:
        return pd.DataFrame(columns=[view.group])
    table = pd.DataFrame(rows).astype({"clearest layer": "Int64"})
    if view.group == "entity type":
        table = table.rename(columns={"examples": "examples with a mistake"})
    return table if wrong else table.drop(columns="share wrong")


def entities_table(examples: Examples) -> pd.DataFrame:
    """One row per entity type: how its entities went, and strict scores."""
    return pd.DataFrame(
        {
            "entity type": found.name,
            "entities": found.gold,
            "right": found.right,
            "wrong": found.wrong,
            "missed": found.missed,
            "invented": found.invented,
            "precision": found.precision,
            "recall": found.recall,
            "F1": found.f1,
        }
        for found in entity_errors(examples.gold, examples.predicted)
    )


def untested_note(groups: GroupTests) -> str:
    """How many groups are too small to be compared; empty if none is."""
    small = int((groups.counts.min(axis=1) < MIN_GROUP).sum()) if len(groups.names) else 0
    if not small:
        return ""
    return (
        f"{small} of {len(groups.names)} are not compared: there are fewer than {MIN_GROUP} examples on one side of "
        "the comparison."
    )


def _share_wrong(view: View, examples: Examples) -> dict[str, float]:
    names = {"gold class": examples.gold, "predicted class": examples.predicted}.get(view.group)
    return {} if names is None else pd.Series(examples.error).groupby(pd.Series(names, dtype=object)).mean().to_dict()


def _correlated(examples: Examples, values: np.ndarray, name: str) -> GroupTests:
    found = correlation(examples.gates, values)
    counts = np.array([[np.isfinite(values).sum(), 0]])
    return GroupTests([name], counts, LayerTests(*(part[None] for part in found)))
