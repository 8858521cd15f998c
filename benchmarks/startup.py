"""How long starting takes: ``python -m benchmarks.startup``.

The command line until it has printed its help, with the files that Python compiled at the first one, as on a user's
machine; and the app's server until it listens. Each start is a new process. What a page then takes is measured by
``benchmarks.dashboard``. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.running_app import running_app

ROOT = Path(__file__).parent.parent
COMMANDS = {"python -m apt_core --help": ("-m", "apt_core", "--help")}
LARGEST_IMPORTS = 8
IMPORT_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\w+)")


def environment(folder: Path) -> dict[str, str]:
    """Of this process, but that Python keeps what it compiles, in ``folder``."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(folder)}


def started(words: tuple[str, ...], variables: dict[str, str]) -> tuple[float, float]:
    """Seconds until a command has ended, and processor seconds of its process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, env=variables, stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def seconds(values: list[float]) -> dict[str, float]:
    """Median and the extremes."""
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "n": len(values),
    }


def imports(words: tuple[str, ...], variables: dict[str, str]) -> dict[str, Any]:
    """What a command loads: milliseconds of its largest packages, and whether torch is among what it loads."""
    command = [sys.executable, "-X", "importtime", *words]
    printed = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True).stderr
    packages: dict[str, int] = {}
    for microseconds, package in IMPORT_LINE.findall(printed):
        packages[package] = packages.get(package, 0) + int(microseconds)
    largest = sorted(packages.items(), key=lambda pair: -pair[1])[:LARGEST_IMPORTS]
    return {
        "torch": "torch" in packages,
        "packages_ms": {package: round(microseconds / 1000, 1) for package, microseconds in largest},
    }


def app_start() -> float:
    """Seconds until the app's server listens. It builds a page only when a browser asks for one."""
    with tempfile.TemporaryDirectory() as runs:
        start = time.perf_counter()
        with running_app(ROOT, [Path(runs)]):
            return time.perf_counter() - start


def measure(repetitions: int) -> dict[str, Any]:
    """All of it; the first start of a command compiles and is not kept."""
    result: dict[str, Any] = {"commands": {}}
    with tempfile.TemporaryDirectory() as folder:
        variables = environment(Path(folder))
        for name, words in COMMANDS.items():
            taken = [started(words, variables) for _ in range(repetitions + 1)][1:]
            wall, processor = (list(column) for column in zip(*taken, strict=True))
            result["commands"][name] = {
                "wall_s": seconds(wall),
                "cpu_s": seconds(processor),
                **imports(words, variables),
            }
    result["app_listens_s"] = seconds([app_start() for _ in range(max(3, repetitions // 4))])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=20, help="starts of the command line [default: 20]")
    print(json.dumps(measure(parser.parse_args().repetitions)))


if __name__ == "__main__":
    main()
