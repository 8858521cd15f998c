"""Who may change runs and start trainings: from how the app was started, who looks, and who is signed in.

No Streamlit: ``analysis/pages/access.py`` asks it for what is decided on here.
"""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args
from urllib.parse import urlsplit

from apt_core.errors import AptError
from apt_core.jobs.places import Executor, place

DEFAULT_ROOTS = ("runs", "sample_runs")
APP_FILE = "app.py"
GUIDE = "docs/security.md"
MIN_COOKIE_SECRET = 32
"""characters; who guesses it signs in as anybody"""
DEFAULT_PROVIDER = "default"
"""Streamlit's name for the provider that has no section of its own"""
PROXY_HEADERS = ("Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip")
"""what a reverse proxy adds; with ``X-Forwarded-...``"""
OFF = "Retraining, editing and deleting are switched off"
_PROVIDER_FIELDS = ("client_id", "client_secret", "server_metadata_url")


class Flags(NamedTuple):
    """What was typed after ``streamlit run app.py --``."""

    runs: tuple[str, ...] = DEFAULT_ROOTS
    """folders of runs; new ones go to the first"""
    data: tuple[str, ...] = ()
    """folders that hold data which may be named while the app is open to others"""
    editors: tuple[str, ...] = ()
    """e-mail addresses; empty: not given"""
    read_only: bool = False
    shared: bool = False
    """said to be open to others"""
    problem: str = ""
    """what could not be understood; the app then changes nothing"""
    executor: Executor = "local"
    """where jobs run"""
    address: str | None = None
    """of a cluster's dashboard; None: as ``place`` has it"""


class Opening(NamedTuple):
    """What is known of how the app is reached."""

    address: str | None
    """that it listens on; None or empty: all there are"""
    public_address: str = "localhost"
    """that browsers are told to use (Streamlit's ``browser.serverAddress``)"""
    headers: Mapping[str, str] = {}
    """of the request that this session began with"""


class SignIn(NamedTuple):
    """Streamlit's own OIDC sign-in, as ``.streamlit/secrets.toml`` has it."""

    providers: tuple[str, ...] = ()
    redirect_uri: str = ""
    editors: frozenset[str] | None = None
    """e-mail addresses in lower case; None: whoever signs in may edit"""
    problem: str = ""
    """why nobody can sign in although it is configured"""


class Access(NamedTuple):
    """The answer for one session."""

    may_edit: bool
    reason: str
    """why not, or what an editor should know; empty if there is nothing to say"""
    shared: bool
    """whether others than the person at this machine may reach it"""


def read_flags(argv: Sequence[str]) -> Flags:
    """What was typed. A word that is not known leaves the app readable only: it may be ``--read-only`` misspelt.

    Args:
        argv: the script, then the words; those of another script, such as a test runner's, are passed over.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--runs", "--data", "--editor"):
        parser.add_argument(name, action="append", default=[])
    for name in ("--read-only", "--shared"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--executor", choices=get_args(Executor), default="local")
    parser.add_argument("--address")
    try:
        known, other = parser.parse_known_args(list(argv[1:]))
    except argparse.ArgumentError as problem:
        return Flags(problem=str(problem))
    runs, problem = tuple(known.runs) or DEFAULT_ROOTS, ""
    if other and Path(argv[0]).name == APP_FILE:
        accepted = "--runs DIR, --data DIR, --editor EMAIL, --read-only, --shared, --executor ray, --address URL"
        problem = f"unknown {' '.join(other)!r}; accepted after --: {accepted}"
    executor, address = known.executor, known.address
    try:
        place(Path(runs[0]), executor=executor, address=address)
    except AptError as wrong:
        executor, address, problem = "local", None, str(wrong).rstrip(".")
    data, editors = tuple(known.data), tuple(known.editor)
    return Flags(runs, data, editors, known.read_only, known.shared, problem, executor, address)


def read_sign_in(secrets: Mapping[str, Any], flags: Flags, *, installed: bool) -> SignIn:
    """What the secrets say of signing in, and what is wrong with it.

    Args:
        secrets: the content of ``secrets.toml``.
        flags: whose editors count too.
        installed: whether the libraries are there.
    """
    auth = secrets.get("auth")
    auth = auth if isinstance(auth, Mapping) else {}
    sections = {name: value for name, value in auth.items() if isinstance(value, Mapping) and name != "client_kwargs"}
    if any(field in auth for field in _PROVIDER_FIELDS):
        sections = {DEFAULT_PROVIDER: auth, **sections}
    editors, problem = _editors(secrets, flags)
    redirect_uri = str(auth.get("redirect_uri", ""))
    if auth:
        problem = _auth_problem(auth, sections, redirect_uri, installed) or problem
    return SignIn(tuple(sections) if not problem else (), redirect_uri, editors, problem)


def open_to_others(flags: Flags, opening: Opening, sign_in: SignIn) -> str:
    """Why others may reach the app, in words that go on after 'because'; empty where only this machine can.

    A reverse proxy that removes every trace of itself is not seen: ``--shared`` says so.
    """
    if flags.shared:
        return "it was started with --shared"
    if not is_loopback(opening.address):
        return f"it listens on {opening.address}" if opening.address else "it listens on all addresses"
    if not is_loopback(_host(opening.public_address)):
        return f"browser.serverAddress is {opening.public_address}"
    if sign_in.redirect_uri and not is_loopback(_host(sign_in.redirect_uri)):
        return "people who sign in are sent to another address (redirect_uri)"
    for name, value in opening.headers.items():
        if name.title() in PROXY_HEADERS or name.title().startswith("X-Forwarded"):
            return f"a proxy is in front of it ({name.title()})"
        if name.title() in ("Host", "Origin") and not is_loopback(_host(value)):
            return f"it is opened as {_host(value) or value}"
    return ""


def decide(
    flags: Flags, opening: Opening, sign_in: SignIn, user: Mapping[str, Any], *, named_by_headers: bool = False
) -> Access:
    """Whether this session may change runs and start trainings.

    Args:
        flags: what was typed.
        opening: how the app is reached.
        sign_in: how people can sign in.
        user: what Streamlit knows of who is signed in: ``is_logged_in``, ``email``, ``email_verified``.
        named_by_headers: whether request headers can say who that is (``server.trustedUserHeaders``).
    """
    why = open_to_others(flags, opening, sign_in)
    if flags.problem:
        return Access(False, f"{OFF}: {flags.problem}.", bool(why))
    if flags.read_only:
        return Access(False, "This dashboard is read-only: it changes nothing and starts nothing.", bool(why))
    if not why:
        return Access(True, "", False)
    if named_by_headers:
        return Access(False, f"{OFF}: server.trustedUserHeaders lets headers say who is signed in.", True)
    if sign_in.problem:
        return Access(False, f"{OFF}: {sign_in.problem} See {GUIDE}.", True)
    if not sign_in.providers:
        said = f"{OFF}, because others may reach this dashboard ({why}) and nobody can sign in."
        return Access(False, f"{said} Set up sign-in, see {GUIDE}, or start it on 127.0.0.1.", True)
    if user.get("is_logged_in") is not True:
        return Access(False, "Sign in to retrain, edit or delete.", True)
    return _signed_in(sign_in, user)


def is_loopback(host: str | None) -> bool:
    """Whether a name or address can only mean this machine."""
    if not host:
        return False
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def _signed_in(sign_in: SignIn, user: Mapping[str, Any]) -> Access:
    email = user.get("email")
    email = email.strip().lower() if isinstance(email, str) else ""
    if sign_in.editors is None:
        return Access(True, "Whoever signs in may edit: [apt] editors in secrets.toml can name those who may.", True)
    if not email or email not in sign_in.editors:
        who = email or "An account without an e-mail address"
        return Access(False, f"{OFF}: {who} is not among the editors of this dashboard.", True)
    if user.get("email_verified", True) is not True:
        return Access(False, f"{OFF}: the provider says that {email} is not verified.", True)
    return Access(True, "", True)


def _editors(secrets: Mapping[str, Any], flags: Flags) -> tuple[frozenset[str] | None, str]:
    section = secrets.get("apt")
    section = section if isinstance(section, Mapping) else {}
    listed = section.get("editors")
    if listed is not None and not (isinstance(listed, Sequence) and all(isinstance(each, str) for each in listed)):
        return frozenset(), "editors in [apt] of secrets.toml is no list of e-mail addresses."
    if isinstance(listed, str):
        listed = [listed]
    if listed is None and not flags.editors:
        return None, ""
    return frozenset(each.strip().lower() for each in (*(listed or ()), *flags.editors)), ""


def _auth_problem(
    auth: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]], redirect_uri: str, installed: bool
) -> str:
    """What is wrong with ``[auth]``, in one sentence that shows none of its values; empty if nothing is."""
    if not installed:
        return "sign-in is configured, but its libraries are missing: pip install 'streamlit[auth]'."
    if not redirect_uri.endswith("/oauth2callback"):
        return "redirect_uri in [auth] of secrets.toml does not end with /oauth2callback."
    if urlsplit(redirect_uri).scheme != "https" and not is_loopback(_host(redirect_uri)):
        return "redirect_uri in [auth] of secrets.toml is not https, so sign-ins could be read on their way."
    if len(str(auth.get("cookie_secret", ""))) < MIN_COOKIE_SECRET:
        return (
            f"cookie_secret in [auth] of secrets.toml has fewer than {MIN_COOKIE_SECRET} characters; make one with "
            "python -c 'import secrets; print(secrets.token_hex(32))'."
        )
    if not sections:
        return "[auth] of secrets.toml names no provider (client_id, client_secret, server_metadata_url)."
    for name, section in sections.items():
        missing = [field for field in _PROVIDER_FIELDS if not section.get(field)]
        if missing:
            return f"provider {name} in [auth] of secrets.toml lacks {', '.join(missing)}."
        if "_" in name:
            return f"provider {name} in [auth] of secrets.toml has an underscore in its name, which Streamlit refuses."
    return ""


def _host(address: str) -> str:
    """The host of an URL or of a ``Host`` header; empty if there is none."""
    try:
        return urlsplit(address if "://" in address else f"//{address}").hostname or ""
    except ValueError:
        return ""
