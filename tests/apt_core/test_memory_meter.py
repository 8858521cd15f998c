"""How much memory is left and how much is taken: real allocations, real limits, and control groups as files."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from apt_core.memory_meter import CudaMeter, HostMeter, control_group_rooms, meter_for

MB = 10**6


def touched(megabytes: int) -> torch.Tensor:
    return torch.ones(megabytes * MB // 4)


def mapped(megabytes: int) -> mmap.mmap:
    """Goes back to the system as soon as it is let go of: no heap, in whatever state, keeps it."""
    block = mmap.mmap(-1, megabytes * MB)
    np.frombuffer(block, dtype=np.uint8)[:] = 1
    return block


def test_peak_is_what_was_taken_at_once_and_not_in_turn():
    def work() -> None:
        for _ in range(3):
            mapped(100)
        both = mapped(100), mapped(150)
        del both

    assert HostMeter().peak(work) == pytest.approx(250 * MB, rel=0.1)


def test_memory_that_was_freed_before_does_not_hide_what_is_taken():
    def work() -> None:
        parts = [touched(1) for _ in range(150)]  # small enough for the heap, which keeps what is freed
        del parts

    work()
    assert HostMeter().peak(work) == pytest.approx(150 * MB, rel=0.15)


def test_work_that_fails_fails_and_leaves_no_thread():
    import threading

    def work() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        HostMeter().peak(work)
    assert not any(thread.name == "memory peak" for thread in threading.enumerate())


def test_room_is_at_most_what_the_system_has_and_more_than_nothing():
    import psutil

    assert 0 < HostMeter().room() <= psutil.virtual_memory().total


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is kept by Linux")
def test_room_is_what_ulimit_leaves():
    script = (
        "import resource, psutil\n"
        "from apt_core.memory_meter import HostMeter\n"
        "limit = psutil.Process().memory_info().vms + 500 * 10**6\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "print(HostMeter().room())"
    )
    room = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    assert 100 * MB < room < 500 * MB


def group(folder: Path, names: tuple[str, str, str], limit: str, taken: int, files: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{taken}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {files}\n")


V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_every_control_group_around_the_process_counts(tmp_path):
    group(tmp_path / "outer", V2, "1000", 400, 100)
    group(tmp_path / "outer" / "inner", V2, "max", 300, 0)
    group(tmp_path / "outer" / "inner" / "job", V2, "500", 300, 50)
    membership = tmp_path / "cgroup"
    membership.write_text("0::/outer/inner/job\n")
    assert list(control_group_rooms(tmp_path, membership)) == [500 - 300 + 50, 1000 - 400 + 100]


def test_control_groups_of_version_1_are_under_their_controller(tmp_path):
    group(tmp_path / "memory" / "box", V1, "900", 200, 0)
    group(tmp_path / "memory", V1, "9223372036854771712", 5000, 0)
    membership = tmp_path / "cgroup"
    membership.write_text("5:cpu,cpuacct:/box\n4:memory:/box\n0::/\n")
    assert min(control_group_rooms(tmp_path, membership)) == 700


def test_container_whose_path_is_the_hosts_finds_its_own_limit_at_the_top(tmp_path):
    group(tmp_path, V2, "800", 100, 0)
    membership = tmp_path / "cgroup"
    membership.write_text("0::/host/path/of/this/container\n")
    assert list(control_group_rooms(tmp_path, membership)) == [700]


def test_system_without_control_groups_has_none(tmp_path):
    assert list(control_group_rooms(tmp_path, tmp_path / "missing")) == []


def test_other_devices_are_not_measured():
    assert isinstance(meter_for(torch.device("cpu")), HostMeter)
    assert meter_for(torch.device("meta")) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_memory_is_counted_by_torch():
    device = torch.device("cuda", 0)
    meter = meter_for(device)
    assert isinstance(meter, CudaMeter)
    before = meter.room()
    assert meter.peak(lambda: torch.empty(100 * MB, dtype=torch.uint8, device=device).fill_(1)) >= 100 * MB
    held = torch.empty(2**30, dtype=torch.uint8, device=device)
    assert before - meter.room() == pytest.approx(held.numel(), rel=0.3)
