"""``python -m analysis report``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from analysis.pilot_files import ENDING, PILOTS_FOLDER, read_pilot
from apt_core.errors import bad_value
from apt_core.files import write_atomic
from apt_core.jobs import LocalJobs
from apt_core.jobs.commands import JOBS_FOLDER


def report_command(
    pilot: Annotated[Path, typer.Argument(help="file of a pilot, RUNS/.pilots/NAME.json, that the Pilot page made")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write; an older one is replaced [default: NAME.html]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as one JSON object on stdout")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
) -> None:
    """Write the report of a pilot: one HTML file that opens anywhere, without a network."""
    from analysis.report import gather, report_html  # with the figure library, which other commands do without

    found = read_pilot(pilot)
    folder = pilot.absolute().parent
    if folder.name != PILOTS_FOLDER:
        raise bad_value("pilot", str(pilot), f"a file in the folder {PILOTS_FOLDER} of a folder of runs")
    name = pilot.name.removesuffix(ENDING)
    out = out or Path(f"{name}.html")
    content = gather(name, found, folder.parent, LocalJobs(folder.parent / JOBS_FOLDER))
    try:
        write_atomic(out, report_html(content).encode())
    except OSError as problem:
        raise bad_value("out", str(out), f"a file that can be written ({problem.strerror})") from problem
    decision = content.decision
    if as_json:
        print(
            json.dumps({"pilot": name, "report": str(out), "outcome": decision.outcome, "headline": decision.headline})
        )
    else:
        print(f"{decision.headline}\n{out}: open it in a browser")
