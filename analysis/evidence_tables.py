"""The numbers of the Evidence page as tables: curves, scores, agreement, layers and checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.agreement import Effects, layer_sums
from analysis.audit import Audit
from analysis.curves import complete_examples, loss_table
from analysis.verdict import ORDERS, THRESHOLDS
from apt_core.measure_format import IMPORTANCES, Measures


def curves_table(measures: Measures) -> pd.DataFrame:
    """One row per order and size: mean loss over the examples that have one everywhere, and the metric."""
    complete = complete_examples(measures)
    rows = []
    for curve in measures.curves:
        losses = loss_table(curve.points)[:, complete]
        means = losses.mean(axis=1) if complete.any() else np.full(len(losses), np.nan)
        rows += [
            {"order": curve.order, "kept": kept, "loss_nats": mean, "metric": point.metric}
            for kept, mean, point in zip(curve.kept, means, curve.points, strict=True)
        ]
    return pd.DataFrame(rows, columns=["order", "kept", "loss_nats", "metric"])


def scores_table(audit: Audit) -> pd.DataFrame:
    """One row per importance: areas between its curve and random, its reverse and the gates, nats with intervals."""
    rows = []
    for name, score in audit.numbers["orders"].items():
        row: dict[str, Any] = {"order": ORDERS[name]}
        for of in ("over_random", "over_reverse", "over_gates"):
            row |= _interval(of, score[of])
        row["share_of_gain"] = score["share"]
        row["random_bound"] = score["random_bound"]
        row["random_orders_beaten"] = score["random_beaten"]
        row["metric_over_random"] = score["metric_over_random"]
        rows.append(row)
    return pd.DataFrame(rows)


def agreement_table(audit: Audit) -> pd.DataFrame:
    """One row per importance and kind (layers, virtual tokens): rank correlations with the measured effect."""
    rows = []
    for kind, of in (("layers", "layers"), ("tokens", "virtual tokens")):
        for name in IMPORTANCES:
            found = audit.numbers[kind].get(name)
            if found is not None:
                rows.append(
                    {"importance": ORDERS[name], "over": of, "count": found["count"]}
                    | _interval("spearman", found["spearman"])
                    | {"kendall": found["kendall"], "chance": found["chance"]}
                )
    return pd.DataFrame(rows)


def layers_table(measures: Measures, effects: Effects | None) -> pd.DataFrame:
    """One row per layer: its tokens, the measured effect with its interval (nats), and the importances."""
    num_layers = len(measures.prefix_lengths)
    table = pd.DataFrame({"layer": np.arange(1, num_layers + 1), "virtual_tokens": measures.prefix_lengths})
    for name in ("mean", "low", "high"):
        column = np.full(num_layers, np.nan)
        if effects is not None:
            column[effects.places] = getattr(effects, name)
        table["effect_nats" if name == "mean" else f"effect_{name}"] = column
    for name, importance in measures.importance.items():
        table[name] = layer_sums(importance)
    return table


def checks_table(audit: Audit) -> pd.DataFrame:
    """One row per check of the verdict."""
    rows = [{"check": check.name, "level": check.level, "numbers": check.text} for check in audit.checks]
    return pd.DataFrame(rows, columns=["check", "level", "numbers"])


def thresholds_table() -> pd.DataFrame:
    """One row per threshold of the audit."""
    rows = [{"threshold": name, "value": value, "meaning": meaning} for name, (value, meaning) in THRESHOLDS.items()]
    return pd.DataFrame(rows)


def _interval(name: str, found: dict[str, float | None] | None) -> dict[str, float | None]:
    found = found or {"value": None, "low": None, "high": None}
    return {name: found["value"], f"{name}_low": found["low"], f"{name}_high": found["high"]}
