"""Append cost, read times and size of the run log against TensorBoard, zarr and parquet: one command, JSON out.

    python -m benchmarks.run_log [--quick] [--out FILE] [--folder DIR]

Needs ``pip install -e '.[benchmarks,offline]'``. All stores get the same rows, one store after the other, on the same
disk; every number is wall-clock time of the calling thread, and reads are of files that the system has in memory.
Paced appends come at 200 steps/s, as a fast training does them; flat-out appends run into the disk and wait for it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

from benchmarks.gate_stores import STORES, Row, Store
from benchmarks.recording_cost import recording_cost

SIZES = {  # steps of our log, steps that every store gets flat out, and paced; L, P
    "100,000 x 24 x 64": (100_000, 5_000, 1_000, 24, 64),
    "20,000 x 96 x 256": (20_000, 500, 300, 96, 256),
}
PACE_SECONDS = 0.005
GOALS = {"step_ms": 5.0, "trace_ms": 100.0, "times_faster_than_tensorboard": 50.0, "training_step_ratio": 1.01}


def rows(num_steps: int, shape: tuple[int, int]) -> Iterator[tuple[int, Row]]:
    """Steps from 1 with gates that nothing can compress."""
    draw = np.random.default_rng(0)
    for step in range(1, num_steps + 1):
        yield step, (draw.random(shape, np.float32), draw.random(shape, np.float32), draw.random(shape[0], np.float32))


def summary(seconds: list[float]) -> dict[str, float]:
    """Microseconds."""
    values = 1e6 * np.array(seconds)
    figures = {"mean": values.mean(), "median": np.median(values), "p99": np.quantile(values, 0.99)}
    return {name: round(float(value), 1) for name, value in figures.items()}


def timed(action: Callable, *arguments: Any, repeat: int = 1) -> tuple[float, Any]:
    """Median seconds and the last result."""
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        result = action(*arguments)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken)), result


def append_all(store: Store, num_steps: int, shape: tuple[int, int], pace: float) -> dict[str, float]:
    """Microseconds per step of the calling thread, and milliseconds to close."""
    taken = []
    for step, row in rows(num_steps, shape):
        start = time.perf_counter()
        store.append(step, row)
        taken.append(time.perf_counter() - start)
        if pace:
            time.sleep(max(0.0, start + pace - time.perf_counter()))
    return {**summary(taken), "close_ms": round(1e3 * timed(store.close)[0], 1)}


def read(store: Store, num_steps: int, shape: tuple[int, int]) -> dict[str, float]:
    """Milliseconds to open, to get exact steps, and to get one token over all steps."""
    gc.collect()
    opening, opened = timed(store.open)
    chosen = np.random.default_rng(1).integers(1, num_steps, 20, endpoint=True).tolist()
    step = float(np.median([timed(store.step, opened, step)[0] for step in chosen]))
    tracing, trace = timed(store.trace, opened, shape[0] - 1, shape[1] // 2, repeat=3 if num_steps < 2_000 else 5)
    if trace.shape != (num_steps,):
        raise RuntimeError(f"{type(store).__name__} lost steps: {trace.shape} of {num_steps}")
    figures = {"open_ms": opening, "step_ms": step, "trace_ms": tracing}
    return {name: round(1e3 * value, 3) for name, value in figures.items()}


def size_on_disk(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(size: str, root: Path, scale: float) -> dict[str, Any]:
    """Everything about one size of run."""
    full, common, paced, *shape = SIZES[size]
    shape = tuple(shape)
    full, common, paced = (max(256, int(steps * scale)) for steps in (full, common, paced))
    result: dict[str, Any] = {
        "layers": shape[0],
        "virtual_tokens": shape[1],
        "paced append, microseconds": {"steps": paced, "steps_per_second": 1 / PACE_SECONDS},
        "all stores, same rows": {"steps": common},
        "run log, whole run": {"steps": full},
    }
    for what, steps, names in (
        ("paced append, microseconds", paced, STORES),
        ("all stores, same rows", common, STORES),
        ("run log, whole run", full, ("run log", "run log float16")),
    ):
        for name in names:  # one after the other: the threads of one must not slow the next
            folder = root / "store"
            store = STORES[name](folder, shape)
            cost = append_all(store, steps, shape, PACE_SECONDS if what.startswith("paced") else 0)
            if not what.startswith("paced"):
                cost = {"append, microseconds": cost, **read(store, steps, shape), "bytes": size_on_disk(folder)}
                if name in ("run log", "run log float16"):
                    cost["refresh_ms"] = refresh_ms(store)
            result[what][name] = cost
            shutil.rmtree(folder)
            report(f"{size}, {what}, {steps} steps, {name}:", cost)
    same = result["all stores, same rows"]
    for name in ("TensorBoard", "TensorBoard, checksums in C"):
        same[f"times faster than {name}"] = {
            what: round(_from_closed(same[name], what) / _from_closed(same["run log"], what), 1)
            for what in ("step_ms", "trace_ms")
        }
    return result


def _from_closed(cost: dict[str, float], what: str) -> float:
    return cost["open_ms"] + cost[what]


def refresh_ms(store: Store) -> float:
    """Milliseconds to look again at a log that has been opened."""
    opened = store.open()
    seconds, _ = timed(lambda: type(opened)(opened.folder, opened), repeat=5)
    return round(1e3 * seconds, 3)


def report(what: str, numbers: object) -> None:
    """Progress, on stderr."""
    print(what, json.dumps(numbers), file=sys.stderr, flush=True)


def main() -> None:
    """Measures, judges by the goals, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the steps: checks the benchmark itself")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "run_log.json")
    parser.add_argument("--training-only", action="store_true", help="measure that part again, keep the rest of --out")
    parser.add_argument("--folder", type=Path, help="where to write, 6 GB free; default: the system's temporary folder")
    arguments = parser.parse_args()
    scale = 0.02 if arguments.quick else 1.0
    packages = ("numpy", "safetensors", "torch", "tensorboard", "zarr", "pyarrow")
    result: dict[str, Any] = {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(terse=True)},
        "quick": arguments.quick,
        "note": "TensorBoard, zarr and parquet hold fewer steps than the whole run: appending costs the same per step; "
        "opening TensorBoard, and a trace of any store, takes time in proportion to the steps.",
        "sizes": {},
    }
    if arguments.training_only:
        result = json.loads(arguments.out.read_text())
    result.setdefault("load before, one minute", {})
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for size in () if arguments.training_only else SIZES:
            result["load before, one minute"][size] = os.getloadavg()[0]
            result["sizes"][size] = measure(size, Path(folder) / size.split(" ")[0], scale)
        result["load before, one minute"]["training"] = os.getloadavg()[0]
        result["training"] = recording_cost(Path(folder) / "training", num_pairs=10 if arguments.quick else 40)
    result["goals"] = {name: {"goal": goal} for name, goal in GOALS.items()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
