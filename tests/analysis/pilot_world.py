"""A pilot with recorded runs whose numbers are given, and jobs that run nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from analysis.pilot import ChosenBudget, Pilot, arguments_of, trainings
from apt_core.errors import AptValueError
from apt_core.jobs import Job, JobState
from apt_core.run_format import update_finished_run

LENGTHS = (2, 4, 6, 10, 12, 14)
BUDGET = ChosenBudget(weighed_by="gate", prefix_lengths=LENGTHS)
PILOT = Pilot(
    task="pydoc-topic",
    epochs=2,
    question="Will half do?",
    split_sizes={"train": 144, "validation": 360, "test": 540},
    created_at="2026-03-01T00:00:00+00:00",
    budget=BUDGET,
)
ACCURACY = {"full": (0.62, 0.60, 0.63), "pruned": (0.615, 0.602, 0.624), "uniform": (0.60, 0.59, 0.60)}


class ListedJobs:
    """Jobs as a list; whoever tests says how each stands."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.states: dict[str, JobState] = {}

    def submit(self, arguments: Sequence[str], run_folder: str | Path) -> Job:
        job = Job(f"{len(self.jobs):04}-a", list(arguments), str(Path(run_folder).absolute()), "")
        self.jobs.insert(0, job)
        self.states[job.id] = "queued"
        return job

    def retry(self, job_id: str) -> Job:
        if self.states[job_id] not in ("failed", "cancelled", "lost"):
            raise AptValueError(f"job: {job_id} is {self.states[job_id]}.")
        job = next(job for job in self.jobs if job.id == job_id)
        return self.submit(["train", "--out", job.run_folder, "--resume"], job.run_folder)

    def list(self) -> list[Job]:
        return self.jobs

    def status(self, job_id: str) -> JobState:
        return self.states[job_id]

    def cancel(self, job_id: str) -> None:
        self.states[job_id] = "cancelled"

    def logs(self, job_id: str, last_lines: int = 200) -> str:
        return f"log of {job_id}"


def record_trainings(
    record_run: Callable[..., Path],
    root: Path,
    name: str = "demo",
    pilot: Pilot = PILOT,
    accuracy: Mapping[str, Sequence[float]] = ACCURACY,
    only: int | None = None,
    **fields: object,
) -> list[Path]:
    """Records the finished runs of a pilot, or the first ``only`` of them; accuracy: arm -> one value per seed."""
    folders = []
    for training in trainings(name, pilot)[:only]:
        lengths = {"full": (pilot.num_virtual_tokens,) * 6}
        if pilot.budget is not None:
            lengths |= {"pruned": pilot.budget.prefix_lengths, "uniform": pilot.budget.baseline}
        settings = {"epochs": pilot.epochs, "learning_rate": 0.01, "batch_size": 16, "shots": pilot.shots}
        folder = record_run(
            root / training.name,
            steps=20,
            lengths=lengths[training.arm],
            **{
                "training": {**settings, "seed": training.seed},
                "command": " ".join(["python -m apt_core", *arguments_of(training, name, pilot, root)]),
                "split_sizes": {"train": 144, "validation": 360, "test": 540},
                "data_hash": "0123abcd",
                "labels": ["mail", "dates"],
                "versions": {"torch": "2.13.0"},
                "created_at": "2026-03-02T00:00:00+00:00",
                **fields,
            },
        )
        value = accuracy[training.arm][pilot.seeds.index(training.seed)]
        update_finished_run(folder, seed=training.seed, metrics={"validation": {"accuracy": value}})
        folders.append(folder)
    return folders
