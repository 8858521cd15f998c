"""What a person types into a page as a path or a model: checked before anything is read, written or started.

No Streamlit. Characters of a shell are harmless, because commands are lists of words (quoted, where a cluster wants one
line); they are refused where they can name nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from analysis.run_edits import MAX_FOLDER_NAME, check_name
from apt_core.errors import AptFileNotFoundError, AptValueError, bad_value
from apt_core.model_name import check_model_name, is_hub_name, model_folder

MAX_SHOWN = 120
"""characters of what was typed that a message repeats"""
_PART = f"Each part has 1 to {MAX_FOLDER_NAME} characters, no \\ or :, and no dot or space at its start."


def inside(root: Path, name: str, field: str = "name") -> Path:
    """A place below ``root`` for something to be written, such as a run or a folder of runs.

    Args:
        root: a folder that the app was started with.
        name: ``name``, or ``folder/name``; no part begins with a dot or a dash.
        field: what messages call it.

    Returns:
        ``root / name``; it need not exist.

    Raises:
        AptValueError: if it could be anywhere else, be it through ``..``, an absolute path or a link.
    """
    accepted = f"a name below {root}, without .. and in printable characters"
    text = _printable(name, field, accepted)
    if text.startswith("/"):
        raise bad_value(field, name, accepted, "It is an absolute path.")
    for part in text.split("/"):
        if part.startswith("-"):
            raise bad_value(field, name, accepted, f"{part!r} begins with a dash, as an option does.")
        try:
            check_name(part)
        except AptValueError:
            raise bad_value(field, name, accepted, _PART) from None
    path = root / PurePosixPath(text)
    if not _resolved(path, field).is_relative_to(_resolved(root, field)):
        raise bad_value(field, name, accepted, "A link leads out of the folder.")
    return path


def data_place(text: str, allowed: Sequence[Path] | None, field: str = "data folder") -> Path:
    """An existing file or folder with data.

    Args:
        text: as typed; ``~`` is the home folder. Where ``allowed`` is given, a relative path starts in one of these.
        allowed: folders that it must be in, with all links followed; None: anywhere on this machine.
        field: what messages call it.

    Raises:
        AptValueError: if it has ``..`` or unprintable characters, begins with a dash, or is in no allowed folder.
        AptFileNotFoundError: if it does not exist.
    """
    accepted = _accepted(allowed)
    words = _printable(text, field, accepted)
    if words.startswith("-"):
        raise bad_value(field, text, accepted, "It begins with a dash, as an option does.")
    try:
        path = Path(words).expanduser()
    except RuntimeError:
        raise bad_value(field, text, accepted, "There is no such home folder.") from None
    if ".." in path.parts:
        raise bad_value(field, text, accepted, "It has '..' in it; give the full path.")
    if allowed is None:
        found = [path]
    else:
        roots = [_resolved(root, field) for root in allowed]
        places = [path] if path.is_absolute() else [root / path for root in roots]
        found = [place for place in (_resolved(each, field) for each in places) if _is_below(place, roots)]
        if not found:
            raise bad_value(field, text, accepted, "It is, or a link leads, elsewhere.")
    there = next((place for place in found if _exists(place)), None)
    if there is None:
        raise AptFileNotFoundError(
            f"{field}: got {words[:MAX_SHOWN]!r}, which does not exist here; accepted: {accepted}."
        )
    return there


def data_folder(text: str, allowed: Sequence[Path] | None, field: str = "data folder") -> Path:
    """The same, a folder.

    Raises:
        AptError: as ``data_place``, and if it is a file.
    """
    place = data_place(text, allowed, field)
    if not place.is_dir():
        raise bad_value(field, text, "a folder, not a file")
    return place


def model_name(text: str, allowed: Sequence[Path] | None) -> str:
    """The name of a backbone as a training takes it: a Hub name, or an existing folder.

    Args:
        text: as typed.
        allowed: as for ``data_place``.

    Raises:
        AptError: if it is neither, saying which characters are wrong; or a folder that is not allowed.
    """
    name = text.strip()
    if ".." in PurePosixPath(name).parts:
        raise bad_value("model", text, "a Hub name, or a folder's full path without '..'")
    check_model_name(name)
    if model_folder(name) is None and is_hub_name(name):
        return name
    return str(data_folder(name, allowed, "model"))


def _printable(text: str, field: str, accepted: str) -> str:
    words = text.strip()
    if not words or not words.isprintable():
        raise bad_value(field, text, accepted, "It is empty." if not words else "It has control characters.")
    return words


def _accepted(allowed: Sequence[Path] | None) -> str:
    if allowed is None:
        return "a file or folder on this machine, without '..'"
    if not allowed:
        return "none while others may reach this dashboard and it was started without -- --data DIR"
    return f"a file or folder in {', '.join(map(str, allowed))}"


def _resolved(path: Path, field: str) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        raise bad_value(field, str(path), "a path that can be followed", "It is too long, or its links turn.") from None


def _is_below(place: Path, roots: Sequence[Path]) -> bool:
    return any(place.is_relative_to(root) for root in roots)


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # a name longer than the file system takes, or a folder that may not be looked into
        return False
