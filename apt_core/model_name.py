"""Which text can name a backbone: asked before anything is read, loaded or started. No torch."""

from __future__ import annotations

import re
from pathlib import Path

from apt_core.errors import AptFileNotFoundError, bad_value

MAX_HUB_NAME = 96
"""characters, as the Hugging Face Hub has it"""
ACCEPTED = "an existing model folder, or a Hub name such as google-bert/bert-base-uncased"
_HUB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_.-]+)?")
_OTHER_LETTER = re.compile(r"[^A-Za-z0-9_./-]")


def is_hub_name(name: str) -> bool:
    """Whether a text has the form of a model's name on the Hub: ``owner/name``, or an old one such as ``gpt2``."""
    repeated = ".." in name or "--" in name
    return _HUB_NAME.fullmatch(name) is not None and not repeated and len(name) <= MAX_HUB_NAME


def check_model_name(name: str) -> None:
    """Refuses what is neither a folder of this machine nor can be a name on the Hub.

    Raises:
        AptFileNotFoundError: saying which characters are wrong.
        AptValueError: if it is empty, not printable or begins as an option does.
    """
    if not name or not name.isprintable():
        raise bad_value("model", name, f"{ACCEPTED}, in printable characters")
    if name.startswith("-"):
        raise bad_value("model", name, ACCEPTED, "It begins with a dash, as an option does.")
    if model_folder(name) is not None or is_hub_name(name):
        return
    wrong = "".join(dict.fromkeys(_OTHER_LETTER.findall(name)))
    reason = f" and has characters that no name on the Hub has ({wrong!r})" if wrong else ""
    shown = repr(name) if len(name) <= MAX_HUB_NAME else repr(name[:MAX_HUB_NAME] + "...")
    raise AptFileNotFoundError(f"model: got {shown}, which is not a folder{reason}; accepted: {ACCEPTED}.")


def model_folder(name: str) -> Path | None:
    """The existing folder that a text names, ``~`` expanded; None if there is none."""
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # longer than any path; the home of nobody
        return None
