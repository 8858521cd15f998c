"""For every test: no network, one thread for numerics, an app for this machine only; and a writer of recorded runs."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from streamlit import config

from apt_core.run_format import RunInfo
from apt_core.run_writer import RunWriter

PROJECT = Path(__file__).parents[1]
LENGTHS = (16, 16, 16, 16, 16, 16)

# how long an example takes says how busy the machine is
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# Streamlit reads .streamlit/config.toml once in a process, in the working folder, which a test may change before that
with contextlib.chdir(PROJECT):
    config.get_config_options(force_reparse=True)


def record_run(
    folder: Path, *, steps: int = 40, lengths: tuple[int, ...] = LENGTHS, seed: int = 0, **fields: Any
) -> Path:
    """A finished run whose gates rise with the layer; every number can be computed from the arguments."""
    info = {
        "task": "pydoc-topic",
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "metric_name": "accuracy",
        "num_layers": len(lengths),
        "prefix_lengths": list(lengths),
        "apt_config": {"token_gate": "hidden", "layer_scale": True},
        "training": {"epochs": 2, "learning_rate": 0.01, "batch_size": 16, "seed": 1},
        "num_parameters": {
            "prefix": 768 * sum(lengths),
            "token_gate": 384 * sum(lengths),
            "head": 100,
            "frozen": 10_000,
        },
        "total_steps": steps,
        "seed": 1,
        "command": "python -m apt_core train",
        **fields,
    }
    writer = RunWriter(folder, RunInfo(**info))
    draw = np.random.default_rng(seed)
    present = np.arange(max(lengths, default=0)) < np.array(lengths)[:, None]
    for step in range(1, steps + 1):
        level = 0.2 + 0.6 * np.arange(len(lengths))[:, None] / max(1, len(lengths) - 1) * step / steps
        gate = np.where(present, np.clip(level + draw.normal(0, 0.05, present.shape), 0.01, 0.99), np.nan)
        spread = np.where(present, 0.05, np.nan)
        scale = np.where(present.any(axis=1), 1 + step / steps, np.nan)
        writer.append_gates(step, gate, spread, scale)
        if step % 10 == 0:
            writer.append_metrics({"step": step, "loss": 2 / step})
            writer.append_metrics({"step": step, "eval_accuracy": step / (2 * steps)})
    writer.finish(metrics={"validation": {"accuracy": 0.5, "loss": 1.0}}, seconds=12.0)
    return folder


@pytest.fixture(name="record_run", scope="session")
def record_run_fixture() -> Callable[..., Path]:
    return record_run
