"""Prints the processor seconds of a forward pass of one example: ``python -m benchmarks.paper_calibration --task T``.

Texts of about the median length, in evaluation mode, with one thread: what ``benchmarks.paper`` counts costs in.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from apt_core.backbones import load_tokenizer
from apt_core.build import build_model
from apt_core.config import AptConfig, TrainSettings
from apt_core.tasks import family_of
from apt_core.tasks.source import DataSource
from apt_core.train import TrainJob, fitting_length, load_job_data, quiet_transformers

BATCHES = 8


def seconds_per_pass(job: TrainJob) -> float:
    """Median over ``BATCHES`` batches of training examples around the median length."""
    torch.set_num_threads(1)
    quiet_transformers()
    task, tokenizer = load_job_data(job), load_tokenizer(job.model)
    family = family_of(task)
    model = build_model(job, task, tokenizer, lambda _: None).eval()
    encoded = family.encode(task, "train", tokenizer, fitting_length(job.training.max_length, tokenizer, model))
    order = sorted(range(len(encoded)), key=lambda index: encoded[index]["length"])
    size = job.training.batch_size
    start = max(0, (len(order) - BATCHES * size) // 2)
    chosen = order[start : start + BATCHES * size]
    columns = [name for name in encoded.column_names if name != "length"]
    collate, taken = family.collator(tokenizer), []
    with torch.inference_mode():
        for first in range(0, len(chosen), size):
            rows = [{name: encoded[index][name] for name in columns} for index in chosen[first : first + size]]
            batch = collate(rows)
            before = time.process_time()
            model(**batch)
            taken.append((time.process_time() - before) / len(rows))
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True)
    parser.add_argument("--model", default="minilm")
    for name in ("data-dir", "dataset-name", "dataset-config-name"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--max-length", type=int, default=128)
    given = parser.parse_args()
    data = DataSource(
        data_dir=given.data_dir, dataset_name=given.dataset_name, dataset_config_name=given.dataset_config_name
    )
    settings = TrainSettings(max_length=given.max_length, device="cpu")
    print(seconds_per_pass(TrainJob(given.task, Path(), given.model, AptConfig(), settings, data)))


if __name__ == "__main__":
    main()
