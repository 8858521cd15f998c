"""A copy of a run folder in storage that several machines reach: a mounted folder, S3 or Google Cloud. No torch."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urlsplit

from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType

from apt_core.errors import AptValueError, bad_value
from apt_core.files import open_regular
from apt_core.secrets import redact

_MOST_FILES = 100_000
_ACCEPTED = (
    "a folder that this machine and the nodes reach, such as file:///mnt/runs or s3://bucket/runs, without a login"
)


class RunCopy:
    """A folder below an address that ``pyarrow.fs`` knows.

    Args:
        storage: the address.
        place: name of the folder in it.

    Raises:
        AptValueError: if it cannot be opened.
    """

    def __init__(self, storage: str, place: str) -> None:
        try:
            if "://" not in storage or "@" in urlsplit(storage).netloc:
                raise ValueError("it needs a scheme, and logins belong into the environment of each machine")
            self._files, root = FileSystem.from_uri(storage)
        except (ValueError, OSError) as problem:
            raise bad_value("storage", redact(storage), _ACCEPTED, f"{redact(str(problem))[:300]}.") from problem
        self._root = f"{root.rstrip('/')}/{place}"
        self._saved: dict[str, tuple[int, int]] = {}

    def save(self, folder: Path) -> None:
        """Copies what is new or has changed since the last time, the oldest first, and removes what is gone.

        Links are passed over. The copy is there afterwards, even if there is nothing to copy yet.

        Raises:
            OSError: if a file cannot be copied; the next time goes on there.
        """
        self._files.create_dir(self._root)
        found = dict(sorted(_regular_files(folder).items(), key=lambda item: item[1][1]))
        for name, state in found.items():
            if self._saved.get(name) != state:
                with contextlib.suppress(FileNotFoundError), open_regular(folder / name) as source:
                    self._write(name, source)
                self._saved[name] = state
        for name in self._saved.keys() - found.keys():
            if self._files.get_file_info(f"{self._root}/{name}").type == FileType.File:
                self._files.delete_file(f"{self._root}/{name}")
            del self._saved[name]

    def load(self, folder: Path) -> bool:
        """Copies all of it into ``folder``, which is made; whether there was anything.

        What is saved next is compared with this: a file that is removed meanwhile is removed from the copy too.

        Raises:
            AptValueError: if it holds what no run folder does.
            OSError: if a file cannot be copied.
        """
        found = [info for info in self._listed() if info.type == FileType.File]
        for info in found:
            target = folder.joinpath(*self._relative(info).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._files.open_input_stream(info.path) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        names = {self._relative(info).as_posix() for info in found}
        self._saved = {name: state for name, state in _regular_files(folder).items() if name in names}
        return bool(found)

    def exists(self) -> bool:
        """Whether it was saved before, and is seen from here."""
        return self._files.get_file_info(self._root).type == FileType.Directory

    def remove(self) -> None:
        """Removes all of it."""
        if self.exists():
            self._files.delete_dir(self._root)

    def _write(self, name: str, source: BinaryIO) -> None:
        target = f"{self._root}/{name}"
        self._files.create_dir(target.rpartition("/")[0])
        with self._files.open_output_stream(target) as sink:
            shutil.copyfileobj(source, sink)

    def _listed(self) -> list[FileInfo]:
        listed = self._files.get_file_info(FileSelector(self._root, allow_not_found=True, recursive=True))
        if len(listed) > _MOST_FILES:
            raise AptValueError(f"storage: {self._root} holds {len(listed):,} files; accepted: up to {_MOST_FILES:,}.")
        return listed

    def _relative(self, info: FileInfo) -> PurePosixPath:
        relative = PurePosixPath(info.path.removeprefix(f"{self._root}/"))
        if relative.is_absolute() or ".." in relative.parts or not relative.parts:
            raise AptValueError(f"storage: {info.path} is no file of a run folder.")
        return relative


def _regular_files(folder: Path) -> dict[str, tuple[int, int]]:
    """Name -> size and time of change in ns, of all regular files below a folder."""
    found = {}
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            try:
                state = path.lstat()
            except FileNotFoundError:  # replaced or removed meanwhile
                continue
            if stat.S_ISREG(state.st_mode):
                found[path.relative_to(folder).as_posix()] = (state.st_size, state.st_mtime_ns)
    return found
