"""What a job printed: the end of it, or all of it while it grows."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_TAIL_BYTES = 256 * 1024
_PART_BYTES = 64 * 1024
_LOOK_SECONDS = 0.3


def tail(path: Path, last_lines: int) -> str:
    """The last lines of a log, at most 256 KiB; of a progress bar only its last state; empty if there is no log."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.strip("\n").split("\n")]
    return "\n".join(lines[-last_lines:])


def follow(path: Path, has_ended: Callable[[], bool]) -> Iterator[str]:
    """What is in a log from its beginning, and what comes, until the job that writes it has ended."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with path.open("rb") as file:
        while True:
            ended = has_ended()  # before reading: what it printed last is then there
            while part := file.read(_PART_BYTES):
                yield decoder.decode(part)
            if ended:
                return
            time.sleep(_LOOK_SECONDS)
