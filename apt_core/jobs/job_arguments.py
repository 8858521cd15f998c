"""What a command line says that the queue has to know: which folder it writes, on which device, whether it is new."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from apt_core.errors import AptError, AptFileNotFoundError, bad_value
from apt_core.run_format import RUN_FILE, check_new_folder, read_run_info, run_exists

MAKES_A_RUN = ("train", "retrain")
MAKES_RUNS = ("transfer",)
"""writes a folder of runs, and goes on by itself with what is there"""
WRITES_ITS_RUN = ("measure", "evaluate")
"""writes into the run folder that it is given"""
COMMANDS = (*MAKES_A_RUN, *MAKES_RUNS, *WRITES_ITS_RUN)
RESUME = "--resume"
_UNKEPT = ("--no-memory-check", "--no-measure")


def command_of(arguments: Sequence[str]) -> str:
    """The first word."""
    return arguments[0] if arguments else ""


def check_command(arguments: Sequence[str]) -> None:
    """Refuses what no job of ours does: a job's folder may be somebody else's work.

    Raises:
        AptValueError: if the command is another one.
    """
    if command_of(arguments) not in COMMANDS:
        raise bad_value("command", command_of(arguments), ", ".join(COMMANDS))


def unkept(arguments: Sequence[str]) -> list[str]:
    """Options of a training that its run does not keep: what goes on with it is to be told them again."""
    return [word for word in arguments if word in _UNKEPT]


def check_run_folder(arguments: Sequence[str], folder: Path) -> None:
    """Refuses a folder that the command could not write to.

    Raises:
        AptFileExistsError: if it holds a run that the command would overwrite.
        AptFileNotFoundError: if it holds none, and the command needs one.
        AptValueError: if it is not new or empty, and the command needs that; or a retraining does not begin with the
            run that it retrains, which the queue reads there.
    """
    if command_of(arguments) == "retrain" and (len(arguments) < 2 or arguments[1].startswith("-")):
        raise bad_value("retrain", arguments[1] if len(arguments) > 1 else None, "RUN first, then its options")
    if command_of(arguments) in WRITES_ITS_RUN or RESUME in arguments:
        if not (folder / RUN_FILE).exists():
            raise AptFileNotFoundError(f"run: got {str(folder)!r}, which has no {RUN_FILE}; accepted: a run folder.")
    elif command_of(arguments) in MAKES_A_RUN:
        check_new_folder(folder)
    elif (folder / RUN_FILE).exists():
        raise run_exists(folder)


def device_of(arguments: Sequence[str], directory: Path, run_folder: Path) -> str:
    """auto, cpu or cuda: what ``--device`` says, or else the run that is retrained, gone on with or measured.

    Args:
        arguments: after ``python -m apt_core``.
        directory: where relative paths among them start.
        run_folder: what they write.
    """
    device = None
    for word, after in pairwise([*arguments, ""]):
        if word == "--device":
            device = after
        elif word.startswith("--device="):
            device = word.partition("=")[2]
    if device is None:
        source = None
        if command_of(arguments) in WRITES_ITS_RUN or RESUME in arguments:
            source = run_folder
        elif command_of(arguments) == "retrain" and len(arguments) > 1:
            source = directory / arguments[1]
        if source is not None:
            with contextlib.suppress(AptError):  # the command itself will say what is wrong with it
                device = read_run_info(source).training.get("device")
    return device if device in ("cpu", "cuda") else "auto"
