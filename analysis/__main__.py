"""The command line: ``python -m analysis budget``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from analysis.budgets import METHODS, allocate
from analysis.gate_sample import final_weights
from analysis.gate_stats import layer_mass
from analysis.runs import open_run
from apt_core.command_line import run_typer

app = typer.Typer(
    help="Reads run folders: which layers use their prefix, and how few virtual tokens are enough.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback()
def main() -> None:
    """Reads run folders: which layers use their prefix, and how few virtual tokens are enough."""


@app.command("budget")
def budget_command(
    run: Annotated[Path, typer.Argument(help="run folder with recorded gates")],
    total: Annotated[int, typer.Option(help="virtual tokens over all layers")],
    method: Annotated[str, typer.Option(help="one of: " + ", ".join(METHODS))] = "share",
    min_per_layer: Annotated[int, typer.Option(help="virtual tokens every layer gets at least")] = 0,
    max_per_layer: Annotated[
        int | None, typer.Option(help="virtual tokens a layer gets at most [default: none for share, else what it has]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as one JSON object on stdout")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
) -> None:
    """Suggest a prefix length for every layer from the gates of a run."""
    opened = open_run(run)
    weights = final_weights(opened.gates)
    budget = allocate(weights, total, method, min_per_layer, max_per_layer)
    if as_json:
        result = {
            "prefix_lengths": list(budget.prefix_lengths),
            "total": budget.total,
            "method": budget.method,
            "run": str(run),
            "min_per_layer": min_per_layer,
            "max_per_layer": max_per_layer,
        }
        print(json.dumps(result))
        return
    mass = layer_mass(weights)
    print(f"{method}: {METHODS[method].description}\n")
    print("layer  gate mass  now  suggested")
    for layer, length in enumerate(budget.prefix_lengths):
        share = mass[layer] / mass.sum() if mass.sum() else 0.0
        print(f"{layer + 1:>5}  {share:>8.1%}  {opened.info.prefix_lengths[layer]:>4}  {length:>9}")
    print(f"total  {1:>8.0%}  {opened.info.total_tokens:>4}  {budget.total:>9}")
    lengths = ",".join(map(str, budget.prefix_lengths))
    print(f"\nnext:\n  python -m apt_core retrain {shlex.quote(str(run))} --prefix-lengths {lengths}")


if __name__ == "__main__":
    run_typer(app)
