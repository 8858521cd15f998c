"""Adapters on the Hugging Face Hub: which names are repositories, how one is fetched, what goes wrong in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import get_token, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from apt_core.errors import AptError, AptFileNotFoundError, AptValueError, bad_value
from apt_core.model_name import is_hub_name

LOG_IN = "Run 'hf auth login' or set HF_TOKEN."
_REPO_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


def is_repo_id(name: str | Path) -> bool:
    """Whether ``name`` is text such as ``user/name`` that no folder or file on this machine has as its path."""
    return isinstance(name, str) and _REPO_ID.fullmatch(name) is not None and not Path(name).exists()


def is_hub_model(name: str) -> bool:
    """Whether the name of a backbone is one on the Hub, old ones such as ``gpt2`` included, and no local path."""
    return is_hub_name(name) and not Path(name).exists()


def check_repo_id(repo_id: str) -> None:
    """Refuses what the Hub would not take as ``user/name``.

    Raises:
        AptValueError: with the Hub's reason.
    """
    accepted = "user/name or organisation/name, such as me/pydoc-topic-apt"
    try:
        validate_repo_id(repo_id)
    except HFValidationError as problem:
        raise bad_value("repo_id", repo_id, accepted, _first_line(problem)) from problem
    if not repo_id or "/" not in repo_id:
        raise bad_value("repo_id", repo_id, accepted)


def check_token(token: str | bool | None) -> None:
    """Refuses a token that cannot be sent, without showing it.

    Raises:
        AptValueError: if the given token, or the one found on this machine, has characters no token has.
    """
    used = token if isinstance(token, str) else get_token() if token is not False else None
    if used is not None and not (used.isascii() and used.isprintable() and used.split() == [used]):
        raise AptValueError(f"token: got text with spaces or special characters; accepted: an access token. {LOG_IN}")


def download_adapter(
    repo_id: str,
    files: Sequence[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Fetches an adapter's files, all of the same commit, or finds them in the Hub's cache.

    Args:
        repo_id: ``user/name``.
        files: names of the files.
        revision: branch, tag or commit; None: main.
        token, cache_dir, local_files_only, force_download: as for ``huggingface_hub.hf_hub_download``.

    Returns:
        The folder they are in.

    Raises:
        AptFileNotFoundError: if the repository, the revision or a file does not exist, or nothing can be reached.
        AptError: if access is refused.
    """
    check_repo_id(repo_id)
    check_token(token)
    with hub_errors(repo_id):
        for name in files:
            path = hf_hub_download(
                repo_id,
                name,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
            )
            revision = Path(path).parent.name  # the commit: a push in between must not mix two adapters
    return Path(path).parent


@contextmanager
def hub_errors(repo_id: str, *, writing: bool = False) -> Iterator[None]:
    """Turns what huggingface_hub raises into one line of ours, which never holds a token."""
    here = f"repo_id: got {repo_id!r}"
    try:
        yield
    except AptError:
        raise
    except OfflineModeIsEnabled:
        raise AptError(f"{here}, but HF_HUB_OFFLINE is set; unset it to reach the Hub.") from None
    except LocalTokenNotFoundError:
        raise AptError(f"{here}, for which nobody is logged in. {LOG_IN}") from None
    except RevisionNotFoundError:
        raise AptFileNotFoundError(f"{here}, which has no such revision; accepted: a branch, tag or commit.") from None
    except RepositoryNotFoundError as problem:
        if writing:
            raise _refused(here, problem) from None
        raise AptFileNotFoundError(
            f"{here}, which is no folder here and no repository on the Hub that you may read; accepted: an adapter's "
            f"folder, or user/name of one on the Hub. If it is private: {LOG_IN}"
        ) from None
    except LocalEntryNotFoundError:
        raise AptFileNotFoundError(
            f"{here}, which is no folder here, is not in the Hub's cache, and the Hub is not reached; accepted: an "
            "adapter's folder, or user/name of one on the Hub. Check the connection, and whether HF_HUB_OFFLINE is set."
        ) from None
    except EntryNotFoundError:
        raise AptFileNotFoundError(
            f"{here}, which holds no adapter of ours; accepted: a repository that push_to_hub of an AptModel made."
        ) from None
    except HfHubHTTPError as problem:
        raise _refused(here, problem) from None
    except (HTTPError, ConnectionError, TimeoutError) as problem:
        raise AptError(
            f"{here}, but the Hub is not reached ({type(problem).__name__}). Check the connection, then try again."
        ) from None


def _refused(here: str, problem: HfHubHTTPError) -> AptError:
    """What the Hub answered, without the request, whose headers hold the token."""
    status = problem.response.status_code
    said = _first_line(problem.server_message or "")
    reason = f"the Hub answers {status}" + (f": {said}" if said else "")
    if status == 401:
        return AptError(f"{here}, but {reason}: you are not logged in, or the token is not valid. {LOG_IN}")
    if status == 403:
        return AptError(f"{here}, but {reason}: your token may not do this. {LOG_IN} It takes a token that may write.")
    return AptError(f"{here}, but {reason}. Try again, or see https://status.huggingface.co.")


def _first_line(problem: object) -> str:
    return str(problem).strip().partition("\n")[0][:200]
