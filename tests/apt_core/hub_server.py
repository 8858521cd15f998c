"""The parts of the Hugging Face Hub that an upload and a download call, on this machine, in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_token_of_the_test"
RESOLVE = re.compile(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")
COMMIT = re.compile(r"/api/models/([\w.-]+/[\w.-]+)/(preupload|commit)/([^/]+)")
BATCH = re.compile(r"/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch")


class HubServer(ThreadingHTTPServer):
    """Repositories in memory; ``url`` is what HF_ENDPOINT must be."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.visibility: dict[str, str | None] = {}
        self.objects: dict[str, bytes] = {}
        self.refused: dict[str, tuple[int, str]] = {}
        """path -> status and message that it is answered with"""

    def commit_of(self, repo_id: str) -> str:
        """A name for the state of a repository, as a commit has."""
        return hashlib.sha1(repr(sorted(self.repositories[repo_id].items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer
    timeout = 20

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        found = RESOLVE.fullmatch(unquote(urlsplit(self.path).path))
        if found is None or found[1] not in self.server.repositories:
            return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        content = self.server.repositories[found[1]].get(found[3])
        if content is None:
            return self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha256(content).hexdigest()
        return self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": self.server.commit_of(found[1])})

    def do_PUT(self) -> None:
        content = self._body()
        self.server.objects[hashlib.sha256(content).hexdigest()] = content
        self._send(200, {})

    def do_POST(self) -> None:
        path, body = urlsplit(self.path).path, self._body()
        if path in self.server.refused:
            status, message = self.server.refused[path]
            return self._send(status, {"error": message})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, {"error": "Invalid username or password."})
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo_id = f"{asked['organization']}/{asked['name']}"
            self.server.repositories.setdefault(repo_id, {})
            self.server.visibility.setdefault(repo_id, asked.get("visibility"))
            return self._send(200, {"url": f"{self.server.url}/{repo_id}", "name": repo_id})
        if BATCH.fullmatch(path):
            objects = [
                {**item, "actions": {"upload": {"href": f"{self.server.url}/objects/{item['oid']}"}}}
                for item in json.loads(body)["objects"]
            ]
            return self._send(200, {"transfer": "basic", "objects": objects})
        found = COMMIT.fullmatch(path)
        if found is None:
            return self._send(404, {"error": path})
        if found[2] == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {True: "lfs", False: "regular"}
            files = [{"path": n, "uploadMode": modes[n.endswith(".safetensors")], "shouldIgnore": False} for n in names]
            return self._send(200, {"files": files})
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.server.repositories[found[1]][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.repositories[found[1]][value["path"]] = self.server.objects[value["oid"]]
        commit = self.server.commit_of(found[1])
        return self._send(200, {"commitUrl": f"{self.server.url}/{found[1]}/commit/{commit}", "commitOid": commit})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(payload)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    def log_message(self, *_: Any) -> None:
        """A test prints nothing."""
