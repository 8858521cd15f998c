"""The real app in a process of its own, for what looks at it in a real Chromium."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_SECONDS = END_SECONDS = 60
"""far more than it takes on a busy machine"""


class App(NamedTuple):
    """A running app."""

    address: str
    process: subprocess.Popen


@contextmanager
def running_app(project: Path, roots: Sequence[Path], *flags: str) -> Iterator[App]:
    """Starts the app on folders of runs and ends it afterwards.

    Args:
        project: the folder with ``app.py``.
        roots: given as ``--runs``.
        flags: further flags of the app, such as ``--read-only``.

    Raises:
        RuntimeError: if it does not listen within a minute, with what it printed.
        subprocess.TimeoutExpired: if it has not ended within a minute of being asked to.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port), "--"]
    command += [word for root in roots for word in ("--runs", str(root))] + list(flags)
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=project, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"the app did not start: {log.read()}")
                time.sleep(0.1)
            yield App(f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
