"""``python -m analysis budget``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from analysis.audit import Audit, audit_run, not_retrainable, trained_by_command
from analysis.budgets import uniform
from analysis.budgets.known import budget_file, costs_of, measures_of
from analysis.budgets.limits import LIMITS
from analysis.budgets.methods import METHODS
from analysis.budgets.pareto import Tolerance, parse_tolerance
from analysis.budgets.rules import NO_LOCKS, Rules, parse_locks, parse_per_layer
from analysis.budgets.suggest import Ask, Evidence, Suggestion, suggest
from analysis.budgets.weighing import EFFECT, layer_effect, measure_command
from analysis.gate_stats import layer_mass
from analysis.runs import Run, open_run
from analysis.verdict import UNIFORM
from apt_core.budget_file import write_budget
from apt_core.command_line import say
from apt_core.errors import AptValueError
from apt_core.measure_format import IMPORTANCES, Measures
from apt_core.settled import final_weights


def budget_command(
    run: Annotated[Path, typer.Argument(help="run folder with recorded gates")],
    total: Annotated[int | None, typer.Option(help="limit: virtual tokens over all layers")] = None,
    parameters: Annotated[int | None, typer.Option(help="limit: trained parameters, the head's included")] = None,
    kv_bytes: Annotated[
        int | None,
        typer.Option("--kv-bytes", help="limit: bytes added to the KV cache of one sequence"),
    ] = None,
    milliseconds: Annotated[
        float | None, typer.Option(help="limit: milliseconds that virtual tokens add to a forward pass, as measured")
    ] = None,
    coverage: Annotated[
        float | None, typer.Option(help="instead of a limit: per cent of each layer's weight to keep, such as 90")
    ] = None,
    tolerance: Annotated[
        str | None,
        typer.Option(help="instead of a limit: how far over the full loss, in nats such as 0.05, or per cent: 5%"),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="; ".join(f"{name}: {entry.description}" for name, entry in METHODS.items())
            + " [default: share; coverage with --coverage, pareto with --tolerance]"
        ),
    ] = None,
    importance: Annotated[
        str | None,
        typer.Option(
            help="what a virtual token weighs, for the methods that share weights out: "
            + "; ".join(f"{name}: {about}" for name, about in IMPORTANCES.items())
            + "; all but gate need 'python -m apt_core measure RUN' [default: gate]"
        ),
    ] = None,
    min_per_layer: Annotated[
        str, typer.Option(help="virtual tokens every layer gets at least; one number, or one per layer: 0,2,4")
    ] = "0",
    max_per_layer: Annotated[
        str | None,
        typer.Option(
            help="virtual tokens a layer gets at most; one number, or one per layer [default: none for share, else "
            "what it has]"
        ),
    ] = None,
    multiple_of: Annotated[int, typer.Option(help="every length is a multiple of it, but for locked layers")] = 1,
    lock: Annotated[
        str | None, typer.Option(help="layers, counted from 1, whose length is given by hand, such as 3=8,5=0")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="new JSON file for 'python -m apt_core retrain --budget'")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as one JSON object on stdout")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
) -> None:
    """Suggest a prefix length for every layer of a run: from its gates, or from what was measured on it."""
    limit, amount = _limit(
        {
            "total": total,
            "parameters": parameters,
            "kv-bytes": kv_bytes,
            "milliseconds": milliseconds,
            "coverage": coverage,
            "tolerance": None if tolerance is None else parse_tolerance(tolerance),
        }
    )
    rules = Rules(
        parse_per_layer("min-per-layer", min_per_layer),
        None if max_per_layer is None else parse_per_layer("max-per-layer", max_per_layer),
        multiple_of,
        NO_LOCKS if lock is None else parse_locks(lock),
    )
    opened = open_run(run)
    weights = final_weights(opened.gates)
    measures = measures_of(opened)
    ask = Ask(limit, amount, method, importance, rules)
    costs = costs_of(opened)
    if costs is not None and costs.problem and limit != "milliseconds":
        say(f"note: {costs.problem}")
        costs = costs._replace(problem="")
    found = suggest(ask, Evidence(weights, measures, costs, run))
    audit = audit_run(opened)
    lengths = list(found.budget.prefix_lengths)
    file = budget_file(opened, ask, found, lengths, measures, audit)
    if out is not None:
        write_budget(out, file)
    if as_json:
        print(json.dumps(file.model_dump(mode="json") | {"run": str(run)}))
    else:
        _print(opened, found, measures, audit.headline if audit else None)
        rests_on_gates = METHODS[found.budget.method].weighs == "importance"
        if limit not in ("coverage", "tolerance"):
            asked = [f"--{limit}", str(amount)]
        else:
            asked = ["--total", str(sum(lengths))]
        given = {"min-per-layer": min_per_layer, "max-per-layer": max_per_layer, "lock": lock}
        given |= {"multiple-of": str(multiple_of) if multiple_of > 1 else None}
        kept = [word for name, typed in given.items() if typed not in (None, "0") for word in (f"--{name}", typed)]
        _print_next(opened, lengths, out, audit if rests_on_gates else None, asked, kept)


def _limit(given: dict[str, Any]) -> tuple[str, float | Tolerance]:
    chosen = {name: amount for name, amount in given.items() if amount is not None}
    if not chosen:
        others = ", ".join(f"--{name}" for name in LIMITS if name != "total")
        raise AptValueError(f"Missing option '--total', or one of {others}.")
    if len(chosen) > 1:
        raise AptValueError(f"{' and '.join(f'--{name}' for name in chosen)}: two limits; give one.")
    return next(iter(chosen.items()))


def _print(run: Run, found: Suggestion, measures: Measures | None, headline: str | None) -> None:
    budget, weighed = found.budget, found.weighed
    print(f"{budget.method}: {METHODS[budget.method].description}\nweights: {weighed.name}, {weighed.source}\n")
    if weighed.name == EFFECT and measures is not None:
        name, cells = "effect (nats)", [f"{effect:.4f}" for effect in layer_effect(measures)]
    else:
        mass = layer_mass(weighed.weights)
        name = "gate mass" if weighed.name == "gate" else weighed.name
        cells = [f"{each / mass.sum() if mass.sum() else 0:.1%}" for each in mass]
    width = max(len(name), 9)
    print(f"layer  {name:>{width}}  now  suggested")
    for layer, length in enumerate(budget.prefix_lengths):
        print(f"{layer + 1:>5}  {cells[layer]:>{width}}  {run.info.prefix_lengths[layer]:>3}  {length:>9}")
    print(f"total  {'':>{width}}  {run.info.total_tokens:>3}  {budget.total:>9}")
    for note in found.notes:
        print(f"\n{note}")
    if headline is None:
        there = "this run was made through the Python API: measure it there, with apt_core.measure.measure"
        headline = f"not measured; {measure_command(run.folder) if trained_by_command(run.info) else there}."
    print(f"\naudit: {headline}")


def _print_next(
    run: Run, lengths: list[int], out: Path | None, audit: Audit | None, asked: list[str], rules: list[str]
) -> None:
    """The command that retrains; where the audit advises against the gates, first what it advises.

    Args:
        run: that was looked at.
        lengths: that were suggested.
        out: where they were written.
        audit: of the run; None where there is none, or the lengths do not rest on gates.
        asked: the flags that ask for as much.
        rules: the flags of the rules that were given.
    """
    if not trained_by_command(run.info):
        print("\nnext:\n  This run was made through the Python API: retrain it there with these lengths.")
        return
    retrain = ["python", "-m", "apt_core", "retrain", str(run.folder)]
    commands = [(retrain + (["--budget", str(out)] if out else ["--prefix-lengths", _text(lengths)]), "these lengths")]
    if audit is not None and audit.use == UNIFORM:
        even = uniform(sum(lengths), len(lengths)).prefix_lengths
        but = "; not by your rules" if rules else ""
        commands.insert(0, ([*retrain, "--prefix-lengths", _text(even)], f"uniform, as the audit says{but}"))
    elif audit is not None and audit.use != "gate":
        again = ["python", "-m", "analysis", "budget", str(run.folder), *asked, "--importance", audit.use, *rules]
        commands.insert(0, (again, "weights that the audit recommends"))
    print("\nnext:")
    for words, about in commands:
        print(f"  {shlex.join(words)}" + (f"    # {about}" if len(commands) > 1 else ""))
    problem = not_retrainable(run.info, lengths)
    if problem:
        print(f"\nnote: {problem}")


def _text(lengths: Sequence[int]) -> str:
    return ",".join(map(str, lengths))
