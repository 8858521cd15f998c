"""How many sub-words an epoch computes, padding included: ``python -m benchmarks.speed_padding``.

By how batches are made; counted, not timed: on a CPU a padded sub-word takes as long as a real one. Prints JSON.
"""

from __future__ import annotations

import argparse
import json

import datasets
import numpy as np

from apt_core.backbones import load_tokenizer
from apt_core.config import TrainSettings
from apt_core.tasks import TASKS, family_of, load_task
from apt_core.tasks.source import DataSource
from apt_core.trainer import EpochSeededSampler

NEED_DATA = ("copa", "wnut17")
BUILT_IN = ("pydoc-topic", "pydoc-entities")
SEED = 1


def computed(lengths: np.ndarray, order: np.ndarray, batch_size: int) -> int:
    """Sub-words of all examples, each padded to the longest of its batch."""
    batches = (lengths[order[start : start + batch_size]] for start in range(0, len(order), batch_size))
    return int(sum(batch.max() * len(batch) for batch in batches))


def measure(task_name: str, data_dir: str | None) -> dict[str, int]:
    """Sub-words of an epoch of one task with its own settings and the default backbone's tokenizer."""
    task = load_task(task_name, DataSource(data_dir=data_dir) if task_name in NEED_DATA else DataSource())
    settings, tokenizer = TrainSettings(**TASKS[task_name].training), load_tokenizer("minilm")
    train, validation = (
        np.asarray(family_of(task).encode(task, split, tokenizer, settings.max_length)["length"])
        for split in ("train", "validation")
    )
    size, evaluated = settings.batch_size, 2 * settings.batch_size
    grouped = np.array(list(EpochSeededSampler(size, lengths=train.tolist(), seed=SEED)))
    return {
        "train, real": int(train.sum()),
        "train, random batches": computed(train, np.random.default_rng(SEED).permutation(len(train)), size),
        "train, grouped by length": computed(train, grouped, size),
        "validation, real": int(validation.sum()),
        "validation, in its own order": computed(validation, np.arange(len(validation)), evaluated),
        "validation, longest first": computed(validation, np.argsort(validation, kind="stable")[::-1], evaluated),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="folder with copa and wnut17; without it only the built-in tasks")
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    tasks = BUILT_IN + (NEED_DATA if arguments.data_dir else ())
    print(json.dumps({task: measure(task, arguments.data_dir) for task in tasks}))


if __name__ == "__main__":
    main()
