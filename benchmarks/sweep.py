"""How much faster a sweep is on several slots: ``python -m benchmarks.sweep``.

The same real sweep, 2 tasks x 3 seeds x 3 budgets (full, half, a quarter; shared out by the gates), is done on one slot
and then on two, each training with one thread, in new folders. Timed are the whole command, and the span from the start
of the first training to the end of the last. The machine should have nothing else to do: the load before each sweep is
noted. Writes ``benchmarks/results/sweep.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from apt_core.jobs import JobReport, LocalJobs
from apt_core.jobs.devices import cores
from apt_core.jobs.places import JOBS_FOLDER
from apt_core.sweep_spec import spec_text

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "sweep.json"
TASKS = ("pydoc-topic", "pydoc-entities")
BUDGETS = (1.0, 0.5, 0.25)


def spec_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The sweep: small, but with everything that a training does."""
    return {
        "tasks": list(TASKS),
        "seeds": arguments.seeds,
        "budgets": list(BUDGETS),
        "methods": ["share"],
        "train": {
            "model": arguments.model,
            "device": "cpu",
            "num-virtual-tokens": 8,
            "epochs": arguments.epochs,
            "max-length": 64,
            "pydoc-topic": {"shots": arguments.shots},
            "pydoc-entities": {"shots": 9 * arguments.shots},  # in all; the other task has nine classes
        },
    }


def sweep(folder: Path, spec: dict[str, Any], slots: int) -> dict[str, Any]:
    """Does the sweep on so many slots, and times it.

    Raises:
        RuntimeError: with the end of what it printed, if it did not complete.
    """
    path, out = folder / f"slots-{slots}.toml", folder / f"slots-{slots}"
    path.write_text(spec_text(spec))
    load = os.getloadavg()[0]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "apt_core", "sweep", str(path), "--out", str(out), "--slots", str(slots), "--json"]
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    jobs = LocalJobs(out / JOBS_FOLDER)
    reports = [jobs.report(job.id) for job in jobs.list()]
    trainings = [_duration(report) for report in reports]
    span = max(map(_ended, reports)) - min(map(_started, reports))
    return {
        "slots": slots,
        "trainings": len(json.loads(done.stdout)["trainings"]),
        "jobs": len(reports),
        "seconds of the command": round(seconds, 1),
        "seconds from the first training's start to the last one's end": round(span, 1),
        "mean seconds of a training": round(sum(trainings) / len(trainings), 1),
        "part of the slots' time that is training": round(sum(trainings) / (slots * span), 3),
        "load average before": round(load, 2),
    }


def _started(report: JobReport) -> float:
    return datetime.fromisoformat(report.started_at or "").timestamp()


def _ended(report: JobReport) -> float:
    return datetime.fromisoformat(report.ended_at or "").timestamp()


def _duration(report: JobReport) -> float:
    return _ended(report) - _started(report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 to N [default: 3]")
    parser.add_argument("--epochs", type=int, default=4, help="of every training [default: 4]")
    parser.add_argument("--shots", type=int, default=16, help="training examples per class [default: 16]")
    parser.add_argument("--model", default="minilm", help="backbone [default: minilm]")
    parser.add_argument("--slots", default="1,2", help="how many slots, comma-separated [default: 1,2]")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"JSON file [default: {RESULTS.relative_to(ROOT)}]")
    arguments = parser.parse_args()
    counts, spec = [int(count) for count in arguments.slots.split(",")], spec_of(arguments)
    with tempfile.TemporaryDirectory() as folder:
        timed = [sweep(Path(folder), spec, slots) for slots in tqdm(counts, unit="sweep")]
    first, *others = timed
    ratios = {
        f"{other['slots']} slots against {first['slots']}": {
            name: round(other[name] / first[name], 3) for name in first if name.startswith("seconds")
        }
        for other in others
    }
    result = {"cores": cores(), "spec": spec_text(spec).splitlines(), "sweeps": timed, "ratios": ratios}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
