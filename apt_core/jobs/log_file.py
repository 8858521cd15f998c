"""What a job printed, without secrets: the end of it, or all of it while it grows."""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from apt_core.errors import AptError
from apt_core.files import open_regular
from apt_core.secrets import redact

KILLED = "ended by SIGKILL"
_TAIL_BYTES = 256 * 1024
_PART_BYTES = 64 * 1024
_LONGEST_LINE = 2**20
"""characters; of a longer one, parts are handed on before it ends"""
_LOOK_SECONDS = 0.3


def why_killed(arguments: Sequence[str]) -> str:
    """What is added to the log of a job that the system ended.

    Args:
        arguments: of the job.
    """
    from apt_core.jobs.job_arguments import MAKES_A_RUN, command_of  # loads more than a supervisor that waits needs

    advice = "; 'jobs retry ID --halve-batch' needs about half" if command_of(arguments) in MAKES_A_RUN else ""
    return f"{KILLED}, as the system does when memory runs out{advice}"


def tail(path: Path, last_lines: int) -> str:
    """The last lines of a log, at most 256 KiB; of a progress bar only its last state; empty if there is no log.

    A link is no log: it could lead to any file.
    """
    try:
        file = open_regular(path)
    except (OSError, AptError):
        return ""
    with file:
        before = file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    if before:  # half a line may be half a secret, which nothing would recognise
        text = text.partition("\n")[2] or text
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in redact(text).strip("\n").split("\n")]
    return "\n".join(lines[-last_lines:])


def follow(path: Path, has_ended: Callable[[], bool]) -> Iterator[str]:
    """What is in a log from its beginning, and what comes, line by line, until the job that writes it has ended."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    waiting = ""
    with open_regular(path) as file:
        while True:
            ended = has_ended()  # before reading: what it printed last is then there
            while part := file.read(_PART_BYTES):
                whole, waiting = _whole_lines(waiting + decoder.decode(part))
                if whole:
                    yield redact(whole)
            if ended:
                if waiting:
                    yield redact(waiting)
                return
            time.sleep(_LOOK_SECONDS)


def _whole_lines(text: str) -> tuple[str, str]:
    """Whole lines, or states of a progress bar, and what is not whole yet."""
    end = len(text) if len(text) > _LONGEST_LINE else max(text.rfind("\n"), text.rfind("\r")) + 1
    return text[:end], text[end:]
