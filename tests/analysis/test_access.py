"""Who may edit: every way the app can be reached, and every way somebody can be signed in or not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.access import (
    DEFAULT_ROOTS,
    MIN_COOKIE_SECRET,
    Flags,
    Opening,
    SignIn,
    decide,
    is_loopback,
    open_to_others,
    read_flags,
    read_sign_in,
)

HERE = Opening("127.0.0.1")
EVERYWHERE = Opening("0.0.0.0")
PROVIDER = {
    "client_id": "id",
    "client_secret": "not-to-be-shown",
    "server_metadata_url": "https://id.example.com/.well-known/openid-configuration",
}
SHARED = {"redirect_uri": "https://studio.example.com/oauth2callback", "cookie_secret": "c" * MIN_COOKIE_SECRET}
AUTH = {**SHARED, **PROVIDER}
SIGN_IN = read_sign_in({"auth": AUTH}, Flags(), installed=True)
MANY = settings(max_examples=100)
"""also on a busy machine"""
ADA = {"is_logged_in": True, "email": "ada@example.com", "email_verified": True}


def sign_in(editors: list[str] | str | None = None, *flags: str, **auth: object) -> SignIn:
    """As the secrets say it, with changes; a field that is None is left out."""
    section = {name: value for name, value in {**AUTH, **auth}.items() if value is not None}
    secrets = {"auth": section, **({"apt": {"editors": editors}} if editors is not None else {})}
    return read_sign_in(secrets, Flags(editors=flags), installed=True)


def test_flags_that_were_typed_are_read():
    words = ["app.py", "--runs", "a", "--runs", "b", "--data", "d", "--editor", "x@y.z", "--read-only", "--shared"]
    assert read_flags(words) == Flags(("a", "b"), ("d",), ("x@y.z",), True, True)
    assert read_flags(["app.py"]) == Flags(DEFAULT_ROOTS)
    cluster = ["app.py", "--executor", "ray", "--address", "http://127.0.0.1:8265"]
    assert read_flags(cluster) == Flags(executor="ray", address="http://127.0.0.1:8265")


@pytest.mark.parametrize(
    "words", [["--executor", "ray"], ["--executor", "ray", "--address", "here"], ["--address", "x"]]
)
def test_cluster_without_a_usable_address_leaves_the_app_readable_only(words, monkeypatch):
    monkeypatch.delenv("APT_RAY_ADDRESS", raising=False)
    flags = read_flags(["app.py", "--runs", "mine", *words])
    assert (flags.runs, flags.executor, flags.address) == (("mine",), "local", None)
    answer = decide(flags, HERE, SignIn(), {})
    assert not answer.may_edit
    assert "got " in answer.reason


@pytest.mark.parametrize("words", [["--readonly"], ["--read-onl"], ["--runs"], ["--shared=yes"], ["runs"], ["--data"]])
def test_flag_that_is_not_understood_leaves_the_app_readable_only(words):
    flags = read_flags(["/somewhere/app.py", *words])
    answer = decide(flags, HERE, SignIn(), {})
    assert not answer.may_edit
    assert words[0].partition("=")[0] in answer.reason


def test_words_of_another_program_are_passed_over():
    assert read_flags(["/bin/pytest", "-x", "tests", "--read-only"]) == Flags(read_only=True)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.4", False),
        ("::ffff:10.0.0.4", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("unix:///tmp/app.sock", False),
        ("", False),
        (None, False),
    ],
)
def test_only_names_of_this_machine_are_its_own(host, own):
    assert is_loopback(host) is own


@pytest.mark.parametrize(
    ("opening", "said"),
    [
        (HERE, ""),
        (Opening("localhost", headers={"Host": "localhost:8501", "Origin": "http://localhost:8501"}), ""),
        (Opening("::1", headers={"host": "[::1]:8501", "Accept-Language": "de"}), ""),
        (Opening(None), "all addresses"),
        (Opening(""), "all addresses"),
        (EVERYWHERE, "listens on 0.0.0.0"),
        (Opening("127.0.0.1", "studio.example.com"), "browser.serverAddress is studio.example.com"),
        (
            Opening("127.0.0.1", headers={"x-forwarded-for": "203.0.113.9"}),
            "a proxy is in front of it (X-Forwarded-For",
        ),
        (Opening("127.0.0.1", headers={"X-Forwarded-Proto": "https"}), "a proxy"),
        (Opening("127.0.0.1", headers={"forwarded": "for=203.0.113.9"}), "a proxy"),
        (Opening("127.0.0.1", headers={"x-real-ip": "203.0.113.9"}), "a proxy"),
        (Opening("127.0.0.1", headers={"Via": "1.1 proxy"}), "a proxy"),
        (Opening("127.0.0.1", headers={"Host": "studio.example.com"}), "opened as studio.example.com"),
        (Opening("127.0.0.1", headers={"Origin": "https://studio.example.com"}), "opened as studio.example.com"),
        (Opening("127.0.0.1", headers={"Origin": "null"}), "opened as null"),
        (Opening("127.0.0.1", headers={"Host": "[half"}), "opened as [half"),
    ],
)
def test_app_is_its_persons_own_only_while_nothing_speaks_for_others(opening, said):
    why = open_to_others(Flags(), opening, SignIn())
    assert (said in why) if said else why == ""
    answer = decide(Flags(), opening, SignIn(), {})
    assert (answer.may_edit, answer.shared) == (not said, bool(said))
    if said:
        assert why in answer.reason
        assert "docs/security.md" in answer.reason


def test_sign_in_at_another_address_and_the_flag_say_that_it_is_open():
    assert decide(Flags(), HERE, SIGN_IN, {}).shared
    at_home = sign_in(redirect_uri="http://localhost:8501/oauth2callback")
    assert decide(Flags(), HERE, at_home, {}) == (True, "", False)
    assert not decide(Flags(shared=True), HERE, at_home, {}).may_edit
    assert decide(Flags(shared=True), HERE, at_home, ADA).may_edit


def test_read_only_is_for_everybody():
    for opening, user in ((HERE, {}), (EVERYWHERE, ADA)):
        answer = decide(Flags(read_only=True), opening, SIGN_IN, user)
        assert not answer.may_edit
        assert "read-only" in answer.reason


@pytest.mark.parametrize(
    ("editors", "flags", "user", "may"),
    [
        (None, (), ADA, True),
        (None, (), {}, False),
        (None, (), {**ADA, "is_logged_in": False}, False),
        (None, (), {**ADA, "is_logged_in": "true"}, False),
        (["Ada@Example.com"], (), ADA, True),
        ("ada@example.com", (), ADA, True),
        ([], ("ADA@example.com",), ADA, True),
        (None, ("ada@example.com",), ADA, True),
        (["eve@example.com"], (), ADA, False),
        ([], (), ADA, False),
        (None, ("eve@example.com",), ADA, False),
        (["ada@example.com"], (), {"is_logged_in": True}, False),
        (["ada@example.com"], (), {"is_logged_in": True, "email": None}, False),
        (["ada@example.com"], (), {**ADA, "email_verified": False}, False),
        (["ada@example.com"], (), {"is_logged_in": True, "email": "ada@example.com"}, True),
        ([1], (), ADA, False),
        (7, (), ADA, False),
    ],
)
def test_editors_are_who_signed_in_and_is_listed(editors, flags, user, may):
    answer = decide(Flags(editors=flags), EVERYWHERE, sign_in(editors, *flags), user)
    assert answer.may_edit is may
    assert answer.reason or (may and (editors is not None or flags))


def test_headers_that_name_people_are_no_sign_in():
    answer = decide(Flags(), EVERYWHERE, SIGN_IN, ADA, named_by_headers=True)
    assert not answer.may_edit
    assert "trustedUserHeaders" in answer.reason


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"redirect_uri": None}, "redirect_uri"),
        ({"redirect_uri": "https://studio.example.com/"}, "/oauth2callback"),
        ({"redirect_uri": "http://studio.example.com/oauth2callback"}, "not https"),
        ({"cookie_secret": None}, "cookie_secret"),
        ({"cookie_secret": "xxx-not-to-be-shown"}, "cookie_secret"),
        ({"client_secret": None}, "lacks client_secret"),
        ({"client_id": None, "client_secret": None, "server_metadata_url": None}, "names no provider"),
        ({"my_own": PROVIDER}, "underscore"),
        ({"okta": {"client_id": "id"}}, "provider okta in [auth] of secrets.toml lacks client_secret"),
    ],
)
def test_sign_in_that_cannot_work_is_said_without_its_secrets(changes, said):
    found = sign_in(**changes)
    assert found.providers == ()
    answer = decide(Flags(), EVERYWHERE, found, ADA)
    assert not answer.may_edit
    assert said in answer.reason
    assert "not-to-be-shown" not in answer.reason


def test_missing_libraries_are_named_with_the_command_that_installs_them():
    found = read_sign_in({"auth": AUTH}, Flags(), installed=False)
    assert "pip install 'streamlit[auth]'" in decide(Flags(), EVERYWHERE, found, ADA).reason


def test_named_providers_are_offered_beside_the_default_one():
    assert sign_in().providers == ("default",)
    assert sign_in(okta=PROVIDER, client_kwargs={"prompt": "login"}).providers == ("default", "okta")
    only_named = {**dict.fromkeys(PROVIDER), "okta": PROVIDER, "google": PROVIDER}
    assert sign_in(**only_named).providers == ("okta", "google")


@MANY
@given(
    flags=st.builds(Flags, read_only=st.booleans(), shared=st.booleans(), problem=st.sampled_from(["", "unknown"])),
    opening=st.builds(
        Opening,
        st.sampled_from([None, "", "127.0.0.1", "0.0.0.0", "host"]) | st.text(),
        headers=st.dictionaries(
            st.sampled_from(["Host", "Origin", "X-Forwarded-For", "Accept"]) | st.text(), st.text()
        ),
    ),
    found=st.sampled_from([SignIn(), SIGN_IN, sign_in(["ada@example.com"]), sign_in(cookie_secret="x")]),
    user=st.dictionaries(
        st.sampled_from(["is_logged_in", "email", "email_verified"]),
        st.booleans() | st.none() | st.sampled_from(["ada@example.com", "eve@example.com"]),
    ),
)
def test_no_circumstances_let_anybody_edit_whom_the_rules_do_not(flags, opening, found, user):
    answer = decide(flags, opening, found, user)
    if answer.may_edit:
        assert not flags.read_only
        assert not flags.problem
        assert answer.shared == bool(open_to_others(flags, opening, found))
        if answer.shared:
            assert found.providers
            assert user["is_logged_in"] is True
            assert found.editors is None or user["email"] in found.editors
            assert found.editors is None or user.get("email_verified", True) is True
    else:
        assert answer.reason
