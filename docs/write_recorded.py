"""Writes the tables of recorded runs from the runs: ``python -m docs.write_recorded``.

They are in ``README.md`` and ``docs/errors.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from analysis.error_prediction import Prediction, answer_features, predict_errors, verdict
from analysis.examples import read_examples
from apt_core.markdown import table
from apt_core.run_format import RUN_FILE, RunInfo, read_run_info

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "sample_runs"
README, ERRORS = ROOT / "README.md", ROOT / "docs" / "errors.md"
_RUN_COLUMNS = ("run", "virtual tokens per layer", "metric", "validation", "test", "trained parameters", "training (s)")
_ERROR_COLUMNS = (
    "run",
    "a layer's gate differs by at most",
    "wrong",
    "ROC AUC of gates (95 %)",
    "of what is known without gates",
    "verdict",
)


def runs_table() -> str:
    """A row for every recorded run."""
    rows = []
    for folder, info in _recorded():
        metric = [f"{info.metrics[split][info.metric_name]:.3f}" for split in ("validation", "test")]
        trained = sum(count for part, count in info.num_parameters.items() if part != "frozen")
        lengths = " ".join(map(str, info.prefix_lengths))
        name = info.metric_name.replace("_", " ")
        rows.append([f"`{folder.name}`", lengths, name, *metric, f"{trained:,}", f"{info.seconds:.0f}"])
    return table(_RUN_COLUMNS, rows)


def errors_table() -> str:
    """A row for every recorded run with token gates that was not made from another one: do its gates tell errors?"""
    rows = []
    for folder, info in _recorded():
        if info.parent is not None or info.apt_config["token_gate"] == "none":
            continue
        examples = read_examples(folder, info)
        gates = predict_errors(examples.gates, examples.error)
        answer = predict_errors(answer_features(examples), examples.error)
        wrong = f"{int(np.nansum(examples.error)):,} of {len(examples.error):,}"
        word = verdict(gates).partition(": ")[2].partition(" (")[0]
        differs = f"{np.nanmax(np.ptp(examples.gates, axis=0)):.4f}"
        rows.append([folder.name, differs, wrong, _score(gates), _score(answer), word])
    return table(_ERROR_COLUMNS, rows)


def _recorded() -> Iterator[tuple[Path, RunInfo]]:
    for path in sorted(RUNS.glob(f"*/{RUN_FILE}")):
        yield path.parent, read_run_info(path.parent)


def _score(found: Prediction | str) -> str:
    return found if isinstance(found, str) else f"{found.auc:.2f} ({found.low:.2f} to {found.high:.2f})"


def replaced(text: str, columns: Sequence[str], new: str) -> str:
    """``text`` with ``new`` in place of its table of these columns.

    Raises:
        ValueError: if there is no such table.
    """
    lines = text.split("\n")
    first = lines.index(f"| {' | '.join(columns)} |")
    last = next(index for index in range(first, len(lines)) if not lines[index].startswith("|"))
    return "\n".join([*lines[:first], new, *lines[last:]])


def pages() -> dict[Path, str]:
    """Each page as it should be."""
    tables = {README: (_RUN_COLUMNS, runs_table()), ERRORS: (_ERROR_COLUMNS, errors_table())}
    return {page: replaced(page.read_text(encoding="utf-8"), *about) for page, about in tables.items()}


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
