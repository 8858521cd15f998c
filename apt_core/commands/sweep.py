"""``python -m apt_core sweep``."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apt_core import options
from apt_core.jobs.places import Executor

if TYPE_CHECKING:
    from apt_core.sweep import Outcome
    from apt_core.sweep_begin import Checked
    from apt_core.sweep_look import Standing


def sweep_command(
    spec: Annotated[Path, typer.Argument(help="TOML file: tasks, seeds, budgets, methods, learning_rates, [train]")],
    out: Annotated[
        Path | None,
        typer.Option(help="folder for the runs; the same one goes on with it [default: runs/<name of SPEC>]"),
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option(
            help="trainings at once on the processor, 1 to 1024 [default: APT_SLOTS, or one for every two cores]; a "
            "GPU has one at a time"
        ),
    ] = None,
    executor: Annotated[
        Executor,
        typer.Option(help="where trainings run: this machine, or a Ray cluster whose nodes see --out and the data"),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="the cluster's dashboard, such as http://127.0.0.1:8265 [default: APT_RAY_ADDRESS]"),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="also try again what had failed before; else it is only reported")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, print the plan and what exists, and start nothing")
    ] = False,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> None:
    """Train a grid of tasks, seeds, budgets, methods and learning rates as jobs, and print a table of the results.

    What is finished in --out is kept, what was interrupted goes on: run the same command again after anything. Ctrl-C
    ends only this command; jobs that were submitted go on. Exit code 1: something failed or was stopped.
    """
    from apt_core.jobs.devices import cpu_slots
    from apt_core.sweep import drive
    from apt_core.sweep_begin import Place, begin, check_sweep
    from apt_core.sweep_format import Recorded, Sweep
    from apt_core.sweep_look import look
    from apt_core.sweep_process import jobs_of, only_driver
    from apt_core.sweep_spec import parse_spec, spec_bytes

    out = out or Path("runs") / spec.stem
    content = spec_bytes(spec.resolve() if spec.is_symlink() else spec)
    parse_spec(content, str(spec))
    if slots is not None:
        cpu_slots(slots)
    jobs = jobs_of(out, Sweep(executor=executor, address=address, slots=slots))
    where = Place(executor, address, slots)
    if dry_run:
        checked = check_sweep(content, str(spec), out, where)
        _print_plan(look(Recorded(out, checked.spec, checked.sweep, checked.plan), jobs), out, as_json)
        return
    with only_driver(out):
        checked = check_sweep(content, str(spec), out, where)
        begin(out, checked)
        outcome = drive(out, jobs, retry_failed=retry_failed, say=_say)
    _print_outcome(outcome, checked, out, as_json)
    if not outcome.complete:
        raise typer.Exit(1)


def _print_plan(standings: Sequence[Standing], out: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"out": str(out), "trainings": [_row(each) for each in standings]}))
        return
    there = sum(each.trained for each in standings)
    for each in standings:
        training = each.training
        lengths = "" if training.prefix_lengths is None else " ".join(map(str, training.prefix_lengths))
        from_run = f"from {training.parent}" if training.parent else lengths
        print(f"{each.state:<12} {training.total:>5} virtual tokens  {training.name}  {from_run}")
    print(f"\n{len(standings)} trainings, {there} of them finished, {len(standings) - there} to do -> {out}")


def _print_outcome(outcome: Outcome, checked: Checked, out: Path, as_json: bool) -> None:
    from apt_core.sweep_look import runs_of
    from apt_core.sweep_summary import SPLITS, summarise, table_text

    cells = summarise(checked.plan, runs_of(outcome.standings))
    splits = SPLITS if checked.spec.test else SPLITS[:1]
    if as_json:
        rows = [_row(each) for each in outcome.standings]
        cell_rows = [
            {
                "task": cell.task, "learning_rate": cell.learning_rate, "total": cell.total, "method": cell.method,
                "seeds": sorted(cell.runs), "asked": cell.seeds, "metric_name": cell.metric_name,
                "parameters": cell.parameters,
                **{split: cell.metric[split]._asdict() for split in splits},
                "against_uniform": {
                    split: None if found is None else {"mean": found.mean, "low": found.low, "high": found.high}
                    for split, found in cell.against_uniform.items() if split in splits
                },
            }
            for cell in cells
        ]  # fmt: skip
        result = {"out": str(out), "complete": outcome.complete, "stopped": outcome.stopped}
        print(json.dumps({**result, "cells": cell_rows, "trainings": rows}))
        return
    print(f"\n{table_text(cells, splits)}")
    _print_rest(outcome.standings, out)
    print("\nnext:")
    print(f"  streamlit run app.py -- --runs {shlex.quote(str(out))}    # the Sweeps page shows it")


def _print_rest(standings: Sequence[Standing], out: Path) -> None:
    """What is not finished, and why."""
    left = [each for each in standings if each.state != "finished"]
    if not left:
        return
    print(f"\nnot finished: {len(left)}")
    for each in left:
        reason = f": {each.reason}" if each.reason else ""
        waits = f": waits for {each.training.parent}" if each.state == "waiting" and each.training.parent else reason
        print(f"  {each.training.name}  {each.state}{waits}")
    if any(each.state == "failed" for each in left):
        print(
            f"--retry-failed tries them again; 'python -m apt_core jobs list --runs {shlex.quote(str(out))}' lists logs"
        )


def _row(standing: Standing) -> dict[str, Any]:
    training, info = standing.training, standing.info
    return {
        "name": training.name, "task": training.task, "learning_rate": training.learning_rate, "seed": training.seed,
        "total": training.total, "method": training.method, "parent": training.parent, "state": standing.state,
        "reason": standing.reason, "prefix_lengths": info.prefix_lengths if info else training.prefix_lengths,
        "metrics": info.metrics if info else {},
    }  # fmt: skip


def _say(line: str) -> None:
    from tqdm.auto import tqdm

    tqdm.write(line, file=sys.stderr)
