"""Pilots on disk: ``<runs>/.pilots/<name>.json``, read with suspicion, replaced in one step, deleted so that it can be
undone.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from analysis.pilot import PILOT_VERSION, Pilot
from analysis.run_edits import check_name
from analysis.runs import Rejected, shown
from apt_core.errors import AptError, AptFileExistsError, AptFileNotFoundError, AptValueError, bad_value
from apt_core.files import write_atomic
from apt_core.json_files import read_object

PILOTS_FOLDER = ".pilots"
TRASH_FOLDER = ".trash"
ENDING = ".json"
MAX_PILOT_BYTES = 1 << 20
MAX_PILOT_NAME = 60
"""characters; the names of its runs are longer"""


class Pilots(NamedTuple):
    """What is in a folder of runs."""

    pilots: dict[str, Pilot]
    """by name, the newest first"""
    rejected: list[Rejected]


def pilot_path(root: Path, name: str) -> Path:
    """Where a pilot of a folder of runs is kept."""
    return root / PILOTS_FOLDER / f"{name}{ENDING}"


def find_pilots(root: Path) -> Pilots:
    """All pilots of a folder of runs; those that cannot be read are listed with the reason."""
    folder = root / PILOTS_FOLDER
    try:
        names = [] if folder.is_symlink() else sorted(entry.name for entry in os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return Pilots({}, [])
    except OSError as problem:
        return Pilots({}, [Rejected(folder, f"it cannot be listed ({problem.strerror})")])
    found, rejected = {}, []
    for name in names:
        if name.startswith(".") or not name.endswith(ENDING):
            continue
        try:
            found[name.removesuffix(ENDING)] = read_pilot(folder / name)
        except (AptError, OSError) as problem:
            rejected.append(Rejected(folder / name, shown(problem)))
    return Pilots(dict(sorted(found.items(), key=lambda item: item[1].created_at, reverse=True)), rejected)


def read_pilot(path: Path) -> Pilot:
    """Reads a pilot.

    Raises:
        AptFileNotFoundError: if there is no such file.
        AptValueError: if its name could not be that of a pilot, or it is a link, damaged, too large or of a newer
            version.
    """
    check_pilot_name(path.name.removesuffix(ENDING))
    try:
        content = read_object(path, MAX_PILOT_BYTES, PILOT_VERSION)
    except FileNotFoundError as problem:
        raise AptFileNotFoundError(f"{path}: no such file. The Pilot page of the dashboard makes one.") from problem
    try:
        return Pilot(**content)
    except AptValueError as problem:
        raise AptValueError(f"{path}: {problem}.") from problem


def create_pilot(root: Path, name: str, pilot: Pilot) -> None:
    """Keeps a new pilot.

    Raises:
        AptError: if the name is not accepted or taken, or the folder cannot be written to.
    """
    check_pilot_name(name)
    path = pilot_path(root, name)
    if os.path.lexists(path):
        raise AptFileExistsError(f"name: got {name!r}, which is a pilot already; accepted: a name that is free.")
    _folder(root)
    save_pilot(root, name, pilot)


def save_pilot(root: Path, name: str, pilot: Pilot) -> None:
    """Replaces what is kept of a pilot.

    Raises:
        AptValueError: if the disk or the folder does not take it.
    """
    path = pilot_path(root, name)
    try:
        write_atomic(path, (pilot.model_dump_json(indent=1) + "\n").encode())
    except OSError as problem:
        raise bad_value("pilot", str(path), f"a file that can be written ({problem.strerror})") from problem


def delete_pilot(root: Path, name: str) -> Path:
    """Moves a pilot into the trash; its runs and jobs stay. Returns where it is now.

    Raises:
        AptFileNotFoundError: if it is no longer there.
    """
    trash = _folder(root) / TRASH_FOLDER
    if trash.is_symlink():
        raise bad_value("trash", str(trash), "a folder", "It is a link, which is left alone.")
    trash.mkdir(exist_ok=True)
    when = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    place = trash / f"{when}-{os.urandom(3).hex()}"
    place.mkdir()
    try:
        os.rename(pilot_path(root, name), place / f"{name}{ENDING}")
    except FileNotFoundError as problem:
        place.rmdir()
        raise AptFileNotFoundError(f"pilot: {name!r} is no longer there. Reload the page.") from problem
    return place / f"{name}{ENDING}"


def undo_delete(root: Path, trashed: Path) -> str:
    """Puts a deleted pilot back; returns its name.

    Raises:
        AptError: if it is no longer in the trash, or its name was taken meanwhile.
    """
    name = trashed.name.removesuffix(ENDING)
    if os.path.lexists(pilot_path(root, name)):
        raise AptFileExistsError(f"pilot: {name!r} exists again; delete that one first.")
    try:
        os.rename(trashed, pilot_path(root, name))
    except FileNotFoundError as problem:
        raise AptFileNotFoundError(f"pilot: {name!r} is no longer in the trash.") from problem
    return name


def check_pilot_name(name: str) -> None:
    """Refuses what cannot be the name of a pilot, with which its runs' names begin.

    Raises:
        AptValueError: with what is accepted.
    """
    if len(name) > MAX_PILOT_NAME or len(os.fsencode(name)) > 2 * MAX_PILOT_NAME:
        raise bad_value("name", name, f"up to {MAX_PILOT_NAME} characters")
    if name.startswith("-"):
        raise bad_value("name", name, "one that does not start with a dash")
    check_name(name)


def _folder(root: Path) -> Path:
    folder = root / PILOTS_FOLDER
    if folder.is_symlink():
        raise bad_value("pilots", str(folder), "a folder", "It is a link, which is left alone.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise bad_value("pilots", str(folder), f"a folder that can be made ({problem.strerror})") from problem
    return folder
