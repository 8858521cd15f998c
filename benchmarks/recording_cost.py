"""What recording the gates costs a training step of the default backbone."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apt_core import AptConfig, AptModel, GateRecorder, get_apt_model
from apt_core.backbones import load_backbone

BATCH_SIZE = 16
LENGTH = 64
NUM_VIRTUAL_TOKENS = 16


def recording_cost(folder: Path, num_pairs: int) -> dict[str, Any]:
    """Training steps of MiniLM with and without a ``GateRecorder``, alternating, one thread.

    A step is counted in processor time of the whole process, the writing thread included, which a busy machine
    changes least; ``record`` and ``append`` in wall-clock time of the training thread. ``ratio``: median of each step
    with over the step without before it. ``ratio_from_record`` and ``ratio_from_append``: 1 + the time spent in
    ``record``, and in the append to the log alone, over a plain step.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    backbone = load_backbone("minilm", "AutoModelForSequenceClassification", num_labels=2).model
    plain = get_apt_model(backbone, AptConfig(num_virtual_tokens=NUM_VIRTUAL_TOKENS)).train()
    watched = copy.deepcopy(plain)
    batch = {
        "input_ids": torch.randint(1000, 20_000, (BATCH_SIZE, LENGTH)),
        "attention_mask": torch.ones(BATCH_SIZE, LENGTH, dtype=torch.long),
        "labels": torch.arange(BATCH_SIZE) % 2,
    }
    recorder = GateRecorder(folder)
    recorder.start(watched)
    optimizers = [torch.optim.AdamW(model.trained_state_dict().values(), lr=1e-3) for model in (plain, watched)]
    recorded: list[float] = []
    appended: list[float] = []
    append = recorder.writer.append_gates

    def timed_append(*arguments: Any) -> None:
        start = time.perf_counter()
        append(*arguments)
        appended.append(time.perf_counter() - start)

    recorder.writer.append_gates = timed_append

    def record(step: int) -> None:
        start = time.perf_counter()
        recorder.record(step)
        recorded.append(time.perf_counter() - start)

    without, with_recorder = [], []
    for step in range(1, num_pairs + 3):
        without.append(_step(plain, optimizers[0], batch))
        with_recorder.append(_step(watched, optimizers[1], batch, lambda step=step: record(step)))
    recorder.close()
    bare = float(np.median(without[2:]))  # the first two warm up
    pairs = np.array(with_recorder[2:]) / np.array(without[2:])
    return {
        "model": "all-MiniLM-L6-v2",
        "num_virtual_tokens": NUM_VIRTUAL_TOKENS,
        "batch": [BATCH_SIZE, LENGTH],
        "pairs": num_pairs,
        "step_cpu_ms": round(1e3 * bare, 2),
        "record_ms": round(1e3 * float(np.median(recorded[2:])), 4),
        "append_ms": round(1e3 * float(np.mean(appended[2:])), 4),
        "ratio": round(float(np.median(pairs)), 4),
        "ratio_from_record": round(1 + float(np.median(recorded[2:])) / bare, 4),
        "ratio_from_append": round(1 + float(np.mean(appended[2:])) / bare, 5),
    }


def _step(model: AptModel, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor], after_backward=None) -> float:
    start = time.process_time()
    model(**batch).loss.backward()
    if after_backward is not None:
        after_backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.process_time() - start
