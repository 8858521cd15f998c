"""Keeps secrets of the environment, tokens and logins in addresses out of what is written or shown. No torch."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TextIO
from urllib.parse import quote

REDACTED = "***"
SHORTEST_SECRET = 6
"""characters; a shorter value would blank out words that only happen to be equal"""
_SECRET_NAME = re.compile(r"TOKEN$|(?:^|_|API|ACCESS)KEY(?:_ID)?$|SECRET|PASSW(?:OR)?D|PASSPHRASE|CREDENTIAL|^AWS_")
_NO_SECRET = re.compile(
    r"^AWS_.*(REGION|PROFILE|FILE|OUTPUT|PAGER|BUNDLE|PATH|ENV|URL|URI|MODE|ATTEMPTS|DISABLED|VAULT)$"
)
_LOGIN = re.compile(r"(?<=://)[^\s/?#'\"<>]+@")
_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}|(?<=\bBearer )[\w.~+/=-]{8,}")


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """``text`` with ``***`` in place of every secret that is known or looks like one.

    These are the values of variables whose names say so (``HF_TOKEN``, ``..._TOKEN``, ``..._KEY``, ``...SECRET...``,
    ``...PASSWORD...``, ``AWS_...``), also as they are written in JSON, HTML, a shell or an address; the login in
    ``scheme://user:password@host``; tokens of the Hugging Face Hub; and what follows ``Bearer``. Values of fewer than
    ``SHORTEST_SECRET`` characters, and paths that exist, are left.

    Args:
        text: to be written or shown.
        environment: whose values are secret.
    """
    pattern = _pattern(secret_values(environment))
    if pattern is not None:
        text = pattern.sub(REDACTED, text)
    return _TOKEN.sub(REDACTED, _LOGIN.sub(f"{REDACTED}@", text))


def secret_values(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Values of the variables whose names say that they are secret, in order."""
    return tuple(sorted({value.strip() for name, value in environment.items() if _is_secret(name.upper(), value)}))


class RedactedStream:
    """A text stream that hands on what ``redact`` leaves of each write; all else is the other stream's.

    A secret that is printed in two parts, or past Python, is not found.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_secret(name: str, value: str) -> bool:
    if not _SECRET_NAME.search(name) or _NO_SECRET.search(name) or len(value.strip()) < SHORTEST_SECRET:
        return False
    return not (value.startswith(("/", "~")) and os.path.exists(os.path.expanduser(value)))


@lru_cache(maxsize=8)
def _pattern(secrets: tuple[str, ...]) -> re.Pattern[str] | None:
    spellings = {spelling for secret in secrets for part in _parts(secret) for spelling in _spellings(part)}
    return re.compile("|".join(map(re.escape, sorted(spellings, key=len, reverse=True)))) if spellings else None


def _parts(secret: str) -> Iterator[str]:
    """The secret; one of several lines also in one line, and each line by itself."""
    yield secret
    lines = [line.strip() for line in secret.splitlines()]
    if len(lines) > 1:
        yield " ".join(secret.split())
        yield from (line for line in lines if len(line) >= SHORTEST_SECRET)


def _spellings(text: str) -> Iterator[str]:
    yield from (text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    yield from (html.escape(text), quote(text), quote(text, safe=""), text.replace("'", "'\"'\"'"))
