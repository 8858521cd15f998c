"""What a visitor finds on the pages: everything to look at, and nothing to change unless the rules let them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit import config
from streamlit.testing.v1 import AppTest

from analysis.access import MIN_COOKIE_SECRET
from analysis.pages import access, context, run_actions
from analysis.pilot_files import create_pilot, find_pilots
from analysis.run_edits import delete, trashed
from apt_core.errors import AptValueError
from tests.analysis.pilot_world import PILOT, ListedJobs
from tests.app_pages import TIMEOUT, field, rerun

PROJECT = Path(__file__).parents[1]
SECRETS = {
    "auth": {
        "redirect_uri": "http://localhost:8501/oauth2callback",
        "cookie_secret": "c" * MIN_COOKIE_SECRET,
        "client_id": "id",
        "client_secret": "not-to-be-shown",
        "server_metadata_url": "http://localhost:1/.well-known/openid-configuration",
    },
    "apt": {"editors": ["ada@example.com"]},
}
ADA = {"is_logged_in": True, "email": "ada@example.com", "email_verified": True}
CHANGES = {"Edit", "Hide", "Delete", "New pilot", "Delete pilot", "Start the training", "Retrain with these lengths"}


@pytest.fixture
def root(tmp_path, monkeypatch, record_run) -> Path:
    """One run and one pilot, in an app on 127.0.0.1."""
    root = tmp_path / "runs"
    monkeypatch.setattr(sys, "argv", ["app.py", "--runs", str(root)])
    record_run(root / "a", steps=5)
    create_pilot(root, "demo", PILOT)
    return root


@pytest.fixture
def jobs(monkeypatch) -> ListedJobs:
    listed = ListedJobs()
    monkeypatch.setattr("analysis.pages.context.jobs", lambda: listed)
    return listed


@pytest.fixture
def open_to_others() -> Iterator[None]:
    """The app listens on all addresses."""
    before = config.get_option("server.address")
    config.set_option("server.address", "0.0.0.0")
    yield
    config.set_option("server.address", before)


def page(name: str, user: dict | None = None, secrets: dict | None = None, **query: str) -> AppTest:
    """A page below the sidebar's part on signing in."""
    script = f"from analysis.pages import access, {name}\naccess.show()\n{name}.show()"
    app = AppTest.from_string(script, default_timeout=TIMEOUT)
    app.user = user or {}
    app.secrets = secrets or {}
    for key, value in query.items():
        app.query_params[key] = value
    return rerun(app)


def labels(app: AppTest) -> set[str]:
    return {each.label for each in app.button}


def said(app: AppTest) -> str:
    return "\n".join(each.value for each in app.sidebar.caption).replace("\\", "")


@pytest.mark.parametrize("name", ["runs", "pilot", "budget"])
def test_visitors_of_an_app_without_sign_in_look_and_change_nothing(root, jobs, open_to_others, name):
    app = page(name)
    assert not labels(app) & CHANGES
    assert "switched off, because others may reach this dashboard (it listens on 0.0.0.0)" in said(app)
    assert "docs/security.md" in said(app)


@pytest.mark.parametrize(
    ("user", "words", "may"),
    [
        ({}, "Sign in to retrain", False),
        ({"is_logged_in": False}, "Sign in to retrain", False),
        ({**ADA, "email": "eve@example.com"}, "eve@example.com is not among the editors", False),
        ({**ADA, "email": "*eve*@example.com"}, "*eve*@example.com is not among", False),
        (ADA, "Signed in as ada@example.com", True),
    ],
)
def test_with_sign_in_editors_may_edit_and_others_may_look(root, jobs, open_to_others, user, words, may):
    app = page("runs", user, SECRETS)
    assert words in said(app)
    assert bool(labels(app) & CHANGES) is may
    assert ("Sign out" if user.get("is_logged_in") else "Sign in") in labels(app)
    assert "not-to-be-shown" not in str(app.main) + str(app.sidebar)


def test_on_this_machine_nobody_has_to_sign_in(root, jobs):
    app = page("runs")
    assert labels(app) >= {"Edit", "Hide", "Delete"}
    assert said(app) == ""
    with_provider = page("runs", {}, SECRETS)
    assert labels(with_provider) >= {"Edit", "Sign in"}


def test_read_only_offers_no_sign_in_that_would_change_nothing(root, jobs, open_to_others, monkeypatch):
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--read-only"])
    app = page("runs", ADA, SECRETS)
    assert not labels(app) & {*CHANGES, "Sign in", "Sign out"}
    assert "read-only" in said(app)


def test_misspelt_flag_changes_nothing_and_is_said(root, jobs, monkeypatch):
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--readonly"])
    app = page("runs")
    assert not labels(app) & CHANGES
    assert "unknown '--readonly'; accepted after --: --runs DIR" in said(app)


def test_sign_in_that_streamlit_refuses_is_said(root, jobs, open_to_others):
    app = page("runs", {}, SECRETS)
    rerun(field(app.button, "Sign in").click())  # the runner's secrets are not those of Streamlit's sign-in
    assert "secrets.toml" in app.sidebar.error[0].value


@pytest.mark.parametrize("flag", ["--read-only", "--shared"])
def test_what_was_offered_before_is_not_done_when_it_may_no_longer_be(root, monkeypatch, flag):
    item = delete([root], root / "a")
    monkeypatch.setattr(sys, "argv", [*sys.argv, flag])
    monkeypatch.setattr(context, "roots", lambda: [root])
    assert run_actions._attempt(lambda *_: pytest.fail("was done"), item) is None
    assert st.session_state.pop(run_actions.FAILED)
    assert trashed([root]) == [item]
    with pytest.raises(AptValueError, match=r"read-only|switched off"):
        context.check_may_edit()


@pytest.mark.parametrize(
    ("label", "typed", "words"),
    [
        ("Data folder or training file", "{here}/../mine.csv", "'..'"),
        ("Data folder or training file", "mine.csv\0", "control characters"),
        ("Data folder or training file", "--train-file", "dash"),
        ("Data folder or training file", "~nobody-of-that-name/x", "no such home"),
        ("Backbone", "bert; touch trace", "('; ')"),
        ("Backbone", "$(touch trace)", "has characters that no name on the Hub has"),
        ("Backbone", "../model", "'..'"),
        ("Backbone", "--help", "dash"),
        ("Name", "../mine", "accepted: 1 to"),
        ("Name", "-rf", "dash"),
        ("Name", "a\nb", "printable"),
    ],
)
def test_hostile_text_in_the_pilots_form_is_refused_and_nothing_is_kept(root, jobs, tmp_path, label, typed, words):
    (tmp_path / "mine.csv").write_text("text,label\n" + "a,x\nb,y\n" * 20)
    app = form(str(tmp_path / "mine.csv"))
    field(app.text_input, label).set_value(typed.replace("{here}", str(tmp_path)))
    before = everything(tmp_path)
    app = rerun(field(app.button, "Check the data and make the pilot").click())
    assert words in app.error[0].value.replace("\\", "")
    assert everything(tmp_path) == before
    assert (list(find_pilots(root).pilots), jobs.jobs) == (["demo"], [])


def test_data_is_named_only_where_it_was_allowed_while_others_may_reach_the_app(
    root, jobs, open_to_others, tmp_path, monkeypatch
):
    rows = "text,label\n" + "".join(f"text {number},{'ab'[number % 2]}\n" for number in range(40))
    for folder in ("given", "private"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.csv").write_text(rows)
    for flags, place, words in (
        ([], tmp_path / "given" / "train.csv", "started without -- --data DIR"),
        (["--data", str(tmp_path / "given")], tmp_path / "private" / "train.csv", "elsewhere"),
    ):
        monkeypatch.setattr(sys, "argv", ["app.py", "--runs", str(root), *flags])
        app = rerun(field(form(str(place), ADA, SECRETS).button, "Check the data and make the pilot").click())
        assert words in app.error[0].value.replace("\\", "")
        assert list(find_pilots(root).pilots) == ["demo"]
    rerun(field(form("train.csv", ADA, SECRETS).button, "Check the data and make the pilot").click())
    (made,) = [pilot for name, pilot in find_pilots(root).pilots.items() if name != "demo"]
    assert made.data == {"train_file": str(tmp_path / "given" / "train.csv")}


def test_streamlit_guards_against_other_sites_and_other_names():
    assert st.get_option("server.address") == "127.0.0.1"
    assert st.get_option("server.enableCORS")
    assert st.get_option("server.enableXsrfProtection")
    assert set(st.get_option("server.allowedHosts")) == {"127.0.0.1", "localhost", "::1"}
    assert not st.get_option("server.trustedUserHeaders")
    assert not st.get_option("server.enableAgentApi")


def test_libraries_of_sign_in_are_what_streamlit_asks_for():
    assert access._installed()


def form(place: str, user: dict | None = None, secrets: dict | None = None) -> AppTest:
    """The form of a new pilot, filled in."""
    app = page("pilot", user, secrets)
    app = rerun(field(app.button, "New pilot").click())
    rerun(field(app.selectbox, "Task").set_value("text-classification"))
    field(app.text_input, "Name").set_value("mine")
    field(app.number_input, "Seeds").set_value(2)
    return rerun(field(app.text_input, "Data folder or training file").set_value(place))


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
