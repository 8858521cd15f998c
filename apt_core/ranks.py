"""The processes of one training (``torchrun``, ``accelerate launch``): who writes, and what all must agree on."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor

from apt_core.processes import num_ranks

T = TypeVar("T")


def agreed(value: T, device: str = "auto") -> T:
    """The main process's ``value``, in every process. All must call it.

    Args:
        value: anything small; an exception is raised in every process.
        device: ``TrainSettings.device``; the processes find each other over gloo for cpu.
    """
    if num_ranks() > 1:
        PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
        box = [value]
        dist.broadcast_object_list(box, src=0)
        value = box[0]
    if isinstance(value, BaseException):
        raise value
    return value


def gathered(row: Tensor) -> Tensor:
    """A row [n] of every process: [processes, n]; [1, n] where there is one process."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return row[None]
    rows = [torch.empty_like(row) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, row)
    return torch.stack(rows)
