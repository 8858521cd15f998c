"""Do lengths from the gates beat lengths that know nothing? ``python -m benchmarks.retraining --data-dir DIR``.

For every task and seed: a run with uniform lengths; from its gates the budgets of half and of a quarter of its virtual
tokens (the paper's share, section 4.3); each retrained with these lengths, with uniform ones and with random ones of
the same total, everything else equal; test measured once per run. Means over seeds with intervals, and paired
differences. Writes ``benchmarks/results/retraining.json`` and, from it, ``docs/retraining.md``, after every training:
it goes on where it was interrupted, also on another machine, and trains nothing that is in the results already.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from apt_core.config import TrainSettings
from apt_core.errors import AptValueError, bad_value
from apt_core.estimates import Estimate, estimate
from apt_core.files import write_atomic
from apt_core.gate_log import GateLog
from apt_core.run_format import GATES_FOLDER, RUN_FILE, read_run_info, status_of
from apt_core.settled import settled_mass
from apt_core.shares import random_lengths, share, uniform_lengths
from apt_core.tasks import TASKS
from benchmarks.results_file import alone, write_json

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "retraining.json"
TABLE = ROOT / "docs" / "retraining.md"
PARTS = {"half": 2, "a quarter": 4}
ARMS = ("pruned", "uniform", "random")
SPLITS = ("validation", "test")
FULL = "full"
PLACES = (FULL, *(f"{part}-{arm}" for part in PARTS for arm in ARMS))


class Chain(NamedTuple):
    """One task with one seed: trainings that follow from each other."""

    task: str
    seed: int
    epochs: int
    data_dir: str | None


def command(*words: str) -> None:
    """Runs a command of ``apt_core`` with one thread.

    Raises:
        RuntimeError: with the end of what it printed, if it failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "apt_core", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")


class Results:
    """What has been measured, on disk after every training.

    Args:
        path: JSON file; what is there already stays.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self.tasks: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def check(self, chains: Sequence[Chain]) -> None:
        """Refuses what would not fit beside what is there.

        Raises:
            AptValueError: naming a task that was measured with another number of epochs.
        """
        for chain in chains:
            epochs = self.tasks.get(chain.task, {}).get("epochs", chain.epochs)
            if epochs != chain.epochs:
                hint = f"To measure anew, remove the task from {self._path} first."
                raise bad_value("epochs", f"{chain.task}={chain.epochs}", f"{epochs}, as in the results", hint)

    def find(self, chain: Chain, part: str) -> dict[str, Any] | None:
        """The run of a part of a chain, if it was measured."""
        runs = self.tasks.get(chain.task, {}).get("runs", ())
        return next((run for run in runs if (run["seed"], run["part"]) == (chain.seed, part)), None)

    def add(self, chain: Chain, part: str, folder: Path) -> dict[str, Any]:
        """Takes a finished run in, writes both files, and returns what is kept of the run.

        Raises:
            AptValueError: if it was trained on other data, or with other settings, than the others of its task.
        """
        info = read_run_info(folder)
        about = {
            "model": info.model,
            "metric": info.metric_name,
            "epochs": info.training["epochs"],
            "split_sizes": info.split_sizes,
            "data_hash": info.data_hash,
        }
        run = {
            "part": part,
            "seed": chain.seed,
            "prefix_lengths": info.prefix_lengths,
            "trained_parameters": info.num_trained_parameters,
            "seconds": round(info.seconds),
            "metrics": {split: round(info.metrics[split][info.metric_name], 4) for split in SPLITS},
        }
        if part == FULL:
            run["gate_mass"] = _gate_mass(folder)
        with self._lock:
            entry = self.tasks.setdefault(chain.task, about | {"runs": []})
            for name, value in about.items():
                if entry.get(name, value) != value:
                    raise bad_value(f"{folder}: {name}", value, f"{entry[name]}, as the others of {chain.task} have")
            entry["runs"] = [old for old in entry["runs"] if (old["seed"], old["part"]) != (run["seed"], part)] + [run]
            entry["runs"].sort(key=lambda run: (run["seed"], PLACES.index(run["part"])))
            write_json(self._path, self.tasks)
            write_atomic(TABLE, page(self.tasks).encode())
        return run


def run_chain(folder: Path, chain: Chain, results: Results, done: tqdm) -> None:
    """The full run, and its retrainings, unless it diverged: its gates then give no lengths."""
    full = run_once(folder, chain, FULL, None, results)
    done.update()
    if full["gate_mass"] is None:
        return
    num_layers = len(full["prefix_lengths"])
    for part, divisor in PARTS.items():
        total = sum(full["prefix_lengths"]) // divisor
        lengths = {
            "pruned": share(full["gate_mass"], total),
            "uniform": uniform_lengths(total, num_layers),
            "random": random_lengths(total, num_layers, [chain.seed, total]),
        }
        for arm in ARMS:
            run_once(folder, chain, f"{part}-{arm}", [int(length) for length in lengths[arm]], results)
            done.update()


def run_once(folder: Path, chain: Chain, part: str, lengths: list[int] | None, results: Results) -> dict[str, Any]:
    """Trains and measures test, unless that is in the results; what an interruption left is removed.

    Args:
        lengths: virtual tokens of each layer; None: the default. A finished run of others is made again.
    """
    known = results.find(chain, part)
    if known is not None:
        return known
    out = folder / f"{chain.task}-e{chain.epochs}-s{chain.seed}-{part.replace(' ', '-')}"
    if (out / RUN_FILE).exists():
        info = read_run_info(out)
        status = status_of(info)
        if status == "running":
            raise bad_value("runs", str(out), "a folder that no other training writes to")
        if status != "finished" or lengths not in (None, list(info.prefix_lengths)):
            shutil.rmtree(out)
    data = ("--data-dir", chain.data_dir) if chain.data_dir else ()
    if not (out / RUN_FILE).exists():
        settings = ("--epochs", str(chain.epochs), "--seed", str(chain.seed), "--device", "cpu", "--no-measure")
        chosen = ("--prefix-lengths", ",".join(map(str, lengths))) if lengths is not None else ()
        command("train", "--task", chain.task, *chosen, *settings, *data, "--out", str(out))
    if "test" not in read_run_info(out).metrics:
        command("evaluate", str(out), "--split", "test", *data)
    return results.add(chain, part, out)


def _gate_mass(folder: Path) -> list[float] | None:
    """Of each layer [L]; None where the training diverged."""
    try:
        return [round(mass, 4) for mass in settled_mass(GateLog(folder / GATES_FOLDER)).tolist()]
    except AptValueError:
        return None


def page(results: dict[str, Any]) -> str:
    """``docs/retraining.md``: one table per task."""
    lines = [
        "# Do lengths from the gates beat lengths that know nothing?",
        "",
        "Written by `python -m benchmarks.retraining` from `benchmarks/results/retraining.json`.",
        "",
        "Full: the same number of virtual tokens in every layer. Pruned: fewer, shared out over the layers by the "
        "gates of the full run of the same seed (`share`, the paper's section 4.3). Uniform, random: the same total. "
        "Means over seeds with 95 % intervals (Student's t); *pruned minus ...* is paired by seed. The checkpoint is "
        "the best one on validation, so validation flatters; test was measured once per run. Intervals are not "
        "corrected for there being several of them. *Seeds* says how many each row has; no ± means one seed, or seeds "
        "with the same value. Random lengths may leave a layer without a prefix.",
    ]
    lines += ["", _reading(results)]
    for task, entry in results.items():
        seeds = len({run["seed"] for run in entry["runs"]})
        lines += [
            "",
            f"## {task}: {entry['metric']}, {entry['epochs']} epoch{'s' if entry['epochs'] > 1 else ''}, {seeds} seeds",
            "",
            "| tokens | lengths | seeds | parameters | validation | test | pruned minus it, test |",
            "|---:|---|---:|---:|---:|---:|---:|",
        ]
        for part in PLACES:
            runs = [run for run in entry["runs"] if run["part"] == part]
            if runs:
                lines.append(_row(entry, part, runs))
    return "\n".join(lines) + "\n"


def _reading(results: dict[str, Any]) -> str:
    """What all tables together say, counted."""
    found = [
        estimate(_differences(entry, part))
        for entry in results.values()
        for part in PLACES
        if part != FULL and not part.endswith(ARMS[0])
    ]
    known = [each for each in found if each.mean is not None and each.half is not None]
    better = sum(each.mean - each.half > 0 for each in known)
    worse = sum(each.mean + each.half < 0 for each in known)
    above = sum(each.mean > 0 for each in known)
    return (
        f"Of {len(known)} differences on test between lengths from the gates and uniform or random ones of the same "
        f"total, the interval is above 0 in {better}, below it in {worse}; the mean is above 0 in {above}. Intervals "
        "over so few seeds are wide: what is not shown here may still be there, and small."
    )


def _differences(entry: dict[str, Any], part: str) -> list[float]:
    """Test with pruned lengths minus test with those of ``part``, which have the same total, by seed."""
    size = part.rpartition("-")[0]
    pruned = {run["seed"]: run for run in entry["runs"] if run["part"] == f"{size}-{ARMS[0]}"}
    return [
        pruned[run["seed"]]["metrics"]["test"] - run["metrics"]["test"]
        for run in entry["runs"]
        if run["part"] == part and run["seed"] in pruned
    ]


def _row(entry: dict[str, Any], part: str, runs: list[dict[str, Any]]) -> str:
    size, _, arm = part.rpartition("-")
    cells = [
        str(sum(runs[0]["prefix_lengths"])),
        arm,
        str(len(runs)),
        f"{np.mean([run['trained_parameters'] for run in runs]):,.0f}",
        *(_interval(estimate([run["metrics"].get(split) for run in runs])) for split in SPLITS),
        _interval(estimate(_differences(entry, part)), sign=True) if size and arm != ARMS[0] else "",
    ]
    return f"| {' | '.join(cells)} |"


def _interval(value: Estimate, sign: bool = False) -> str:
    if value.mean is None:
        return ""
    mean = f"{value.mean:{'+' if sign else ''}.3f}"
    return mean if value.half is None else f"{mean} ± {value.half:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="copa,pydoc-topic,pydoc-entities,wnut17", help="comma-separated")
    parser.add_argument("--data-dir", help="folder with copa and wnut17; the built-in tasks need none")
    parser.add_argument(
        "--epochs",
        default="pydoc-topic=2,pydoc-entities=1,wnut17=1",
        help="task=number, comma-separated; other tasks as their default [default: %(default)s]",
    )
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 to N [default: 3]")
    parser.add_argument("--workers", type=int, default=2, help="trainings at once, one thread each [default: 2]")
    parser.add_argument("--runs", type=Path, default=Path("runs/retraining"), help="folder of the runs")
    arguments = parser.parse_args()
    epochs = dict(pair.split("=") for pair in arguments.epochs.split(",") if pair)
    chains = [
        Chain(
            task,
            seed,
            int(epochs[task] if task in epochs else TrainSettings(**TASKS[task].training).epochs),
            arguments.data_dir if TASKS[task].needs_data else None,
        )
        for task in arguments.tasks.split(",")
        for seed in range(1, arguments.seeds + 1)
    ]
    folder = arguments.runs.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with alone(RESULTS, "results"):
        results = Results(RESULTS)
        results.check(chains)
        with tqdm(total=len(chains) * len(PLACES), unit="training") as done:
            run_all(folder, chains, results, done, arguments.workers)
    print(page(results.tasks))


def run_all(folder: Path, chains: Sequence[Chain], results: Results, done: tqdm, workers: int) -> None:
    """All chains, ``workers`` at once; the first that fails keeps those that have not begun from beginning."""
    stopped = Event()

    def run(chain: Chain) -> None:
        if not stopped.is_set():
            try:
                run_chain(folder, chain, results, done)
            except BaseException:
                stopped.set()
                raise

    with ThreadPoolExecutor(workers) as pool:
        begun = [pool.submit(run, chain) for chain in chains]
        try:
            for chain in begun:
                chain.result()
        except BaseException:  # also Ctrl-C, of which only this thread hears
            stopped.set()
            raise


if __name__ == "__main__":
    main()
