"""The process that watches over one job: starts the training, waits for it, writes how it ended.

Started as ``python -m apt_core.jobs.supervisor FOLDER PROGRAM...``; not for people.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from apt_core.gate_log import write_atomic
from apt_core.jobs.local import GRACE_SECONDS, LOG_FILE, STATE_FILE
from apt_core.processes import MARKER, end_marked
from apt_core.run_format import utc_now

_PR_SET_CHILD_SUBREAPER = 36


def supervise(folder: Path, command: list[str]) -> int:
    """Runs ``command`` with its output in ``folder/log.txt``; returns its exit code."""
    _adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: None)  # whoever cancels ends the training; this one writes the end
    process = psutil.Process()
    state: dict[str, Any] = {"state": "running", "pid": process.pid, "started": process.create_time()}
    path = folder / STATE_FILE
    write_atomic(path, json.dumps(state).encode())
    print("started", flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # let go of the submitter's pipe
    with (folder / LOG_FILE).open("wb") as log:
        trainer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        code = trainer.wait()
    end_marked(os.environ.get(MARKER, ""), GRACE_SECONDS)
    if json.loads(path.read_text())["state"] == "running":
        ended = {"state": "finished" if code == 0 else "failed", "exit_code": code, "ended_at": utc_now()}
        write_atomic(path, json.dumps({**state, **ended}).encode())
    return code


def _adopt_orphans() -> None:
    """On Linux, grandchildren whose parent dies become children of this process and can be waited for."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


if __name__ == "__main__":
    sys.exit(supervise(Path(sys.argv[1]), sys.argv[2:]))
