"""What a job on a cluster printed, as Ray hands it on: without carriage returns, so that a bar has many lines."""

from __future__ import annotations

import re
from collections.abc import Iterator

from apt_core.secrets import redact

_TAIL_CHARACTERS = 256 * 1024
_LONGEST_LINE = 2**20
_BAR = re.compile(r"(.*?) *\d+%\|")


def last_lines_of(text: str, last_lines: int) -> str:
    """The last lines of a log, of at most 256 Ki characters; of a progress bar only its last state; no secrets."""
    if len(text) > _TAIL_CHARACTERS:  # half a line may be half a secret, which nothing would recognise
        text = text[-_TAIL_CHARACTERS:]
        text = text.partition("\n")[2] or text
    lines: list[str] = []
    label = None
    for line in redact(text).strip("\n").split("\n"):
        bar = _BAR.match(line)
        if bar and lines and (bar[1] == label or not lines[-1]):  # a bar begins with a carriage return
            lines.pop()
        label = bar and bar[1]
        lines.append(line.rstrip())
    return "\n".join(lines[-last_lines:])


def followed(parts: Iterator[str]) -> Iterator[str]:
    """The same text in whole lines, without secrets."""
    waiting = ""
    for part in parts:
        waiting += part
        end = len(waiting) if len(waiting) > _LONGEST_LINE else waiting.rfind("\n") + 1
        if end:
            yield redact(waiting[:end])
            waiting = waiting[end:]
    if waiting:
        yield redact(waiting)
