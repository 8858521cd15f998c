"""What a person does to runs: notes, tags, hide, rename, delete into ``.trash`` and undo. No Streamlit.

Every function acts on real folders directly inside the given folders of runs only, and looks again when it acts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from analysis.run_notes import changed_notes, read_notes, write_notes
from analysis.runs import Run, find_runs, is_sweep
from apt_core.errors import AptError, AptFileExistsError, AptFileNotFoundError, AptValueError, bad_value
from apt_core.run_format import RUN_FILE, update_finished_run

TRASH_FOLDER = ".trash"
MAX_FOLDER_NAME = 120
"""characters; in bytes file systems hold 255"""


class Trashed(NamedTuple):
    """A deleted run that can be put back."""

    folder: Path
    """``<root>/.trash/<when and a random part>/<name>``"""
    root: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name


def save_notes(roots: Iterable[Path], folder: Path, **fields: object) -> None:
    """Changes ``tags``, ``notes`` or ``hidden`` of a run; the others stay.

    Raises:
        AptError: if a value is not accepted, or the folder is not a run in ``roots`` or in a sweep there.
    """
    roots = list(roots)
    _check_place([folder.parent] if in_sweep(roots, folder) else roots, folder)
    write_notes(folder, changed_notes(read_notes(folder), **fields))


def rename(roots: Sequence[Path], folder: Path, name: str) -> Path:
    """Gives a run's folder another name, and tells the runs made from it, which refer to it by name.

    Returns:
        the new folder.

    Raises:
        AptError: if the name is not accepted or taken, if the run still runs, or if a run made from it is not
            finished (it may still need its parent by the old name).
    """
    _check_movable(roots, folder)
    check_name(name)
    target = folder.parent / name
    if os.path.lexists(target):
        raise AptFileExistsError(f"name: got {name!r}, which exists in {folder.parent}; accepted: a name that is free.")
    children = _children(roots, folder)
    for child in children:
        if child.status != "finished":
            raise bad_value(
                "name",
                name,
                f"a new name only while every run made from {folder.name!r} is finished",
                f"{child.key!r} is {child.status}: finish or delete it first.",
            )
        if os.path.lexists(child.folder / f"{RUN_FILE}.tmp"):
            raise AptValueError(f"{child.folder}: holds {RUN_FILE}.tmp, left by a writer; delete that file first.")
    os.rename(folder, target)
    told = []
    try:
        for child in children:
            told.append(child)
            update_finished_run(child.folder, parent=name)
    except (AptError, OSError):
        os.rename(target, folder)
        for child in told:
            with contextlib.suppress(AptError, OSError):
                update_finished_run(child.folder, parent=folder.name)
        raise
    return target


def delete(roots: Sequence[Path], folder: Path) -> Trashed:
    """Moves a run into the ``.trash`` of its folder of runs.

    Raises:
        AptError: if it still runs, or is not a run in ``roots``.
    """
    _check_movable(roots, folder)
    trash = folder.parent / TRASH_FOLDER
    if not os.path.lexists(trash):
        trash.mkdir(exist_ok=True)
    _check_real_folder(trash)
    when = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    place = trash / f"{when}-{os.urandom(3).hex()}"
    place.mkdir()
    os.rename(folder, place / folder.name)
    return Trashed(place / folder.name, folder.parent)


def trashed(roots: Iterable[Path]) -> list[Trashed]:
    """What can be put back, the last deleted first; links are passed over."""
    found = []
    for root in dict.fromkeys(roots):
        for place in _real_folders(root / TRASH_FOLDER):
            found += [Trashed(folder, root) for folder in _real_folders(place)]
    return sorted(found, key=lambda item: item.folder.parent.name, reverse=True)


def undo(roots: Iterable[Path], item: Trashed) -> Path:
    """Puts a deleted run back.

    Raises:
        AptError: if it is no longer in the trash, or its name was taken meanwhile.
    """
    if item not in trashed(roots):
        raise AptFileNotFoundError(f"run: got {item.name!r}; accepted: a run that is in the trash.")
    target = item.root / item.name
    if os.path.lexists(target):
        raise AptFileExistsError(f"run: {item.name!r} exists in {item.root} again; rename that one first.")
    os.rename(item.folder, target)
    with contextlib.suppress(OSError):
        item.folder.parent.rmdir()
    return target


def empty_trash(roots: Iterable[Path], chosen: Iterable[Trashed]) -> int:
    """Removes for good what was deleted, and says how many runs that were. Links are removed, not followed.

    Args:
        roots: folders of runs.
        chosen: what is meant; what is not in the trash of ``roots`` is passed over.
    """
    wanted = set(chosen)
    items = [item for item in trashed(roots) if item in wanted]
    for item in items:
        shutil.rmtree(item.folder)
        with contextlib.suppress(OSError):
            item.folder.parent.rmdir()
    return len(items)


def in_sweep(roots: Iterable[Path], folder: Path) -> bool:
    """Whether a run is one of a sweep that is one of ``roots``, or directly in one."""
    return not {folder.parent, folder.parent.parent}.isdisjoint(roots) and is_sweep(folder.parent)


def check_name(name: str) -> None:
    """Refuses what cannot be the name of a run's folder.

    Raises:
        AptValueError: with what is accepted.
    """
    if (
        not name.strip()
        or name != name.strip()
        or name.startswith(".")
        or not name.isprintable()
        or any(letter in name for letter in "/\\:")
        or len(name) > MAX_FOLDER_NAME
        or len(os.fsencode(name)) > 255
    ):
        raise bad_value(
            "name", name, f"1 to {MAX_FOLDER_NAME} printable characters, no / \\ or :, no dot or space at the start"
        )


def _check_place(roots: Iterable[Path], folder: Path) -> None:
    if folder.name in ("", ".", "..") or folder.name.startswith(".") or folder.parent not in list(roots):
        raise bad_value("run", str(folder), "a run directly inside a folder of runs that the app was started with")
    _check_real_folder(folder)
    run_file = folder / RUN_FILE
    if run_file.is_symlink() or not run_file.is_file():
        raise AptFileNotFoundError(f"{folder}: not a run folder (it has no {RUN_FILE}).")


def _check_real_folder(folder: Path) -> None:
    try:
        real = stat.S_ISDIR(os.lstat(folder).st_mode)
    except FileNotFoundError as problem:
        raise AptFileNotFoundError(f"{folder}: no longer there. Reload the page.") from problem
    if not real:
        raise bad_value("folder", str(folder), "a folder", "It is a link or a file, which is left alone.")


def _check_movable(roots: Sequence[Path], folder: Path) -> None:
    _check_place(roots, folder)
    if in_sweep(roots, folder):
        raise AptValueError(f"run: got {folder.name!r}, which is of a sweep; accepted: a run of its own.")
    _check_not_running(folder)


def _check_not_running(folder: Path) -> None:
    if Run(folder).status == "running":
        raise bad_value("run", folder.name, "a run that is not running", "Wait for its end, or cancel it first.")


def _children(roots: Sequence[Path], folder: Path) -> list[Run]:
    """Runs made from this one: those beside it, and in other folders of runs those that can mean no other run."""
    task = Run(folder).info.task
    runs = find_runs(roots).runs
    namesakes = any(run.name == folder.name and run.folder.parent != folder.parent for run in runs)
    return [
        run
        for run in runs
        if run.info.parent == folder.name
        and (run.folder.parent == folder.parent or (not namesakes and run.info.task == task))
    ]


def _real_folders(folder: Path) -> list[Path]:
    try:
        if folder.is_symlink():
            return []
        return [folder / entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
