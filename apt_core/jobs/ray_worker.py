"""On a node of a cluster: runs a training in a folder of the node's own, and keeps a copy of it in storage. No torch.

Started as ``python -m apt_core.jobs.ray_worker STORAGE PLACE NAME SECONDS PROGRAM...``; not for people.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from apt_core.errors import AptError, AptValueError
from apt_core.jobs.log_file import why_killed
from apt_core.jobs.process_tree import end_job
from apt_core.jobs.report import GRACE_SECONDS
from apt_core.jobs.run_copy import RunCopy
from apt_core.processes import MARKER

_LOOK_SECONDS = 0.5


def work(copy: RunCopy, name: str, every_seconds: float, command: list[str]) -> int:
    """Runs ``command --out FOLDER/NAME``; goes on with what the copy holds, and copies what it writes.

    SIGTERM ends the command, and what it has written is copied after that.

    Returns:
        The command's exit code, 128 and the signal's number if one ended it; 1 if the copy is not whole at the end.
        The folder is then left, and the log says where.

    Raises:
        AptValueError: if the copy, which the client has made, is not seen from this node.
    """
    if not copy.exists():
        raise AptValueError(f"storage: node {os.uname().nodename} does not see it; a folder has to be mounted there.")
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    scratch = Path(tempfile.mkdtemp(prefix="apt-run-"))
    run = scratch / name
    copy.load(run)
    child = subprocess.Popen([*command, "--out", str(run)], stdin=subprocess.DEVNULL)
    due = time.monotonic() + every_seconds
    while child.poll() is None and not stopped.wait(_LOOK_SECONDS):
        if time.monotonic() >= due:
            _save(copy, run)
            due = time.monotonic() + every_seconds
    code = _end(child) if stopped.is_set() else child.wait()
    end_job(os.environ[MARKER], GRACE_SECONDS)
    if code == -signal.SIGKILL and not stopped.is_set():
        print(f"\nerror: {why_killed(['train'])}.", file=sys.stderr, flush=True)  # nothing else is copied
    if not _save(copy, run):
        print(f"\nerror: the run is in {run} on node {os.uname().nodename}.", file=sys.stderr)
        return 1
    shutil.rmtree(scratch, ignore_errors=True)
    return code if code >= 0 else 128 - code


def _end(child: subprocess.Popen) -> int:
    child.terminate()
    try:
        return child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def _save(copy: RunCopy, run: Path) -> bool:
    try:
        copy.save(run)
    except (OSError, AptError) as problem:
        print(f"\nwarning: the run was not copied: {problem}", file=sys.stderr, flush=True)
        return False
    return True


if __name__ == "__main__":
    storage, place, name, seconds, *program = sys.argv[1:]
    try:
        sys.exit(work(RunCopy(storage, place), name, float(seconds), program))
    except AptError as problem:
        sys.exit(f"error: {problem}")
