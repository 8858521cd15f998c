"""How fast training and inference with prefixes are, and how much memory they take: ``python -m benchmarks.speed``.

Cells (``--list``): a model, a way of running it and a prefix length, in which the frozen backbone, this project, PEFT,
P-tuning v2's scheme and, where ``--adapters-python`` names an interpreter that has it, the library ``adapters`` are
timed beside each other in one process, each round in a random order; the peak memory of each in a process of its own.
Beside the cells: start-up, recording on and off, padding, training options, copies of the key/value cache, and a COPA
training from start to finish (``--data-dir``).

Writes ``benchmarks/results/speed.json`` and, from it and the other results, ``docs/benchmarks.md``, after every part:
what is measured already is not measured again, so it goes on where it was interrupted. ``--again`` measures anew.

``adapters`` needs another transformers than this project. For it: ``python -m venv DIR``, then in it
``pip install torch==2.13.0 adapters==1.3.0 scipy pydantic tqdm``, and ``--adapters-python DIR/bin/python``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

from apt_core.files import write_atomic
from benchmarks.contenders import ADAPTERS, builders
from benchmarks.results_file import alone, write_json
from benchmarks.speed_cells import CELLS, Cell
from benchmarks.speed_page import PAGE, RESULTS, page, read_results

ROOT = Path(__file__).parent.parent
NO_INTERPRETER = "not measured: no --adapters-python was given (adapters needs another transformers than this project)"
NO_CACHE = "not measured: the Llama of adapters 1.3.0 leaves the key/value cache of its own transformers empty"
RECORDED_PAIRS = 40


class Failed(RuntimeError):
    """A child process did not end well."""


def child(python: str, threads: int, *words: str) -> dict[str, Any]:
    """Runs a module of this folder and returns the JSON of its last line.

    Raises:
        Failed: with the end of what it said.
    """
    number = str(threads)
    variables = {**os.environ, "OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number, "HF_HUB_OFFLINE": "1"}
    variables |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([python, "-m", *words], cwd=ROOT, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(words)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def recording(arguments: argparse.Namespace) -> dict[str, Any]:
    """A training step with and without recorded gates."""
    from benchmarks.recording_cost import recording_cost

    with tempfile.TemporaryDirectory() as folder:
        return recording_cost(Path(folder) / "run", num_pairs=RECORDED_PAIRS)


def copa(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole command with its defaults, measuring included, in all threads: seconds, and how good it got.

    Raises:
        Failed: with the end of what it said.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    variables = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    with tempfile.TemporaryDirectory() as folder:
        words = ("train", "--task", "copa", "--data-dir", str(arguments.data_dir), "--device", "cpu", "--json")
        done = subprocess.run(
            [sys.executable, "-m", "apt_core", *words, "--out", str(Path(folder) / "run")],
            cwd=ROOT,
            env=variables,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise Failed(f"{' '.join(words)}: {done.stderr[-2000:]}")
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    info = json.loads(done.stdout.splitlines()[-1])
    return {
        "wall_s": round(wall, 1),
        "cpu_s": round(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, 1),
        "training_s": round(info["seconds"], 1),
        "steps": info["steps"],
        "threads": os.cpu_count(),
        "validation": info["metrics"]["validation"],
    }


def parts(arguments: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is measured beside the cells, by name."""
    threads, here = arguments.threads, sys.executable
    timing = ("--seconds", str(arguments.seconds), "--threads", str(threads))
    data = ("--data-dir", str(arguments.data_dir)) if arguments.data_dir else ()
    found: dict[str, Callable[[], dict[str, Any]]] = {
        "start-up": lambda: child(here, threads, "benchmarks.startup"),
        "recording": lambda: recording(arguments),
        "copies of the cache": lambda: child(here, threads, "benchmarks.speed_copies"),
        "padding": lambda: child(here, threads, "benchmarks.speed_padding", *data),
        "training options": lambda: child(here, threads, "benchmarks.speed_options", *timing),
    }
    if arguments.data_dir:
        found["COPA from start to finish"] = lambda: copa(arguments)
    return found


def measure_cell(cell: Cell, entry: dict[str, Any], arguments: argparse.Namespace) -> Iterator[None]:
    """Fills in what is missing of a cell, and stops after each part of it, to be written down."""
    entry.setdefault("adapters", NO_CACHE if cell.mode == "decoding" else NO_INTERPRETER)
    memory = entry.setdefault("memory", {})
    threads = ("--threads", str(arguments.threads))
    timing = ("benchmarks.speed_cell", cell.key, "--seconds", str(arguments.seconds), *threads)
    known = entry.get("timing", {}).get("threads", arguments.threads)
    if known != arguments.threads:
        raise Failed(f"was timed with --threads {known}: give the same, or --again")
    if "timing" not in entry:
        start = time.perf_counter()
        entry["timing"] = child(sys.executable, arguments.threads, *timing)
        entry["timing"]["took_s"] = round(time.perf_counter() - start)
        yield
    elsewhere = arguments.adapters_python
    if elsewhere is not None and entry["adapters"] == NO_INTERPRETER:
        entry["adapters"] = child(elsewhere, arguments.threads, *timing, "--adapters")
        yield
    wanted = dict.fromkeys(builders(cell), sys.executable)
    if isinstance(entry["adapters"], dict) and elsewhere is not None:
        wanted[ADAPTERS] = elsewhere
    for name, python in wanted.items():
        if name not in memory:
            flag = ("--adapters",) if name == ADAPTERS else ()
            memory[name] = child(python, arguments.threads, "benchmarks.peak_memory", cell.key, name, *threads, *flag)
            yield


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    names = ("torch", "transformers", "peft", "numpy")
    model = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if "model name" in line), "")
    return {
        "processor": model or platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "date": date.today().isoformat(),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="*", default=["*"], help="names or patterns, such as 'MiniLM, inf*'")
    parser.add_argument("--seconds", type=float, default=60.0, help="of rounds per cell, at least 6 [default: 60]")
    parser.add_argument("--threads", type=int, default=1, help="[default: 1]")
    parser.add_argument("--data-dir", type=Path, help="folder with copa and wnut17")
    parser.add_argument("--adapters-python", help="an interpreter that has the library adapters, see above")
    parser.add_argument("--again", action="store_true", help="measure again what is in the results")
    parser.add_argument("--list", action="store_true", help="print the names of all cells and end")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"JSON file [default: {RESULTS.relative_to(ROOT)}]")
    arguments = parser.parse_args()
    beside = parts(arguments)
    chosen = [name for name in (*CELLS, *beside) if any(fnmatchcase(name, pattern) for pattern in arguments.cells)]
    if arguments.list:
        print("\n".join((*CELLS, *beside)))
        return
    with alone(arguments.out, "out"):
        failures = measure_all(chosen, beside, arguments)
        if arguments.out == RESULTS:
            write_atomic(PAGE, page(read_results()).encode())
    if failures:
        raise SystemExit("\n".join(f"{name}: {problem}" for name, problem in failures.items()))


def measure_all(
    chosen: Sequence[str], beside: Mapping[str, Callable[[], dict[str, Any]]], arguments: argparse.Namespace
) -> dict[str, Failed]:
    """Measures what is missing, writes after every part, and returns what did not work, by name."""
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"cells": {}}
    here, failures = machine(), {}

    def write(again: bool) -> None:
        results["machine"] = here
        machines = results.setdefault("machines", {})
        machines[name] = here if again else machines.get(name, here)  # that of its times
        results.setdefault("loads", {})[name] = round(os.getloadavg()[0], 1)
        write_json(arguments.out, results)
        if arguments.out == RESULTS:
            write_atomic(PAGE, page(read_results()).encode())

    for name in chosen:
        print(name, file=sys.stderr)
        try:
            if name in CELLS:
                entry = {} if arguments.again else results["cells"].get(name, {})
                again = "timing" not in entry
                for _ in measure_cell(CELLS[name], entry, arguments):
                    results["cells"][name] = entry
                    write(again)
            elif arguments.again or name not in results:
                results[name] = beside[name]()
                write(again=True)
        except Failed as problem:
            print(f"{name}: {problem}", file=sys.stderr)
            failures[name] = problem
    return failures


if __name__ == "__main__":
    main()
