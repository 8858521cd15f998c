"""Which slots this machine has for jobs: some for the processor, one for each GPU that may be used. No torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from apt_core.errors import bad_value

SLOTS_VARIABLE = "APT_SLOTS"
VISIBLE = "CUDA_VISIBLE_DEVICES"
THREADS = "OMP_NUM_THREADS"
CORES_PER_SLOT = 2
MOST_SLOTS = 1024
_CPU = "cpu-"
_NVIDIA_SMI_SECONDS = 60
_PROC = Path("/proc/driver/nvidia/gpus")


def cpu_slots(count: int | None = None) -> list[str]:
    """Slots on the processor: cpu-0, cpu-1, ...

    Args:
        count: how many; None: what the environment variable ``APT_SLOTS`` says, or one for every two cores that this
            process may use, at least one.

    Raises:
        AptValueError: if the number is none from 1 to 1024.
    """
    field, asked = ("slots", count) if count is not None else (SLOTS_VARIABLE, os.environ.get(SLOTS_VARIABLE))
    if asked is None or asked == "":
        asked = max(1, cores() // CORES_PER_SLOT)
    if not re.fullmatch(r"[0-9]{1,4}", str(asked)) or not 1 <= int(asked) <= MOST_SLOTS:
        raise bad_value(field, asked, f"how many jobs may run at once on the processor, 1 to {MOST_SLOTS}")
    return [f"{_CPU}{number}" for number in range(int(asked))]


def gpu_slots() -> list[str]:
    """One slot for each CUDA device that ``CUDA_VISIBLE_DEVICES`` leaves, named as that variable names it.

    Numbers in it are counted as ``nvidia-smi`` counts, by bus. What names no device of this machine ends the list, as
    it does in CUDA.
    """
    found = _gpus(shutil.which("nvidia-smi"))
    visible = os.environ.get(VISIBLE)
    if visible is None or not found:
        return list(found)
    slots: list[str] = []
    for entry in (entry.strip() for entry in visible.split(",")):
        if entry.isdecimal() and int(entry) < len(found):
            slot = found[int(entry)]
        elif entry.startswith("MIG-"):  # a part of a GPU, which only CUDA can check
            slot = entry
        else:
            slot = next((gpu for gpu in found if entry and gpu.startswith(entry)), "")
        if not slot or slot in slots:
            break
        slots.append(slot)
    return slots


def check_device(device: str) -> None:
    """Refuses a GPU where there is none.

    Raises:
        AptValueError: for cuda.
    """
    if device == "cuda" and not gpu_slots():
        raise bad_value("device", device, "auto or cpu", f"No GPU is visible here; {VISIBLE} can hide them.")


def slot_environment(slot: str) -> dict[str, str]:
    """The environment variables that make a program use the device of its slot, and no other GPU."""
    if slot.startswith(_CPU):
        return {}
    return {VISIBLE: slot, **({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if slot.isdecimal() else {})}


def cpu_environment(slots: list[str], *, hide_gpus: bool) -> dict[str, str]:
    """Environment variables for a job on the processor, so that the cores are shared by the slots."""
    environment = {VISIBLE: ""} if hide_gpus else {}
    if len(slots) > 1 and THREADS not in os.environ:
        environment[THREADS] = str(max(1, cores() // len(slots)))
    return environment


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache
def _gpus(nvidia_smi: str | None) -> tuple[str, ...]:
    """The UUIDs of this machine's GPUs by bus, from the driver's tool or else its files; asked once."""
    if nvidia_smi is not None:
        command = [nvidia_smi, "--query-gpu=uuid", "--format=csv,noheader"]
        try:
            answer = subprocess.run(
                command, capture_output=True, text=True, timeout=_NVIDIA_SMI_SECONDS, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired):
            pass
        else:
            if answer.returncode == 0:
                return tuple(line.strip() for line in answer.stdout.splitlines() if line.startswith("GPU-"))
    found = []
    for number, path in enumerate(sorted(_PROC.glob("*/information"))):
        uuid = re.search(r"^GPU UUID:\s*(GPU-[0-9a-f-]+)\s*$", path.read_text(errors="replace"), re.MULTILINE)
        found.append(uuid[1] if uuid else str(number))
    return tuple(found)
