"""``python -m analysis audit``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from analysis.audit import Audit, audit_run, command_for_more, trained_by_command
from analysis.runs import Run
from analysis.verdict import ORDERS, THRESHOLDS
from apt_core.errors import AptFileNotFoundError


def audit_command(
    run: Annotated[Path, typer.Argument(help="run folder that 'python -m apt_core measure' has measured")],
    as_json: Annotated[bool, typer.Option("--json", help="print the result as one JSON object on stdout")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
) -> None:
    """Say whether the gates of a run may be followed, with the numbers it rests on."""
    opened = Run(run)
    found = audit_run(opened)
    if found is None and not trained_by_command(opened.info):
        raise AptFileNotFoundError(
            f"{run}: not measured yet. It was made through the Python API: apt_core.measure.measure does it."
        )
    if found is None:
        raise AptFileNotFoundError(
            f"{run}: not measured yet. 'python -m apt_core measure {shlex.quote(str(run))}' does it."
        )
    if as_json:
        print(json.dumps({"run": str(run), **_as_json(found)}, allow_nan=False))
        return
    print(f"{found.headline}\n")
    for check in found.checks:
        print(f"{check.level:>4}  {check.name}: {check.text}")
    print(f"\n{'order by':<20} {'over random':>11} {'over reverse':>12} {'of the gain':>11} {'agrees with layers':>18}")
    for name, score in found.numbers["orders"].items():
        layers = found.numbers["layers"].get(name) or {"spearman": None}
        cells = (
            _number(score["over_random"]),
            _number(score["over_reverse"]),
            "-" if score["share"] is None else f"{score['share']:.0%}",
            _number(layers["spearman"]),
        )
        print("{:<20} {:>11} {:>12} {:>11} {:>18}".format(ORDERS[name], *cells))
    print("Loss saved, nats averaged over all sizes; rank correlation with what leaving a layer out costs.")
    print("\nthresholds:")
    for name, (value, meaning) in THRESHOLDS.items():
        print(f"  {name} {value:.4g}: {meaning}")
    if found.not_measured:
        print("\nnot measured:")
        for sentence in found.not_measured:
            print(f"  {sentence}")
    print(f"\nmore evidence:\n  {command_for_more(run, found)}")


def _as_json(found: Audit) -> dict:
    checks = [{"name": check.name, "level": check.level, "text": check.text} for check in found.checks]
    return {**found._asdict(), "checks": checks}


def _number(found: dict | None) -> str:
    return "-" if found is None or found["value"] is None else f"{found['value']:.3g}"
