"""From a finished run to the job that trains it again with other prefix lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from apt_core.config import AptConfig, TrainSettings
from apt_core.errors import bad_value
from apt_core.run_format import RunInfo, read_run_info
from apt_core.start import pruned_start
from apt_core.tasks.source import DataSource
from apt_core.train import TrainJob, load_job_data, train


def retrain(
    parent: Path,
    out: Path,
    prefix_lengths: tuple[int, ...],
    *,
    init: str = "scratch",
    data: DataSource | None = None,
    command: str = "",
    memory_check: bool = True,
    say: Callable[[str], None] = print,
    **training: Any,
) -> RunInfo | None:
    """Trains the task of ``parent`` again with ``prefix_lengths`` virtual tokens per layer.

    Args:
        parent: run folder that gives task, backbone, gates and training settings.
        out: folder of the new run.
        prefix_lengths: one per layer of the backbone; 0 leaves a layer as it is.
        init: what the prefix starts from: scratch, warm or rewind:STEP, see ``pruned_start``.
        data: where the data is now, if not where the parent found it.
        command: the command line that does the same.
        memory_check: refuse a batch that would not fit into memory, see ``check_memory``.
        say: receives one-line messages, among them a warning if the data is not what the parent saw.
        training: fields of ``TrainSettings`` that differ from the parent's; None leaves the parent's.

    Raises:
        AptError: on bad input, before anything is written.
    """
    info = read_run_info(parent)
    job = TrainJob.from_run(parent)
    if len(prefix_lengths) != info.num_layers:
        raise bad_value(
            "prefix_lengths",
            ",".join(map(str, prefix_lengths)),
            f"{info.num_layers} integers, one per layer of {info.model} (got {len(prefix_lengths)})",
        )
    if job.apt.shift_positions and len(set(prefix_lengths)) != 1:
        raise bad_value(
            "prefix_lengths",
            ",".join(map(str, prefix_lengths)),
            f"equal lengths, because {parent} counts virtual tokens as positions (--shift-positions)",
        )
    changed = {name: value for name, value in training.items() if value is not None}
    start = pruned_start(parent, init, prefix_lengths)
    job = replace(
        job,
        out=out,
        parent=parent.resolve().name,
        command=command,
        data=data if data is not None else job.data,
        apt=AptConfig(**{**job.apt.model_dump(), "prefix_lengths": prefix_lengths, "kept_tokens": None}),
        training=TrainSettings(**{**job.training.model_dump(), **changed}),
        start=start,
    )
    task = load_job_data(job)
    if info.data_hash and task.fingerprint() != info.data_hash:
        say(f"warning: the data is not what {parent} was trained on; metrics of the two runs are not comparable")
    return train(job, memory_check=memory_check, task=task, say=say)
