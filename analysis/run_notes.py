"""What a person keeps about a run: ``notes.json`` in its folder, with tags, notes and whether it is hidden.

The file belongs to the dashboard alone: no training reads or writes it, and it travels with the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from apt_core.config import describe
from apt_core.errors import AptValueError
from apt_core.run_format import NOTES_FILE

SCHEMA_VERSION = 1
MAX_NOTES_BYTES = 64 * 1024
MAX_TAGS = 20
MAX_TAG = 40
"""characters"""
MAX_NOTES = 10_000
"""characters"""
_CACHED_NOTES = 4096


class Notes(BaseModel):
    """``notes.json``. Unknown fields are refused, so that saving never drops what a newer program wrote."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: int = SCHEMA_VERSION
    tags: tuple[str, ...] = Field((), max_length=MAX_TAGS, strict=False)
    notes: str = Field("", max_length=MAX_NOTES)
    hidden: bool = False

    @field_validator("tags")
    @classmethod
    def _check_tags(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        for tag in tags:
            if not tag.strip() or tag != tag.strip() or len(tag) > MAX_TAG or not tag.isprintable() or "," in tag:
                raise ValueError(
                    f"tag: got {tag[:60]!r}; accepted: 1 to {MAX_TAG} printable characters, "
                    "without a comma and without spaces around them"
                )
        return tuple(dict.fromkeys(tags))


NONE = Notes()


def read_notes(folder: Path) -> Notes:
    """The notes of a run; empty ones where it has no ``notes.json``.

    Raises:
        AptValueError: if the file is damaged, too large, of a newer schema or no regular file, with the reason.
    """
    path = folder / NOTES_FILE
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return NONE
    if not stat.S_ISREG(found.st_mode):
        raise AptValueError(f"{NOTES_FILE}: not a regular file; links are not followed.")
    if found.st_size > MAX_NOTES_BYTES:
        raise AptValueError(f"{NOTES_FILE}: got {found.st_size} bytes; accepted: up to {MAX_NOTES_BYTES}.")
    return _read(str(path), found.st_mtime_ns, found.st_size, found.st_ino)


@lru_cache(maxsize=_CACHED_NOTES)
def _read(path: str, *stamp: int) -> Notes:
    try:
        content = json.loads(Path(path).read_bytes())
    except (ValueError, OSError, RecursionError) as problem:
        raise AptValueError(f"{NOTES_FILE}: damaged, not readable as JSON. Delete it to start afresh.") from problem
    version = content.get("schema_version", SCHEMA_VERSION) if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise AptValueError(
            f"{NOTES_FILE}: schema_version: got {version}; accepted: up to {SCHEMA_VERSION}. "
            "Update this program to read it."
        )
    try:
        return Notes.model_validate(content)
    except ValidationError as problem:
        raise AptValueError(f"{NOTES_FILE}: {describe(problem)[:300]}. Correct it, or delete it.") from problem


def changed_notes(old: Notes, /, **fields: object) -> Notes:
    """``old`` with some fields changed.

    Raises:
        AptValueError: on a tag or notes that are not accepted.
    """
    try:
        return Notes.model_validate({**old.model_dump(), **fields})
    except ValidationError as problem:
        raise AptValueError(f"{describe(problem)}.") from problem


def write_notes(folder: Path, notes: Notes) -> None:
    """Replaces ``notes.json`` in one step. A link that lies in the way is replaced, never written through.

    Raises:
        AptValueError: if what it would hold is larger than ``MAX_NOTES_BYTES``.
    """
    content = (notes.model_dump_json(indent=1) + "\n").encode()
    if len(content) > MAX_NOTES_BYTES:
        raise AptValueError(f"notes: got {len(content)} bytes; accepted: up to {MAX_NOTES_BYTES}.")
    temporary = folder / f"{NOTES_FILE}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
            file.write(content)
        os.replace(temporary, folder / NOTES_FILE)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
