"""Measured transfers in the folders of runs: found, checked, and as tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis.runs import Rejected, folders_holding, shown
from apt_core.errors import AptError
from apt_core.transfer_format import ARMS, TRANSFER_FILE, Transfer, read_transfer
from apt_core.transfer_summary import Summary

MAX_TRANSFERS = 200


class Found(NamedTuple):
    """What is in the folders of runs."""

    transfers: dict[str, Transfer]
    """folder -> report, the latest first"""
    rejected: list[Rejected]


def find_transfers(roots: Iterable[Path]) -> Found:
    """Reports in ``roots`` themselves and in folders directly inside; links are never followed.

    Only the first ``MAX_TRANSFERS`` are read; the rest are listed as rejected.
    """
    transfers: dict[str, Transfer] = {}
    rejected = []
    for folder in folders_holding(roots, TRANSFER_FILE):
        if len(transfers) == MAX_TRANSFERS:
            rejected.append(Rejected(folder, f"only the first {MAX_TRANSFERS} transfers are read"))
            continue
        try:
            transfers[folder.as_posix()] = read_transfer(folder)
        except (AptError, OSError) as problem:
            rejected.append(Rejected(folder, shown(problem)))
    latest = sorted(transfers.items(), key=lambda item: (item[1].updated_at, item[0]), reverse=True)
    return Found(dict(latest), rejected)


def arms_table(found: Summary) -> pd.DataFrame:
    """One row per arm: mean, half length of the interval, seeds, lengths."""
    return pd.DataFrame(
        {
            "lengths of": arm,
            "mean": metric.mean,
            "interval_half": metric.half,
            "seeds": metric.count,
            "prefix_lengths": " ".join(map(str, lengths[0])) if len(lengths) == 1 else "drawn for each seed",
            "what": ARMS[arm],
        }
        for arm, metric, lengths in found.arms
    )


def differences_table(found: Summary) -> pd.DataFrame:
    """One row per pair of arms; above 0 is better for the first."""
    return pd.DataFrame(
        {
            "lengths of": each.arm,
            "against": each.other,
            "difference": each.difference.mean if each.difference else None,
            "low": each.difference.low if each.difference else None,
            "high": each.difference.high if each.difference else None,
            "pairs": each.difference.count if each.difference else 0,
            "result": each.words,
        }
        for each in found.compared
    )


def runs_table(transfers: dict[str, Transfer]) -> pd.DataFrame:
    """One row per run of every transfer."""
    return pd.DataFrame(
        {
            "folder": folder,
            "source": report.source,
            "source_task": report.source_task,
            "task": report.task,
            "total": report.total,
            "arm": run.arm,
            "seed": run.seed,
            "run": run.folder,
            "prefix_lengths": " ".join(map(str, run.prefix_lengths)),
            "metric_name": report.metric_name,
            "metric": run.metric,
        }
        for folder, report in transfers.items()
        for run in report.runs
    )
