"""A Ray cluster of two nodes on this machine, apart from any other: its own ports, its own folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

from apt_core.jobs.supervisor import _end_with_parent
from tests.apt_core.jobs.programs import DEADLINE_SECONDS

_OURS = "APT_TEST_CLUSTER"
"""environment variable that all processes of a cluster carry"""
_OBJECT_STORE_BYTES = 80_000_000
_STOP_SECONDS = 3
_ATTEMPTS = 3
_BIN = Path(sys.executable).parent


class RayCluster:
    """A head with one core, and a node with one core and what Ray takes for a GPU."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="apt-ray-"))  # short: Ray's sockets are in it
        self.address = ""

    def start(self) -> None:
        """Starts both nodes, and again if Ray gives up: it waits 30 s for itself, which a busy machine may exceed."""
        for attempt in range(_ATTEMPTS):
            try:
                self._start_both()
                return
            except ChildProcessError:
                self._end_processes()
                if attempt == _ATTEMPTS - 1:
                    raise

    def stop(self) -> None:
        """Ends what ``start`` has started, and nothing else."""
        self._end_processes()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_both(self) -> None:
        port, dashboard, client, *agents = _free_ports(5)
        self.address = f"http://127.0.0.1:{dashboard}"
        head = self._start(
            *("--head", f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
            *(f"--temp-dir={self.folder}", "--dashboard-host=127.0.0.1", "--num-gpus=0"),
            f"--dashboard-agent-listen-port={agents[0]}",
        )
        self._until_it_answers(head, "/api/version", b"ray_version")
        node = self._start(f"--address=127.0.0.1:{port}", "--num-gpus=1", f"--dashboard-agent-listen-port={agents[1]}")
        self._until_it_answers(node, "/api/v0/nodes?detail=1", b'"GPU"')

    def _start(self, *options: str) -> subprocess.Popen:
        others = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "CUDA_", "HF_"))}
        environment = {
            **others,
            _OURS: str(self.folder),
            "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        command = [
            *(str(_BIN / "ray"), "start", "--block", "--disable-usage-stats", "--num-cpus=1"),
            *(f"--object-store-memory={_OBJECT_STORE_BYTES}", "--min-worker-port=0", "--max-worker-port=0"),
        ]
        with (self.folder / "start.log").open("ab") as log:
            return subprocess.Popen(
                [*command, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                preexec_fn=_end_with_parent,  # Ray then ends all that it has started
            )

    def _until_it_answers(self, process: subprocess.Popen, path: str, with_words: bytes) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(self.address + path, timeout=10) as answer:
                if with_words in answer.read():
                    return
            if process.poll() is not None or time.monotonic() > deadline:
                raise ChildProcessError((self.folder / "start.log").read_text(errors="replace"))
            time.sleep(0.1)

    def _end_processes(self) -> None:
        """SIGTERM to all, which Ray takes well, and SIGKILL to what is left."""
        for end in (psutil.Process.terminate, psutil.Process.kill):
            processes = [process for process in psutil.process_iter() if self._is_ours(process)]
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    end(process)
            psutil.wait_procs(processes, timeout=_STOP_SECONDS)

    def _is_ours(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            return process.environ().get(_OURS) == str(self.folder)
        return False


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
