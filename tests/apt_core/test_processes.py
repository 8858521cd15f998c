"""Whether a process lives, asked of real ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from apt_core.processes import is_alive
from tests.apt_core.jobs.programs import until

LEADERLESS = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
print("started", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.fixture
def leaderless() -> Iterator[subprocess.Popen]:
    """A process whose first thread ends at once, while another one goes on."""
    with subprocess.Popen([sys.executable, "-c", LEADERLESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process ends with its first thread")
def test_process_is_alive_until_its_last_thread_has_ended(leaderless):
    process = psutil.Process(leaderless.pid)
    started = process.create_time()
    until(lambda: process.status() == psutil.STATUS_ZOMBIE)
    assert is_alive(leaderless.pid, started)
    assert not is_alive(leaderless.pid, started - 60)
    leaderless.kill()
    until(lambda: process.num_threads() == 1)
    assert not is_alive(leaderless.pid, started)  # nobody has waited for it yet
    leaderless.wait()
    assert not is_alive(leaderless.pid, started)
