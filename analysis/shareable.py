"""Texts that may leave this machine: commands and sentences without its folders in them. Pure text."""

from __future__ import annotations

import re
import shlex
from pathlib import Path, PurePosixPath, PureWindowsPath

RUNS = "runs"
"""what the folder of runs is called"""
ELSEWHERE = "/path/to"
_ABSOLUTE = re.compile(r"(?<![\w.:/])(?:/|[A-Za-z]:\\)(?:[^\s/\\'\"]+[/\\])+([^\s/\\'\",;)]+)")


def without_places(text: str, root: Path) -> str:
    """Prose or a command without the folders of this machine: runs as ``runs/NAME``, other places by their last part.

    Relative paths stay: they were typed so.
    """
    for given in sorted({str(root), str(root.absolute()), str(root.resolve())}, key=len, reverse=True):
        if given not in ("", ".", "/"):
            behind = r"[/\\\s'\",;.)]|$" if Path(given).is_absolute() else "/"  # "data" alone may be a word
            text = re.sub(rf"(?<![\w./-]){re.escape(given)}(?={behind})", RUNS, text)
    return _ABSOLUTE.sub(rf"{ELSEWHERE}/\1", text)


def public_command(command: str, root: Path) -> str:
    """A command line without the folders of this machine; what cannot be read as one is treated as prose."""
    try:
        words = shlex.split(command)
    except ValueError:
        return without_places(command, root)
    return shlex.join([_public_word(word, root) for word in words])


def public_place(place: str, root: Path) -> str:
    """A file or folder that a person gave, without the folders above it where it is absolute."""
    return _public_word(place, root)


def _public_word(word: str, root: Path) -> str:
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    windows = PureWindowsPath(value)
    if not PurePosixPath(value).is_absolute() and not windows.is_absolute():
        return f"{flag}{equals}{without_places(value, root)}"
    roots = {str(root), str(root.absolute()), str(root.resolve())}
    name = windows.name or "data"
    inside = str(PurePosixPath(value).parent) in roots
    return f"{flag}{equals}{RUNS if inside else ELSEWHERE}/{name}"
