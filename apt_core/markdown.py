"""Text from a run to Markdown that shows it as it is: escaped, in one line, without local paths."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~$!&{}])")
_PATH_FLAGS = {"--out", "--data-dir", "--train-file", "--validation-file", "--test-file", "--init-adapter"}
_PATH = re.compile(r"(/|~|\.{1,2}[/\\]|[A-Za-z]:[/\\]|\\\\|[A-Za-z][A-Za-z+.-]*://)|.*[/\\].*[/\\]|.*\\")


def one_line(text: object) -> str:
    """``text`` with every run of white space and unprintable characters as one space."""
    return " ".join("".join(char if char.isprintable() else " " for char in str(text)).split())


def plain(text: object) -> str:
    """``text`` in one line, with what Markdown, HTML or a table would read as theirs escaped."""
    return _SPECIAL.sub(r"\\\1", one_line(text))


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells are Markdown already."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def code_block(text: str, language: str) -> str:
    """``text`` between fences that are longer than any in it."""
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def last_name(path: str) -> str:
    """The last part of a path of any system; empty for an empty one."""
    return PurePosixPath(PureWindowsPath(path).as_posix()).name


def public_command(command: str) -> str:
    """A command line whose paths are cut to their last names; empty where it cannot be read."""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    public = []
    for before, word in zip(["", *words], words, strict=False):
        flag, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        if _PATH.match(value) or before in _PATH_FLAGS or flag in _PATH_FLAGS:
            value = last_name(value) or value.strip("/\\~.")
        public.append(flag + equals + value)
    return one_line(shlex.join(public))
