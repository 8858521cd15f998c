"""What makes a training step on a CPU faster or slower, beside the default: ``python -m benchmarks.speed_options``.

MiniLM's size, B16 T128, 20 virtual tokens with hidden gates, dropout as the checkpoint has it. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import transformers
from torch import nn

from apt_core.backbones import set_dropout
from benchmarks.contenders import Run, apt, backbone, batch_of, twin
from benchmarks.speed_cell import median_of, timed
from benchmarks.speed_cells import Cell

CELL = Cell("MiniLM", "training", 20)
DEFAULT = "default"


@contextmanager
def flushed() -> Iterator[None]:
    """Denormal numbers are 0."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Operations use ``count`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def step_of(
    model: nn.Module,
    *,
    around: Callable[[], AbstractContextManager] = nullcontext,
    autocast: bool = False,
    compiled: bool = False,
    fused: bool = True,
    dropout: bool = True,
) -> Run:
    """One training step with an option, ready to be called."""
    module = apt(twin(model), CELL).train()
    if not dropout:
        set_dropout(module, 0.0)
    batch = batch_of(CELL)
    optimizer = torch.optim.AdamW(module.trained_state_dict().values(), lr=1e-4, fused=fused)
    forward = torch.compile(module) if compiled else module

    def step() -> None:
        with around():
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = forward(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="for the rounds, 6 at least [default: 60]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it needs a C++ compiler")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    model, cores = backbone(CELL), os.cpu_count()
    runs = {
        DEFAULT: step_of(model),
        "backbone dropout 0": step_of(model, dropout=False),
        "bfloat16 autocast": step_of(model, autocast=True),
        "AdamW not fused": step_of(model, fused=False),
        "denormals flushed": step_of(model, around=flushed),
    }
    if arguments.threads == 1 and cores > 1:
        runs[f"{cores} threads instead of 1"] = step_of(model, around=lambda: threads(cores))
    if not arguments.no_compile:
        runs["torch.compile"] = step_of(model, compiled=True)
    wall, processor = timed(list(runs.values()), arguments.seconds, seed=0)
    options = {
        name: {
            "wall_ms": median_of(wall[:, index], 2),
            "ratio": median_of(wall[:, index] / wall[:, 0]),
            "cpu_ratio": median_of(processor[:, index] / processor[:, 0]),
        }
        for index, name in enumerate(runs)
    }
    flags = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in cpu_flags()]
    print(json.dumps({"rounds": len(wall), "cpu_bfloat16": flags, "options": options}))


def cpu_flags() -> set[str]:
    """What the processor can do, as Linux lists it; nothing elsewhere."""
    try:
        with open("/proc/cpuinfo") as file:
            return next((set(line.split()) for line in file if line.startswith("flags")), set())
    except OSError:
        return set()


if __name__ == "__main__":
    main()
