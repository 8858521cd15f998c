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

from apt_core.files import write_atomic
from apt_core.jobs.local import CANCEL_FILE, GRACE_SECONDS, JOB_FILE, LOG_FILE, PENDING_JOB_FILE, STATE_FILE
from apt_core.jobs.process_tree import end_job
from apt_core.processes import MARKER
from apt_core.run_format import utc_now

NOT_STARTED = 127
"""exit code of a program that could not be started, as in a shell"""
_PR_SET_CHILD_SUBREAPER = 36


def supervise(folder: Path, command: list[str]) -> int:
    """Runs ``command`` with its output in ``folder/log.txt``; returns its exit code."""
    _adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: None)  # whoever cancels ends the training; this one writes the end
    process = psutil.Process()
    state: dict[str, Any] = {"state": "running", "pid": process.pid, "started": process.create_time()}
    _write(folder, state)
    os.replace(folder / PENDING_JOB_FILE, folder / JOB_FILE)
    print("started", flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # let go of the submitter's pipe
    with (folder / LOG_FILE).open("ab") as log:
        try:
            trainer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        except OSError as problem:
            log.write(f"error: {command[0]} could not be started: {problem.strerror}.\n".encode())
            code = NOT_STARTED
        else:
            with contextlib.suppress(psutil.Error):
                state |= {"trainer_pid": trainer.pid, "trainer_started": psutil.Process(trainer.pid).create_time()}
                _write(folder, state)
            code = trainer.wait()
    end_job(os.environ.get(MARKER, ""), GRACE_SECONDS)
    ending = "finished" if code == 0 else "failed"
    if (folder / CANCEL_FILE).exists():
        ending = "cancelled"
    _write(folder, {**state, "state": ending, "exit_code": code, "ended_at": utc_now()})
    return code


def _write(folder: Path, state: dict[str, Any]) -> None:
    write_atomic(folder / STATE_FILE, json.dumps(state).encode())


def _adopt_orphans() -> None:
    """On Linux, grandchildren whose parent dies become children of this process and can be waited for."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


if __name__ == "__main__":
    sys.exit(supervise(Path(sys.argv[1]), sys.argv[2:]))
