"""Who may do what, in the real app: signing in and out at a real provider, and a proxy in front of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.oidc_server import OidcServer
from tests.server_thread import running

pytestmark = pytest.mark.browser
EDITORS = '[apt]\neditors = ["Ada@example.com"]\n'
PATIENCE_SECONDS = 60


@pytest.fixture
def provider() -> Iterator[OidcServer]:
    with running(OidcServer()) as server:
        yield server


@pytest.fixture
def opened(provider, tmp_path, folder, start_app, monkeypatch) -> Iterator[str]:
    """The app on all addresses of this machine, with sign-in, and one editor."""
    (tmp_path / "secrets.toml").write_text(provider.secrets_toml(EDITORS))
    monkeypatch.setenv("STREAMLIT_SECRETS_FILES", str(tmp_path / "secrets.toml"))
    monkeypatch.setenv("STREAMLIT_SERVER_ADDRESS", "0.0.0.0")
    with start_app([folder]) as app:
        yield app.address


def button(page: Page, name: str):
    return page.get_by_role("button", name=name, exact=True)


def test_only_an_editor_who_is_signed_in_may_edit(opened, provider, page):
    page.goto(opened)
    expect(button(page, "Compare")).to_be_visible()
    expect(page.get_by_text("Sign in to retrain, edit or delete.")).to_be_visible()
    assert button(page, "Delete").count() == 0
    button(page, "Sign in").click()
    expect(page.get_by_text("Signed in as ada@example.com")).to_be_visible()
    expect(button(page, "Delete")).to_be_visible()
    button(page, "Sign out").click()
    expect(button(page, "Sign in")).to_be_visible()
    assert button(page, "Delete").count() == 0
    provider.claims |= {"sub": "2", "email": "eve@example.com"}
    button(page, "Sign in").click()
    expect(page.get_by_text("eve@example.com is not among the editors of this dashboard")).to_be_visible()
    expect(button(page, "Compare")).to_be_visible()
    assert button(page, "Delete").count() == 0


def test_app_on_this_machine_is_switched_off_behind_a_proxy_and_deaf_to_other_names(address):
    assert "Delete" in shown(address)
    assert "Delete" in shown(address, host="localhost")
    forwarded = shown(address, {"X-Forwarded-For": "203.0.113.9"})
    assert "a proxy is in front of it (X-Forwarded-For)" in forwarded.replace("\\", "")
    assert "Delete" not in forwarded
    with pytest.raises(InvalidStatus, match="403"):
        shown(address, host="rebound.example")


def shown(address: str, headers: dict[str, str] | None = None, host: str = "127.0.0.1") -> str:
    """All that the front page sends to a client that calls the app by the name ``host``."""
    port = urlsplit(address).port
    url, origin = f"ws://{host}:{port}/_stcore/stream", f"http://{host}:{port}"
    called = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
    with connect(url, sock=called, origin=origin, subprotocols=["streamlit"], additional_headers=headers) as client:
        ask = BackMsg()
        ask.rerun_script.query_string = ""
        client.send(ask.SerializeToString())
        received = []
        while True:
            message = ForwardMsg()
            message.ParseFromString(client.recv(PATIENCE_SECONDS))
            received.append(str(message))
            if message.WhichOneof("type") == "script_finished":
                return "\n".join(received)
