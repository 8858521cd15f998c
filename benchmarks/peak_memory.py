"""Peak memory of one contender in a process of its own: ``python -m benchmarks.peak_memory KEY CONTENDER``.

The model is built, the kernel's high-water mark is reset, and it runs three times. Prints JSON: the process's resident
memory at its highest, and how much of that is over what it had before the first run. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
from pathlib import Path

import torch
import transformers

from benchmarks.contenders import backbone, builders, prepared
from benchmarks.speed_cells import CELLS

RUNS = 3
PROCESS = Path("/proc/self")
RESET_HIGH_WATER = "5"
"""what ``clear_refs`` takes for it, see proc(5)"""


def resident(line: str) -> int:
    """A line of ``/proc/self/status``, such as ``VmRSS``, in kB."""
    return int(re.search(rf"^{line}:\s+(\d+) kB", (PROCESS / "status").read_text(), re.MULTILINE)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell", choices=CELLS)
    parser.add_argument("contender")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--adapters", action="store_true", help="in the environment of the library adapters")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    cell = CELLS[arguments.cell]
    build = builders(cell, other_environment=arguments.adapters)[arguments.contender]
    run = prepared(build, backbone(cell), cell)
    gc.collect()
    (PROCESS / "clear_refs").write_text(RESET_HIGH_WATER)
    before = resident("VmRSS")
    for _ in range(RUNS):
        run()
    peak = resident("VmHWM")
    print(json.dumps({"peak_mb": round(peak / 1000, 1), "over_model_mb": round((peak - before) / 1000, 1)}))


if __name__ == "__main__":
    main()
