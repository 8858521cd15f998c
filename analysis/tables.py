"""The numbers behind a figure as a long table, for download."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.gate_stats import LayerProfile
from analysis.settling import Settling


def cells_table(step: int, **columns: np.ndarray) -> pd.DataFrame:
    """One row per layer and virtual token, counted from 1, that any column has: named arrays [L, P]."""
    num_layers, num_tokens = next(iter(columns.values())).shape
    layer, token = np.mgrid[1 : num_layers + 1, 1 : num_tokens + 1]
    table = pd.DataFrame({"step": step, "layer": layer.ravel(), "virtual_token": token.ravel()})
    for name, values in columns.items():
        table[name] = values.ravel()
    return table.dropna(subset=list(columns), how="all").reset_index(drop=True)


def profile_table(step: int, profile: LayerProfile) -> pd.DataFrame:
    """One row per layer."""
    layers = np.arange(1, len(profile.mean) + 1)
    return pd.DataFrame(
        {
            "step": step,
            "layer": layers,
            "mean": profile.mean,
            "sd_over_virtual_tokens": profile.over_tokens,
            "sd_over_batch": profile.over_batch,
        }
    )


def traces_table(
    steps: np.ndarray, values: np.ndarray, labels: Sequence[str], quantity: str = "value", **others: np.ndarray
) -> pd.DataFrame:
    """One row per recorded step and chosen token (``layer.token``), every step, not only the drawn ones.

    Args:
        steps: recorded ones [S].
        values: as recorded [S, tokens].
        labels: of the tokens.
        quantity: what the values are.
        others: further columns by name, of steps [S] or of values [S, tokens].
    """
    columns = {name: np.tile(each, len(labels)) if each.ndim == 1 else each.T.ravel() for name, each in others.items()}
    return pd.DataFrame(
        {
            "step": np.tile(steps, len(labels)),
            "layer_token": np.repeat(np.array(labels, dtype=object), len(steps)),
            quantity: values.T.ravel(),
            **columns,
        }
    )


def settling_table(settled: Settling) -> pd.DataFrame:
    """One row per virtual token: whether and when its weight settled."""
    layer, token = np.nonzero(settled.exists)
    return pd.DataFrame(
        {
            "layer": layer + 1,
            "virtual_token": token + 1,
            "settled": settled.settled[layer, token],
            "settled_at_step": settled.step[layer, token],
        }
    )


def metrics_table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The lines of ``metrics.jsonl`` as they are, one row each; what is no number or text is left out."""
    plain = [{name: value for name, value in row.items() if isinstance(value, int | float | str)} for row in rows]
    table = pd.DataFrame(plain)
    mixed = [name for name in table.columns if table[name].dtype == object]
    return table.astype(dict.fromkeys(mixed, str))


def profiles_table(lines: Iterable[tuple[str, np.ndarray, np.ndarray | None]]) -> pd.DataFrame:
    """One row per run and layer: (name, mean [L], half length of the interval [L] or None)."""
    parts = [
        pd.DataFrame(
            {
                "run": name,
                "layer": np.arange(1, len(mean) + 1),
                "value": mean,
                "interval_half": np.full(len(mean), np.nan) if half is None else half,
            }
        )
        for name, mean, half in lines
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def lengths_table(names: Sequence[str], lengths: Sequence[Sequence[int]]) -> pd.DataFrame:
    """One row per run and layer: its virtual tokens."""
    rows = [
        {"run": name, "layer": layer, "virtual_tokens": length}
        for name, each in zip(names, lengths, strict=True)
        for layer, length in enumerate(each, start=1)
    ]
    return pd.DataFrame(rows, columns=["run", "layer", "virtual_tokens"])
