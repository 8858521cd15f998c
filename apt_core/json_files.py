"""JSON files of this project with a version: bounded, no links, checked. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from apt_core.config import describe
from apt_core.errors import AptValueError
from apt_core.files import read_bounded

M = TypeVar("M", bound=BaseModel)
_LONGEST_REASON = 500


def parse_object(content: bytes, name: str, newest: int, version_field: str = "schema_version") -> dict[str, Any]:
    """The JSON object that ``content`` is.

    Args:
        content: from anywhere.
        name: what messages call it.
        newest: version that can be read.
        version_field: where the object says its version.

    Raises:
        AptValueError: if it is damaged, no object, or of a newer version.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise AptValueError(f"{name}: damaged, not readable as JSON ({problem}).") from problem
    if not isinstance(found, dict):
        raise AptValueError(f"{name}: damaged, holds a {type(found).__name__} instead of an object.")
    version = found.get(version_field)
    if isinstance(version, int) and version > newest:
        raise AptValueError(
            f"{name}: {version_field}: got {version}; accepted: up to {newest}. Update this program to read it."
        )
    return found


def validated(model: type[M], found: dict[str, Any], name: str) -> M:
    """``found`` as ``model``.

    Raises:
        AptValueError: naming the first fields that are wrong.
    """
    try:
        return model.model_validate(found)
    except ValidationError as problem:
        raise AptValueError(f"{name}: {describe(problem, 'content')[:_LONGEST_REASON]}") from problem


@contextmanager
def named(path: Path, remedy: str) -> Iterator[None]:
    """Says of what goes wrong inside in which file, and what to do.

    Raises:
        AptValueError: in place of another one.
    """
    try:
        yield
    except AptValueError as problem:
        raise AptValueError(f"{path}: {problem} {remedy}") from problem


def read_object(path: Path, at_most_bytes: int, newest: int) -> dict[str, Any]:
    """The JSON object in a regular file.

    Raises:
        FileNotFoundError: if there is none.
        AptValueError: if it is a link, too large, not readable, damaged or of a newer version.
    """
    try:
        content = read_bounded(path, at_most_bytes)
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise FileNotFoundError(path) from problem
    except OSError as problem:
        raise AptValueError(f"{path}: cannot be read ({problem}).") from problem
    return parse_object(content, str(path), newest)


def read_model(path: Path, model: type[M], at_most_bytes: int, newest: int) -> M:
    """The same, as ``model``."""
    return validated(model, read_object(path, at_most_bytes, newest), str(path))
