"""What a pilot is: one question, a few small trainings, a decision. Its plan, and how far the run folders say it is.

A pilot is the file ``<runs>/.pilots/<name>.json``. It holds what a person chose and nothing that a run or a job says:
how a training stands is looked up each time. So a pilot goes on where it was after anything that ends a browser, an
app or a machine. No torch, no Streamlit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

from pydantic import Field, model_validator

from analysis.budgets import uniform
from analysis.runs import Rejected, Run, look_at, shown
from analysis.verdict import UNIFORM
from apt_core.config import MAX_TOKENS_PER_LAYER, PrefixLength, Settings, TrainSettings, canonical_name
from apt_core.errors import bad_value
from apt_core.jobs import Job, Jobs
from apt_core.jobs.interface import WAITING
from apt_core.jobs.job_arguments import RESUME, unkept
from apt_core.measure_format import IMPORTANCES
from apt_core.run_format import RUN_FILE
from apt_core.tasks import TASKS
from apt_core.tasks.source import DataSource

PILOT_VERSION = 1
MAX_SEEDS = 20
MAX_QUESTION = 500
"""characters"""
MAX_LAYERS = 10_000
LENGTHS = "--prefix-lengths"
UNMEASURED = "--no-measure"
"""of trainings whose tokens nobody asks about: only the first run is audited"""
DEFAULT_TOLERANCE = 2.0
"""points of the metric that fewer virtual tokens may cost"""
STEPS = ("Question and data", "Train", "Audit", "Budget", "Retrain", "Decision", "Report")

Arm = Literal["full", "pruned", "uniform"]
State = Literal[
    "to start", "queued", "running", "finished", "failed", "cancelled", "interrupted", "lost", "another run"
]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class ChosenBudget(Settings):
    """The lengths that a person settled on, and what they were shared out by."""

    weighed_by: Literal[*IMPORTANCES, UNIFORM]
    prefix_lengths: Annotated[tuple[PrefixLength, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    """[L]"""

    @property
    def total(self) -> int:
        """Virtual tokens over all layers."""
        return sum(self.prefix_lengths)

    @property
    def baseline(self) -> tuple[int, ...]:
        """As many virtual tokens, spread evenly."""
        return uniform(self.total, len(self.prefix_lengths)).prefix_lengths


class Pilot(Settings):
    """What a person chose. Unknown fields are refused, so that saving never drops what a newer program wrote."""

    schema_version: int = PILOT_VERSION
    created_at: str = Field("", max_length=40)
    """UTC, ISO 8601"""
    question: str = Field("", max_length=MAX_QUESTION)
    task: str
    """a key of ``TASKS``"""
    data: dict[str, Any] = Field(default_factory=dict)
    """fields of ``DataSource``; empty for a built-in task"""
    split_sizes: dict[str, int] = Field(default_factory=dict)
    """examples, as the data was when the pilot was made and checked"""
    model: str = Field("minilm", min_length=1, max_length=1_000)
    num_virtual_tokens: int = Field(16, ge=1, le=MAX_TOKENS_PER_LAYER)
    """of every layer, at full length"""
    shots: int | None = Field(None, ge=1)
    """training examples per class; None: all"""
    epochs: int = Field(ge=1, le=10_000)
    max_length: int | None = Field(None, ge=4, le=1_000_000)
    """sub-words per text; None: the task's own"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seeds: Annotated[tuple[Seed, ...], Field(min_length=2, max_length=MAX_SEEDS)] = (1, 2, 3)
    tolerance: float = Field(DEFAULT_TOLERANCE, ge=0, le=1e6)
    """how much of the metric fewer virtual tokens may cost: points, or the metric's own unit where less is better"""
    budget: ChosenBudget | None = None
    """None: not settled yet"""

    @property
    def has_test(self) -> bool:
        """Whether there is a test split, as far as is known."""
        return not self.split_sizes or self.split_sizes.get("test", 0) > 0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.task not in TASKS:
            raise ValueError(f"task: got {self.task[:60]!r}; accepted: {', '.join(TASKS)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: got {list(self.seeds)}; accepted: different ones")
        if self.budget is not None and not self.budget.total:
            raise ValueError("budget: every layer has length 0; nothing but the task head would be trained")
        DataSource(**self.data)  # its error says what is wrong
        return self

    @property
    def source(self) -> DataSource:
        """Where the data is."""
        return DataSource(**self.data)

    @property
    def training(self) -> TrainSettings:
        """How it is trained, the first seed's."""
        given = {"epochs": self.epochs, "seed": self.seeds[0], "shots": self.shots, "device": self.device}
        given |= {} if self.max_length is None else {"max_length": self.max_length}
        return TrainSettings(**{**TASKS[self.task].training, **given})

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What is compared: without the pruned one where its lengths would be the uniform ones."""
        if self.budget is None:
            return ("full",)
        return (
            ("full", "uniform") if self.budget.prefix_lengths == self.budget.baseline else ("full", "pruned", "uniform")
        )

    @property
    def candidate(self) -> Arm:
        """The arm that the question is about."""
        return self.arms[1] if len(self.arms) > 1 else "pruned"


class Training(NamedTuple):
    """One of the trainings of a pilot; its run folder has its name."""

    name: str
    arm: Arm
    seed: int


class TrainingState(NamedTuple):
    """How a training stands."""

    training: Training
    state: State
    run: Run | None = None
    job: Job | None = None  # the newest that trains it
    problem: str = ""  # why the folder cannot be taken for this training

    @property
    def waits(self) -> bool:
        """Whether it will change by itself."""
        return self.state in WAITING

    @property
    def can_start(self) -> bool:
        """Whether a click starts it, for the first time or again."""
        return not self.waits and self.state not in ("finished", "another run")

    @property
    def done(self) -> float:
        """Part of its optimizer steps, 0 to 1."""
        if self.state == "finished":
            return 1.0
        info = self.run.info if self.run else None
        return min(1.0, max(0.0, info.step / info.total_steps)) if info and info.total_steps > 0 else 0.0


class Look(NamedTuple):
    """A pilot as it is at the moment."""

    trainings: list[TrainingState]
    measuring: TrainingState | None  # the job that measures the first run; None: there is none
    testing: dict[str, str]  # name of a run -> state of its evaluate job

    @property
    def first(self) -> TrainingState:
        """The full length with the first seed: the audit and the budget rest on it."""
        return self.trainings[0]

    @property
    def waits(self) -> bool:
        """Whether anything will change by itself."""
        waiting = [*self.trainings, *([self.measuring] if self.measuring else [])]
        return any(each.waits for each in waiting) or any(state in WAITING for state in self.testing.values())

    def runs(self, arm: Arm) -> list[Run | None]:
        """The finished runs of an arm, in the order of the seeds; None where there is none yet."""
        return [each.run if each.state == "finished" else None for each in self.trainings if each.training.arm == arm]


def run_names(name: str, pilot: Pilot) -> list[str]:
    """The run folders that a pilot may come to have, whatever its budget will be."""
    return [f"{name}-{arm}-s{seed}" for seed in pilot.seeds for arm in get_args(Arm)]


def trainings(name: str, pilot: Pilot) -> list[Training]:
    """Everything to train, seed by seed, so that arms can be compared before all seeds are done."""
    return [Training(f"{name}-{arm}-s{seed}", arm, seed) for seed in pilot.seeds for arm in pilot.arms]


def arguments_of(training: Training, name: str, pilot: Pilot, root: Path) -> list[str]:
    """The training's command, after ``python -m apt_core``."""
    seed, out = ["--seed", str(training.seed)], ["--out", str(root / training.name)]
    if training.arm != "full":
        if pilot.budget is None:
            raise bad_value("budget", None, "lengths, which the fourth step settles")
        lengths = pilot.budget.prefix_lengths if training.arm == "pruned" else pilot.budget.baseline
        parent = root / trainings(name, pilot)[0].name
        return ["retrain", str(parent), LENGTHS, ",".join(map(str, lengths)), *seed, *out, UNMEASURED]
    given = pilot.source.given() | {
        "model": pilot.model,
        "num_virtual_tokens": pilot.num_virtual_tokens,
        "shots": pilot.shots,
        "epochs": pilot.epochs,
        "max_length": pilot.max_length,
        "device": pilot.device,
    }
    flags = [(f"--{field.replace('_', '-')}", str(value)) for field, value in given.items() if value is not None]
    unmeasured = [] if training.seed == pilot.seeds[0] else [UNMEASURED]
    return ["train", "--task", pilot.task, *(word for flag in flags for word in flag), *seed, *out, *unmeasured]


def look(name: str, pilot: Pilot, root: Path, jobs: Jobs) -> Look:
    """How a pilot stands, from the run folders and the jobs.

    Args:
        name: of the pilot.
        root: the folder of runs.
        jobs: where its trainings were submitted to.
    """
    newest: dict[tuple[str, str], Job] = {}
    for job in jobs.list():
        command = "train" if job.arguments[:1] == ["retrain"] else "".join(job.arguments[:1])
        newest.setdefault((command, str(Path(job.run_folder).resolve())), job)

    def job_of(command: str, training: Training) -> Job | None:
        return newest.get((command, str((root / training.name).resolve())))

    planned = trainings(name, pilot)
    states = _same_data([_state(each, pilot, root, job_of("train", each), jobs) for each in planned])
    tests = {each.name: job for each in planned if (job := job_of("evaluate", each))}
    measuring = _measuring(states[0], job_of("measure", planned[0]), jobs)
    return Look(states, measuring, {run: jobs.status(job.id) for run, job in tests.items()})


def _same_data(states: list[TrainingState]) -> list[TrainingState]:
    """The same, without runs that were trained on other data than the full length of their seed."""
    known = {each.training.seed: each.run.info.data_hash for each in states if each.training.arm == "full" and each.run}
    problem = "its data is not that of the full length with the same seed: the data has changed since"
    return [
        each._replace(state="another run", problem=problem)
        if each.run and each.training.arm != "full" and each.state != "another run"
        and each.run.info.data_hash != known.get(each.training.seed, each.run.info.data_hash)
        else each
        for each in states
    ]  # fmt: skip


def _measuring(first: TrainingState, measure: Job | None, jobs: Jobs) -> TrainingState | None:
    """The job that measures the first run: one of its own, or the end of the training's."""
    if first.state != "finished":
        return None
    trains = first.job is not None and jobs.status(first.job.id) in WAITING
    job = first.job if trains else measure
    return None if job is None else first._replace(state=jobs.status(job.id), job=job)


def _state(training: Training, pilot: Pilot, root: Path, job: Job | None, jobs: Jobs) -> TrainingState:
    folder = root / training.name
    state = jobs.status(job.id) if job else None
    if not (folder / RUN_FILE).exists():
        return TrainingState(training, "to start" if state in (None, "finished") else state, None, job)
    run = look_at(folder)
    if isinstance(run, Rejected):
        return TrainingState(training, "another run", None, job, shown(run.reason))
    problem = _not_this(training, pilot, run)
    if problem:
        return TrainingState(training, "another run", run, job, problem)
    if run.status == "finished":
        return TrainingState(training, "finished", run, job)
    if state in WAITING or state == "cancelled":
        return TrainingState(training, state, run, job)
    return TrainingState(training, run.status, run, job)


def _not_this(training: Training, pilot: Pilot, run: Run) -> str:
    """Why a run is not the training that the pilot means; empty if it is."""
    info, longest = run.info, pilot.training.max_length
    wanted: Mapping[str, tuple[object, object]] = {
        "task": (info.task, pilot.task),
        "backbone": (info.model, canonical_name(pilot.model)),
        "seed": (info.seed, training.seed),
        "epochs": (info.training.get("epochs"), pilot.epochs),
        "shots": (info.training.get("shots"), pilot.shots),
        "sub-words per text": (info.training.get("max_length", longest), longest),
        "lengths": (tuple(info.prefix_lengths), _lengths(training, pilot, info.num_layers)),
    }
    differing = [f"{field} {got!r} instead of {asked!r}" for field, (got, asked) in wanted.items() if got != asked]
    return shown("; ".join(differing))


def _lengths(training: Training, pilot: Pilot, num_layers: int) -> tuple[int, ...]:
    if training.arm == "full" or pilot.budget is None:
        return (pilot.num_virtual_tokens,) * num_layers
    return pilot.budget.prefix_lengths if training.arm == "pruned" else pilot.budget.baseline


def current_step(pilot: Pilot, found: Look, measured: bool) -> int:
    """The step that is next, 1 to 7: see ``STEPS``. Those before it are done."""
    if found.first.state != "finished":
        return 2
    if pilot.budget is None:
        return 4 if measured else 3
    return 7 if all(each.state == "finished" for each in found.trainings) else 5


def start(state: TrainingState, name: str, pilot: Pilot, root: Path, jobs: Jobs) -> Job:
    """Submits a training; one that was interrupted is gone on with.

    Raises:
        AptError: if it cannot be submitted, with the reason.
    """
    folder = root / state.training.name
    anew = arguments_of(state.training, name, pilot, root)
    ended = state.job is not None and jobs.status(state.job.id) in ("failed", "cancelled", "lost")
    if ended and (state.run is not None or _lengths_in(state.job.arguments) == _lengths_in(anew)):
        return jobs.retry(state.job.id)
    if state.run is not None:
        return jobs.submit(["train", "--out", str(folder), RESUME, *unkept(anew)], folder)
    return jobs.submit(anew, folder)


def _lengths_in(arguments: Sequence[str]) -> str | None:
    """What a command says the lengths are: they may be others since a job with it was submitted."""
    return arguments[arguments.index(LENGTHS) + 1] if LENGTHS in arguments[:-1] else None
