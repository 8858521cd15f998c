"""What the commands of this project share: what was typed, and how they end (0, 2: bad input, 1: failure)."""

from __future__ import annotations

import shlex
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout

import typer
from typer.exceptions import TyperException

from apt_core.errors import AptError, AptWriteError
from apt_core.memory import AptMemoryError
from apt_core.processes import is_main_rank, num_ranks
from apt_core.secrets import RedactedStream, redact


def run_typer(app: typer.Typer) -> None:
    """Runs a command line and exits; a traceback is shown only with ``--debug``, and secrets never."""
    with redirect_stdout(RedactedStream(sys.stdout)), redirect_stderr(RedactedStream(sys.stderr)):
        _run(app)


def command_line() -> str:
    """What was typed, such that typing it again makes the same run; without secrets of the environment."""
    launcher = ["torchrun", "--nproc-per-node", str(num_ranks())] if num_ranks() > 1 else ["python"]
    words = (redact(word) for word in sys.argv[1:] if word not in ("--json", "--debug"))
    return shlex.join([*launcher, "-m", "apt_core", *words])


def say(line: str) -> None:
    """Tells the user something on stderr, so that stdout is free for results."""
    print(line, file=sys.stderr, flush=True)


def _run(app: typer.Typer) -> None:
    debug = "--debug" in sys.argv
    try:
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        _end("interrupted", 130, debug)
    except typer.Exit as ending:
        code = ending.exit_code
    except TyperException as problem:  # a flag or argument that does not fit
        _end(f"{problem.format_message()} See --help.", 2, debug)
    except AptError as problem:
        _end(str(problem), 1 if isinstance(problem, AptWriteError | AptMemoryError) else 2, debug)
    except Exception as problem:
        hint = "" if debug else " Add --debug for the traceback."
        _end(f"{type(problem).__name__}: {problem}.{hint}", 1, debug)
    sys.exit(code if isinstance(code, int) else 0)


def _end(message: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    if is_main_rank() or code == 1:  # bad input is seen by every process of a training
        print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
