"""Slots of a machine: what the variables say, and what the driver's tool or its files say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from apt_core.errors import AptValueError
from apt_core.jobs import devices
from apt_core.jobs.devices import cpu_environment, cpu_slots, gpu_slots, slot_environment

A, B, C = "GPU-aaaa1111-0000", "GPU-aaaa2222-0000", "GPU-bbbb0000-0000"


@pytest.fixture
def three_gpus(monkeypatch) -> None:
    monkeypatch.setattr(devices, "_gpus", lambda tool: (A, B, C))


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("visible", "slots"),
    [
        (None, [A, B, C]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0", [A]),
        (" 2 , 0 ", [C, A]),
        ("0,3,1", [A]),  # what names no device ends the list
        ("1,-1,0", [B]),
        ("0,0", [A]),
        (f"{B},{A}", [B, A]),
        ("GPU-b", [C]),
        ("GPU-c", []),
        ("MIG-1,MIG-2", ["MIG-1", "MIG-2"]),
    ],
)
def test_cuda_visible_devices_chooses_the_slots(monkeypatch, visible, slots):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_slots() == slots


def test_without_gpus_the_variable_makes_none(monkeypatch):
    monkeypatch.setattr(devices, "_gpus", lambda tool: ())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert gpu_slots() == []


def tool_that(tmp_path, script: str) -> str:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    return str(tool)


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (f"echo {A}; echo {B}", (A, B)),
        ("echo 'No devices were found'", ()),
        ("echo 'NVIDIA-SMI has failed because ...'; exit 9", ("GPU-00000000-0000-0000-0000-000000000001", "1")),
        (None, ("GPU-00000000-0000-0000-0000-000000000001", "1")),
    ],
)
def test_gpus_are_found_through_the_tool_or_else_the_drivers_files(tmp_path, monkeypatch, script, found):
    for bus, uuid in (("0000:01:00.0", "GPU-00000000-0000-0000-0000-000000000001"), ("0000:02:00.0", "GPU-????????")):
        (tmp_path / "gpus" / bus).mkdir(parents=True)
        (tmp_path / "gpus" / bus / "information").write_text(f"Model: \t X\nGPU UUID: \t {uuid}\nBus Type: \t PCIe\n")
    monkeypatch.setattr(devices, "_PROC", tmp_path / "gpus")
    assert devices._gpus.__wrapped__(tool_that(tmp_path, script) if script else None) == found


def test_slot_makes_a_program_see_its_device_only():
    assert slot_environment("cpu-3") == {}
    assert slot_environment(A) == {"CUDA_VISIBLE_DEVICES": A}
    assert slot_environment("1") == {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.mark.parametrize(("cores", "count"), [(1, 1), (2, 1), (3, 1), (4, 2), (64, 32)])
def test_one_slot_for_every_two_cores(monkeypatch, cores, count):
    monkeypatch.setattr(devices, "cores", lambda: cores)
    assert cpu_slots() == [f"cpu-{number}" for number in range(count)]


def test_slots_asked_for_go_before_the_variable(monkeypatch):
    monkeypatch.setenv("APT_SLOTS", "3")
    assert cpu_slots() == ["cpu-0", "cpu-1", "cpu-2"]
    assert cpu_slots(1) == ["cpu-0"]
    monkeypatch.setenv("APT_SLOTS", "")
    assert len(cpu_slots()) == max(1, devices.cores() // 2)


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "1025", "²", "9" * 50])
def test_unusable_number_of_slots_is_said(monkeypatch, text):
    monkeypatch.setenv("APT_SLOTS", text)
    with pytest.raises(AptValueError, match=r"APT_SLOTS: got .* 1 to 1024"):
        cpu_slots()


def test_cores_are_shared_by_the_slots_unless_the_user_says_how(monkeypatch):
    monkeypatch.setattr(devices, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert cpu_environment(cpu_slots(4), hide_gpus=False) == {"OMP_NUM_THREADS": "2"}
    assert cpu_environment(cpu_slots(16), hide_gpus=True) == {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    assert cpu_environment(cpu_slots(1), hide_gpus=False) == {}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert cpu_environment(cpu_slots(4), hide_gpus=False) == {}


@pytest.mark.gpu
@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no CUDA device on this machine")
def test_slots_are_the_devices_that_torch_sees(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (*_, last) = slots = gpu_slots()
    script = "import torch; print(torch.cuda.device_count(), *(torch.cuda.get_device_properties(0).uuid for _ in '1'))"

    def seen(**environment: str) -> list[str]:
        answer = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return answer.stdout.split()

    assert seen()[0] == str(len(slots))
    assert seen(**slot_environment(last)) == ["1", last.removeprefix("GPU-")]
