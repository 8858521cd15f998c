"""The real command line in a process that may take only so much memory more than it has once everything is loaded.

``python limited_memory.py BYTES train ...``
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import psutil

from tests.apt_core.conftest import WORDS

EXAMPLES = 800
LARGE = EXAMPLES
"""a batch of it needs about 1.1 GB of the small backbone"""
ROOM = 800_000_000


def long_texts(folder: Path) -> list[str]:
    """Files of texts that fill the 64 positions of the small backbone; the words of a command that say so."""
    draw = random.Random(0)
    rows = [f"{' '.join(draw.choices(WORDS, k=70))},{draw.choice('ab')}" for _ in range(EXAMPLES)]
    for name, count in (("train", EXAMPLES), ("validation", 24)):
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *rows[:count]]))
    places = ["--train-file", str(folder / "train.csv"), "--validation-file", str(folder / "validation.csv")]
    return ["--task", "text-classification", *places, "--device", "cpu", "--no-measure"]


def main() -> None:
    import resource  # not on Windows

    import apt_core.train  # noqa: F401  (before the limit)
    from apt_core.__main__ import app
    from apt_core.command_line import run_typer

    limit = psutil.Process().memory_info().vms + int(sys.argv.pop(1))
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    run_typer(app)


if __name__ == "__main__":
    main()
