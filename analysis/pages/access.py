"""Who may do what in this session, as the pages ask it, and the sidebar's sign-in."""

from __future__ import annotations

import sys
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

import streamlit as st
from streamlit.errors import Error

from analysis.access import DEFAULT_PROVIDER, Access, Flags, Opening, SignIn, decide, read_flags, read_sign_in
from apt_core.markdown import plain

LIBRARIES = ("authlib", "httpx")
"""that Streamlit's sign-in needs"""


def flags() -> Flags:
    """What was typed after ``streamlit run app.py --``."""
    return _flags(tuple(sys.argv))


@lru_cache(maxsize=1)
def _flags(argv: tuple[str, ...]) -> Flags:
    return read_flags(argv)


def access() -> Access:
    """Whether this session may change runs and start trainings, and why not: looked at anew each time."""
    opening = Opening(
        st.get_option("server.address"), st.get_option("browser.serverAddress"), st.context.headers.to_dict()
    )
    by_headers = bool(st.get_option("server.trustedUserHeaders"))
    return decide(flags(), opening, _sign_in(), st.user.to_dict(), named_by_headers=by_headers)


def show() -> None:
    """Sign-in or sign-out in the sidebar, and why nothing can be changed."""
    now, sign_in = access(), _sign_in()
    with st.sidebar:
        if sign_in.providers and not flags().read_only:
            if st.user.get("is_logged_in") is True:
                _show_user()
            else:
                for provider in sign_in.providers:
                    _show_sign_in(provider)
        if now.reason:
            st.caption(plain(now.reason))


def _show_user() -> None:
    name = st.user.get("email") or st.user.get("name") or "somebody"
    st.caption(f"Signed in as {plain(name)}")
    st.button("Sign out", icon=":material/logout:", on_click=st.logout, width="stretch")


def _show_sign_in(provider: str) -> None:
    label = "Sign in" if provider == DEFAULT_PROVIDER else f"Sign in with {plain(provider)}"
    if not st.button(label, key=f"sign in {provider}", icon=":material/login:", width="stretch"):
        return
    try:
        st.login(None if provider == DEFAULT_PROVIDER else provider)
    except Error as problem:
        st.error(plain(problem))


def _sign_in() -> SignIn:
    secrets: dict[str, Any] = dict(st.secrets) if st.secrets.load_if_toml_exists() else {}
    return read_sign_in(secrets, flags(), installed=_installed())


@cache
def _installed() -> bool:
    return all(find_spec(name) for name in LIBRARIES)
