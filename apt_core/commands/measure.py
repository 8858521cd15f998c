"""``python -m apt_core measure``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from apt_core import options
from apt_core.measure_format import IMPORTANCES, MEASURES_FILE, Measures, Point


def measure_command(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="folder of a finished run")],
    split: Annotated[str, typer.Option(help="which examples: validation, test or train")] = "validation",
    cost: Annotated[
        float,
        typer.Option(help="how much may be computed, in training epochs of the run; 0: no limit, leave nothing out"),
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="of the examples drawn and the random orders", min=0)] = 0,
    data_dir: options.DataDir = None,
    dataset_name: options.DatasetName = None,
    dataset_config_name: options.DatasetConfigName = None,
    train_file: options.TrainFile = None,
    validation_file: options.ValidationFile = None,
    test_file: options.TestFile = None,
    device: options.Device = None,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> None:
    """Measure what each virtual token and layer is worth, and write it into RUN as measures.json.

    Four importances of every virtual token, the loss without each layer, and curves of removing tokens in several
    orders; nothing is trained. An earlier measures.json is replaced.
    """
    from apt_core.measure import measure_run
    from apt_core.train import TrainJob

    data = TrainJob.from_run(run).data.moved(**options.typed_place(context))
    measures = measure_run(run, split=split, cost=cost, seed=seed, data=data, device=device)
    if as_json:
        print(json.dumps(summary(measures, run)))
    else:
        print("\n".join(described(measures, run)))


class Change(NamedTuple):
    """Of the mean loss of the examples, in nats, without some tokens; above 0: the tokens help."""

    mean: float
    low: float
    high: float
    """ends of the 95 % interval of the mean (Student's t over the examples)"""


def change(full: Point, without: Point) -> Change | None:
    """How the loss changes from one model to another, over the examples that have one; None below two of them."""
    import numpy as np  # with the next line half a second, which other commands need not wait
    from scipy import stats

    pairs = zip(full.losses, without.losses, strict=True)
    differences = [after - before for before, after in pairs if before is not None and after is not None]
    if len(differences) < 2:
        return None
    mean, error = float(np.mean(differences)), float(stats.sem(differences))
    reach = error * float(stats.t.ppf(0.975, len(differences) - 1))
    return Change(mean, mean - reach, mean + reach)


def layer_shares(measures: Measures) -> dict[str, list[float]]:
    """Importance -> share of each layer in it [L], in [0, 1], sum 1; all 0 if nothing has any."""
    import numpy as np

    sums = {name: np.array([sum(layer) for layer in values]) for name, values in measures.importance.items()}
    return {name: (layers / (layers.sum() or 1)).tolist() for name, layers in sums.items()}


def summary(measures: Measures, run: Path) -> dict:
    """The result as one object: what the table shows, and where the rest is."""
    changes = [change(measures.full, point) if point else None for point in measures.layers]
    return {
        "run": str(run), "file": str(run / MEASURES_FILE), "split": measures.split,
        "examples": len(measures.example_ids), "examples_available": measures.examples_available,
        "seconds": measures.seconds, "cost": measures.cost, "metric_name": measures.metric_name,
        "metric": {"full": measures.full.metric, "empty": measures.empty.metric},
        "layer_shares": layer_shares(measures),
        "loss_without_layer": [found and found._asdict() for found in changes],
        "curves": [curve.order for curve in measures.curves], "notes": measures.notes,
    }  # fmt: skip


def described(measures: Measures, run: Path) -> list[str]:
    """The result as lines to read."""
    folder = shlex.quote(str(run))
    names, shares = list(IMPORTANCES), layer_shares(measures)
    lines = [
        f"{len(measures.example_ids)} of {measures.examples_available} {measures.split} examples, "
        f"{len(measures.curves)} curves, {measures.seconds:.0f} s ({measures.cost:.1f} epochs) -> "
        f"{run / MEASURES_FILE}",
        f"{measures.metric_name}: {_number(measures.full.metric)} with all {sum(measures.prefix_lengths)} virtual "
        f"tokens, {_number(measures.empty.metric)} without any",
        "",
        "share of each layer in                            loss without the layer, nats (95 %)",
        f"layer  tokens  {'  '.join(f'{name:>9}' for name in names)}",
    ]
    for layer, length in enumerate(measures.prefix_lengths):
        point = measures.layers[layer]
        found = change(measures.full, point) if point else None
        effect = "-" if found is None else f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
        columns = "  ".join(f"{shares[name][layer]:9.1%}" for name in names)
        lines.append(f"{layer + 1:5}  {length:6}  {columns}  {effect}")
    lines += ["", *(f"note: {note.replace('measure RUN', f'measure {folder}')}" for note in measures.notes)]
    return [*lines, "next:", f"  python -m analysis audit {folder}    # whether to follow the gates"]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
