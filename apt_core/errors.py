"""The errors this project raises for what a person can get wrong: one line, says what to do next."""

from __future__ import annotations


class AptError(Exception):
    """Base of every error raised on purpose; the command line prints it as one line and exits with 2, or with
    1 where disk or memory is the reason."""


class AptValueError(AptError, ValueError):
    """A setting, argument or line of a data file is not usable."""


class AptUnreachableError(AptValueError):
    """A cluster does not answer at its address, or not as it should; it may later."""


class AptFileNotFoundError(AptError, FileNotFoundError):
    """A file or folder that was named does not exist."""


class AptFileExistsError(AptError, FileExistsError):
    """Writing would overwrite something that already exists."""


class AptWriteError(AptError, OSError):
    """A run folder does not take what a training has to write, such as when the disk is full: exit code 1."""


def bad_value(field: str, received: object, accepted: str, hint: str = "") -> AptValueError:
    """Builds the error for one unusable value: ``field: got ...; accepted: .... hint``.

    Args:
        field: name of the setting, flag or ``file:line`` as the user wrote it.
        received: the value as received; shown shortened to 120 characters.
        accepted: what would be accepted, with units or range.
        hint: what to do next, one sentence.
    """
    return AptValueError(bad_value_text(field, received, accepted, hint))


def bad_value_text(field: str, received: object, accepted: str, hint: str = "") -> str:
    """The words of ``bad_value``, for an error of another class."""
    shown = repr(received)
    if len(shown) > 120:
        shown = shown[:117] + "..."
    return f"{field}: got {shown}; accepted: {accepted}. {hint}".strip()
