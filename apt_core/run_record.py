"""What is known of a run before its first step: what ``run.json`` says of it, and the line that a person reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apt_core.config import canonical_name
from apt_core.errors import AptValueError
from apt_core.processes import num_ranks
from apt_core.run_format import RunInfo, read_run_info
from apt_core.tasks.base import Family, TaskData

if TYPE_CHECKING:
    from apt_core.model import AptModel
    from apt_core.train import TrainJob


def run_info(job: TrainJob, task: TaskData, family: Family, resume: bool) -> RunInfo:
    """What ``run.json`` says beside what can be read off the model; of a resumed run also what it said before.

    Raises:
        AptValueError: if the data is not what a resumed run began with.
    """
    fields: dict[str, Any] = {
        "command": job.command,
        "parent": job.parent,
        "init": job.start.name if job.start else "scratch",
        "task": job.task,
        "data_dir": job.data.data_dir,
        "data": {name: value for name, value in job.data.given().items() if name != "data_dir"},
        "data_hash": task.fingerprint(),
        "split_sizes": {split: len(examples) for split, examples in task.splits.items()},
        "labels": list(task.labels),
        "metric_name": family.metric_name,
        "model": canonical_name(job.model),
        "training": job.training.model_dump(mode="json"),
        "num_processes": num_ranks(),
    }
    if resume:
        earlier = read_run_info(job.out)
        if earlier.data_hash and earlier.data_hash != fields["data_hash"]:
            raise AptValueError(
                f"data: its hash is {fields['data_hash'][:12]}, but the run began with {earlier.data_hash[:12]}; "
                "accepted: the same data. Start a new run with another --out."
            )
        kept = ("created_at", "seconds", "command", "init")
        fields |= {name: getattr(earlier, name) for name in kept}
    return RunInfo(**fields)


def summary(job: TrainJob, task: TaskData, model: AptModel) -> str:
    """What is about to be trained on what, in one line."""
    sizes = ", ".join(f"{len(examples):,} {split}" for split, examples in task.splits.items())
    counts = model.count_parameters()
    trained = sum(counts.values()) - counts["frozen"]
    lengths = " ".join(map(str, model.apt_config.prefix_lengths))
    return (
        f"{job.task} ({sizes}) on {canonical_name(job.model)}: virtual tokens per layer {lengths}, "
        f"{trained:,} trained parameters, {counts['frozen']:,} frozen"
    )
