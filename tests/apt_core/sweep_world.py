"""A sweep whose jobs run nowhere: each starts and ends as it is looked at, and leaves the run that it was to make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from apt_core.budget_file import read_budget
from apt_core.config import canonical_name
from apt_core.jobs import Job, JobReport, JobState
from apt_core.jobs.retry import retry_arguments
from apt_core.run_format import RUN_FILE, read_run_info, update_finished_run
from apt_core.sweep_begin import Checked, begin
from apt_core.sweep_format import Recorded, Sweep, read_recorded
from apt_core.sweep_plan import Training, expand
from apt_core.sweep_spec import parse_spec

LAYERS = 3
SPEC = """
tasks = ["pydoc-topic", "pydoc-entities"]
seeds = 2
budgets = [1.0, 0.5]
methods = ["share", "uniform"]
learning_rates = [0.01]

[train]
num-virtual-tokens = 4
epochs = 2
"""


def begun(out: Path, text: str = SPEC) -> Recorded:
    """A sweep's folder as a driver has just made it; its backbones have ``LAYERS`` layers."""
    spec = parse_spec(text.encode(), "spec")
    layers = dict.fromkeys(spec.tasks, LAYERS)
    out.mkdir(parents=True, exist_ok=True)
    sweep = Sweep(num_layers=layers, created_at="2026-03-01T00:00:00+00:00")
    begin(out, Checked(spec, text.encode(), sweep, expand(spec, layers)))
    return read_recorded(out)


def record(
    record_run: Callable[..., Path],
    recorded: Recorded,
    training: Training,
    lengths: Sequence[int] | None = None,
    accuracy: float = 0.5,
    **fields: object,
) -> Path:
    """The finished run of a training."""
    options = recorded.spec.options(training.task)
    settings = options.training.model_dump(mode="json") | {
        "seed": training.seed,
        "learning_rate": training.learning_rate,
    }
    folder = record_run(
        recorded.folder / training.name,
        steps=4,
        lengths=tuple(lengths or training.prefix_lengths or ()),
        task=training.task,
        model=canonical_name(options.model),
        apt_config=options.apt.model_dump(mode="json"),
        training=settings,
        parent=training.parent,
        **fields,
    )
    update_finished_run(folder, seed=training.seed, metrics={"validation": {"accuracy": accuracy}})
    return folder


class TrainingJobs:
    """Jobs of a sweep.

    Args:
        record_run: the fixture.
        recorded: the sweep.
        slots: how many run at once.
    """

    def __init__(self, record_run: Callable[..., Path], recorded: Recorded, slots: int = 2) -> None:
        self._record_run, self._recorded, self._slots = record_run, recorded, slots
        self.jobs: list[Job] = []
        self.reports: dict[str, JobReport] = {}
        self.ends: dict[str, list[JobReport]] = {}
        """training -> how its next jobs end, where that is otherwise than well"""
        self.printed = ""
        """by every job, where a test says so"""
        self.frozen = False
        """whether everything stays as it is"""
        self.most_queued = 0

    def submit(self, arguments: Sequence[str], run_folder: str | Path) -> Job:
        job = Job(f"{len(self.jobs) + 1:04}-a", list(arguments), str(Path(run_folder).absolute()), "")
        assert not any(self.waits(other) for other in self.jobs if other.run_folder == job.run_folder)
        self.jobs.insert(0, job)
        self.reports[job.id] = JobReport("queued")
        self.most_queued = max(self.most_queued, sum(each.state == "queued" for each in self.reports.values()))
        return job

    def list(self) -> list[Job]:
        if not self.frozen:
            self._advance()
        return list(self.jobs)

    def report(self, job_id: str) -> JobReport:
        return self.reports[job_id]

    def status(self, job_id: str) -> JobState:
        return self.reports[job_id].state

    def cancel(self, job_id: str) -> None:
        self.reports[job_id] = JobReport("cancelled")

    def retry(self, job_id: str, halve_batch: bool = False) -> Job:
        job = next(job for job in self.jobs if job.id == job_id)
        return self.submit(retry_arguments(job, self.status(job_id), halve_batch=halve_batch), job.run_folder)

    def logs(self, job_id: str, last_lines: int = 200) -> str:
        return self.printed or f"log of {job_id}"

    def waits(self, job: Job) -> bool:
        return self.reports[job.id].state in ("queued", "running")

    def of(self, name: str) -> list[list[str]]:
        """The commands submitted for a training, the first first."""
        return [job.arguments for job in reversed(self.jobs) if Path(job.run_folder).name == name]

    def submitted(self) -> Counter[str]:
        """Training -> how many jobs it had."""
        return Counter(Path(job.run_folder).name for job in self.jobs)

    def _advance(self) -> None:
        for job in reversed(self.jobs):
            if self.reports[job.id].state == "running":
                self._end(job)
        for job in reversed(self.jobs):
            running = sum(each.state == "running" for each in self.reports.values())
            if self.reports[job.id].state == "queued" and running < self._slots:
                self.reports[job.id] = JobReport("running")

    def _end(self, job: Job) -> None:
        folder = Path(job.run_folder)
        other = self.ends.get(folder.name, [])
        if other:
            self.reports[job.id] = other.pop(0)
            return
        training = next(each for each in self._recorded.plan if each.name == folder.name)
        if job.arguments[0] == "evaluate":
            metrics = read_run_info(folder).metrics | {"test": {"accuracy": 0.4}}
            update_finished_run(folder, metrics=metrics)
        elif job.arguments[0] == "measure":
            (folder / "measures.json").write_text("{}")
        elif (folder / RUN_FILE).exists():
            update_finished_run(folder, status="finished")
        else:
            budget = job.arguments.index("--budget") + 1 if "--budget" in job.arguments else None
            lengths = read_budget(Path(job.arguments[budget])).prefix_lengths if budget else None
            record(self._record_run, self._recorded, training, lengths)
        self.reports[job.id] = JobReport("finished", exit_code=0)
