"""A small OpenID Connect provider on this machine, for tests of signing in: whoever comes is who the test says."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID, CLIENT_SECRET = "apt-gate-studio", "client-secret-of-the-test"
KEY_ID = "test"


class OidcServer(ThreadingHTTPServer):
    """Discovery, authorisation by code with PKCE, token and keys."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.key = RSAKey.generate_key(2048, {"kid": KEY_ID, "use": "sig", "alg": "RS256"})
        self.claims: dict[str, Any] = {"sub": "1", "email": "ada@example.com", "email_verified": True}
        """of whoever signs in next"""
        self.asked: dict[str, dict[str, str]] = {}
        """code -> what the request for it said"""

    def secrets_toml(self, more: str = "") -> str:
        """What ``secrets.toml`` of an app that uses this provider says; Streamlit fills in its port."""
        return (
            '[auth]\nredirect_uri = "http://127.0.0.1:{port}/oauth2callback"\n'
            f'cookie_secret = "{secrets.token_hex(32)}"\nclient_id = "{CLIENT_ID}"\nclient_secret = "{CLIENT_SECRET}"\n'
            f'server_metadata_url = "{self.url}/.well-known/openid-configuration"\n{more}'
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: OidcServer
    timeout = 20

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/.well-known/openid-configuration":
            return self._send(200, self._metadata())
        if parts.path == "/jwks":
            return self._send(200, {"keys": [self.server.key.as_dict(private=False)]})
        if parts.path == "/authorize" and asked.get("client_id") == CLIENT_ID:
            code = secrets.token_urlsafe(16)
            self.server.asked[code] = asked
            answer = urlencode({"code": code, "state": asked["state"]})
            return self._send(302, {}, {"Location": f"{asked['redirect_uri']}?{answer}"})
        return self._send(404, {"error": "not_found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        given = {name: values[0] for name, values in parse_qs(body).items()}
        login = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        asked = self.server.asked.pop(given.get("code", ""), None)
        if asked is None or login != f"{CLIENT_ID}:{CLIENT_SECRET}" or not _proves(given, asked):
            return self._send(400, {"error": "invalid_grant"})
        now = int(time.time())
        claims = {
            "iss": self.server.url,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 600,
            "nonce": asked["nonce"],
            **self.server.claims,
        }
        token = jwt.encode({"alg": "RS256", "kid": KEY_ID}, claims, self.server.key)
        return self._send(200, {"access_token": "access", "token_type": "Bearer", "id_token": token})

    def _metadata(self) -> dict[str, Any]:
        url = self.server.url
        return {
            "issuer": url,
            "authorization_endpoint": f"{url}/authorize",
            "token_endpoint": f"{url}/token",
            "jwks_uri": f"{url}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        payload = json.dumps(content).encode()
        self.send_response(status)
        told = {"Content-Type": "application/json", "Content-Length": str(len(payload)), **(headers or {})}
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: Any) -> None:
        """A test prints nothing."""


def _proves(given: dict[str, str], asked: dict[str, str]) -> bool:
    """Whether who asks for the token is who asked for the code (RFC 7636)."""
    digest = hashlib.sha256(given.get("code_verifier", "").encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked.get("code_challenge")
