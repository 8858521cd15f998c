"""Times the contenders of one cell beside each other, in this process: ``python -m benchmarks.speed_cell KEY``.

They share the weights of the backbone. Prints JSON; started by ``benchmarks.speed``, also in other environments.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import transformers

from apt_core.latency import interleaved, spread
from benchmarks.contenders import BACKBONE, PEFT, PRUNED, Run, backbone, builders, full_name, prepared, twin
from benchmarks.speed_cells import CELLS, Cell
from benchmarks.speed_goals import GIVES_BACK


def timed(runs: list[Run], seconds: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of wall-clock and of processor time [R, V], each round in an order of its own."""
    processor: list[list[float]] = []
    current = 0

    @contextmanager
    def chosen(index: int) -> Iterator[None]:
        nonlocal current
        current = index
        yield

    def run(repetition: int) -> None:
        if repetition == len(processor):
            processor.append([0.0] * len(runs))
        start = time.process_time()
        runs[current]()
        processor[repetition][current] = 1e3 * (time.process_time() - start)

    setups = [lambda index=index: chosen(index) for index in range(len(runs))]
    wall = interleaved(setups, run, seconds=seconds, device=torch.device("cpu"), seed=seed, progress=False)
    return wall, np.array(processor[1:])


def median_of(values: np.ndarray, digits: int = 4) -> dict[str, float]:
    """Median and its 95 % interval by order statistics."""
    return {name: round(value, digits) for name, value in spread(values)._asdict().items()}


def summary(cell: Cell, names: list[str], wall: np.ndarray, processor: np.ndarray) -> dict[str, dict[str, Any]]:
    """Of every contender: times, and ratios within a round to the backbone and to PEFT.

    Of the pruned ones also what the full prefix costs, what pruning saves, and that as a part of the cost: None where
    the cost is lost in the scatter of the rounds; and by how much that is over the goal.
    """
    column = {name: wall[:, index] for index, name in enumerate(names)}
    base = names.index(BACKBONE)
    found = {}
    for index, name in enumerate(names):
        found[name] = {
            "wall_ms": median_of(wall[:, index], 2),
            "cpu_ms": median_of(processor[:, index], 2),
            "ratio": median_of(wall[:, index] / wall[:, base]),
            "cpu_ratio": median_of(processor[:, index] / processor[:, base]),
        }
        if PEFT in names:
            found[name]["to_peft"] = median_of(wall[:, index] / column[PEFT])
        if name in PRUNED:
            full = column[full_name(cell)]
            costs, savings = full - column[BACKBONE], full - column[name]
            cost, saved = median_of(costs, 2), median_of(savings, 2)
            part = round(saved["median"] / cost["median"], 3) if cost["low"] > 0 else None
            over = median_of(savings - GIVES_BACK * costs, 2)
            found[name] |= {"own_cost_ms": cost, "saved_ms": saved, "gives_back": part, "over_goal_ms": over}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell", choices=CELLS)
    parser.add_argument("--seconds", type=float, default=60.0, help="for the rounds, 6 at least [default: 60]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--adapters", action="store_true", help="the library adapters instead, and its backbone")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    cell = CELLS[arguments.cell]
    model, chosen = backbone(cell), builders(cell, other_environment=arguments.adapters)
    runs = [prepared(build, twin(model), cell) for build in chosen.values()]
    wall, processor = timed(runs, arguments.seconds, seed=0)
    result = {
        "rounds": len(wall),
        "threads": arguments.threads,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "contenders": summary(cell, list(chosen), wall, processor),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
