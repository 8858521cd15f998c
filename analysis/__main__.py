"""The command line: ``python -m analysis``."""

from __future__ import annotations

import typer

from analysis.commands.audit import audit_command
from analysis.commands.budget import budget_command
from analysis.commands.report import report_command
from apt_core.command_line import run_typer

app = typer.Typer(
    help="Reads run folders: which layers use their prefix, and how few virtual tokens are enough.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.command("audit")(audit_command)
app.command("budget")(budget_command)
app.command("report")(report_command)


if __name__ == "__main__":
    run_typer(app)
