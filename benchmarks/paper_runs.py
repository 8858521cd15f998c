"""Does the trainings of the experiment as jobs, and goes on where an earlier call was ended. No torch.

What is to be done follows from the results file and the run folders alone. Jobs outlive a driver that is killed; the
next one adopts them.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from apt_core.errors import AptError
from apt_core.jobs.interface import WAITING, Job, Jobs, JobState
from apt_core.jobs.local import LocalJobs
from apt_core.jobs.places import JOBS_FOLDER, Executor, place
from apt_core.run_format import RUN_FILE, RunInfo, read_run_info, status_of
from benchmarks.paper_methods import METHODS
from benchmarks.paper_plan import Request, Training, chosen_rates, counts, gate_rate, open_trainings
from benchmarks.paper_results import Grid, Results, measured_of
from benchmarks.paper_settings import place_words, words_of

LOOK_SECONDS = 1.0
LOG_LINES = 20
PATIENCE = 60
"""looks in a row at a job that may fail, as the cluster does not answer"""
ATTEMPTS = 3
"""how often a training is begun whose job was lost with its node"""
FINE_TUNING = (sys.executable, "-m", "benchmarks.fine_tuning")


class Places(NamedTuple):
    """Where jobs run."""

    prefixes: Jobs
    all_weights: Jobs
    """for fine-tuning, which is not a command of ``apt_core``; on this machine always"""


class Where(NamedTuple):
    """What is the same for all trainings."""

    runs: Path
    """absolute"""
    data_dir: str | None
    device: str


def places(runs: Path, executor: Executor, address: str | None, workers: int) -> Places:
    """This machine, or a cluster whose nodes see the run folders under the same path.

    Raises:
        AptValueError: if an argument is not usable.
    """
    if executor == "ray":
        prefixes = place(runs, executor="ray", address=address, storage="")
    else:
        prefixes = place(runs, executor=executor, address=address, slots=workers)
    return Places(prefixes, LocalJobs(runs / JOBS_FOLDER, program=FINE_TUNING, slots=workers))


def do_all(
    request: Request,
    results: Results,
    jobs: Places,
    where: Where,
    *,
    workers: int,
    changed: Callable[[], None],
    say: Callable[[str], None],
    look_seconds: float = LOOK_SECONDS,
) -> None:
    """Does what is left, at most ``workers`` trainings at once, and returns when everything is measured.

    Args:
        request: what is asked for.
        results: what is there; every training is added as soon as it is finished.
        jobs: where trainings run.
        where: run folders and data.
        workers: jobs that are submitted and have not ended.
        changed: called after each change of the results.
        say: receives one-line messages.
        look_seconds: between two looks at the jobs.

    Raises:
        RuntimeError: with the end of its log, if a training failed; those that ran beside it are finished first.
        AptError: if a run folder or the results cannot be read or written.
    """
    driver = _Driver(request, results, jobs, where, workers, changed)
    left = sum(count.trainings for count in counts(request, results))
    with tqdm(total=left, desc="paper", unit="training", file=sys.stderr) as bar:
        try:
            while driver.step():
                bar.update(max(0, left - sum(count.trainings for count in counts(request, results)) - bar.n))
                time.sleep(look_seconds)
            bar.update(left - bar.n)
        except KeyboardInterrupt:
            driver.cancel()
            say("interrupted; the same command goes on with what is left")
            raise


class _Driver:
    """Which jobs of this experiment have not ended, by run folder."""

    def __init__(
        self, request: Request, results: Results, jobs: Places, where: Where, workers: int, changed: Callable[[], None]
    ) -> None:
        self._request, self._results, self._jobs = request, results, jobs
        self._where, self._workers, self._changed = where, workers, changed
        self._failures: list[str] = []
        self._adopted = {
            job.run_folder: (place, job) for place in jobs for job in place.list() if place.status(job.id) in WAITING
        }
        self._mine: dict[str, tuple[Jobs, Job]] = {}
        self._lost: Counter[str] = Counter()
        self._unanswered: Counter[str] = Counter()

    def step(self) -> bool:
        """Looks at every training that could go on once; False when there is nothing left to do or to wait for.

        Raises:
            RuntimeError: when all have ended and one of them badly.
        """
        for setting, method, rate in list(chosen_rates(self._request, self._results)):
            self._results.choose(setting, method, rate, Grid(self._request.rates, self._request.grid_seeds))
        trainings = open_trainings(self._request, self._results)
        for training in trainings:
            self._advance(training)
        wanted = {str(self._folder(training)) for training in trainings}
        for folder in self._mine.keys() - wanted:  # as lengths from gates that were measured anew meanwhile
            jobs, job = self._mine[folder]
            if self._state(jobs, job) not in WAITING:
                del self._mine[folder]
        if self._failures and not self._mine:
            raise RuntimeError(self._failures[0])
        return bool(trainings)

    def cancel(self) -> None:
        """Ends the jobs of this experiment."""
        for jobs, job in self._mine.values():
            jobs.cancel(job.id)

    def _advance(self, training: Training) -> None:
        folder = self._folder(training)
        if str(folder) in self._adopted:
            self._mine[str(folder)] = self._adopted.pop(str(folder))
        if str(folder) in self._mine:
            jobs, job = self._mine[str(folder)]
            state = self._state(jobs, job)
            if state in WAITING:
                return
            del self._mine[str(folder)]
            self._lost[str(folder)] += state == "lost"
            if state not in ("finished", "lost") or self._lost[str(folder)] >= ATTEMPTS:
                log = jobs.logs(job.id, LOG_LINES)
                self._failures.append(f"{folder.name}: its job {job.id} {state}; the end of its log:\n{log}")
        if self._failures:
            return
        if _is_done(folder, training):
            measured, info = measured_of(folder, training.method, training.learning_rate)
            self._results.add(training.setting, measured, info)
            self._clean(training)
            self._changed()
        elif len(self._mine) < self._workers:
            found = self._next(folder, training)
            if found is not None:
                words, jobs = found
                self._mine[str(folder)] = jobs, jobs.submit(words, folder)

    def _folder(self, training: Training) -> Path:
        return self._where.runs / training.setting.slug / training.name

    def _state(self, jobs: Jobs, job: Job) -> JobState:
        """How a job stands; as before where nobody answers for a while.

        Raises:
            AptError: if nobody has answered for long.
        """
        try:
            state = jobs.status(job.id)
        except AptError:
            self._unanswered[job.id] += 1
            if self._unanswered[job.id] >= PATIENCE:
                raise
            return "running"
        self._unanswered[job.id] = 0
        return state

    def _next(self, folder: Path, training: Training) -> tuple[list[str], Jobs] | None:
        """The command that brings a run on its way, and where it runs; what cannot be gone on with is removed.

        None while a process that no job knows, such as one of a node that is gone, may still write it.
        """
        place_of_data = place_words(training.setting.task, self._where.data_dir)
        if (folder / RUN_FILE).exists():
            info = read_run_info(folder)
            status = status_of(info)
            if status == "running":
                return None
            if _is_of(info, training):
                if status == "finished":
                    return ["evaluate", str(folder), "--split", "test", *place_of_data], self._jobs.prefixes
                if status == "interrupted":
                    resume = ["train", "--out", str(folder), "--resume", "--no-measure", *place_of_data]
                    return resume, self._jobs.prefixes
        shutil.rmtree(folder, ignore_errors=True)
        words = ["train", *words_of(training.setting, self._where.data_dir), "--out", str(folder)]
        words += ["--lr", repr(training.learning_rate), "--seed", str(training.seed), "--device", self._where.device]
        method = METHODS[training.method]
        if method.all_weights:
            return words, self._jobs.all_weights
        lengths = ("--num-virtual-tokens", str(training.setting.num_virtual_tokens))
        if training.lengths is not None:
            lengths = ("--prefix-lengths", ",".join(map(str, training.lengths)))
        gates = ("--gate-lr", repr(rate)) if (rate := gate_rate(training)) is not None else ()
        return [*words, *lengths, *method.words, *gates, "--no-measure"], self._jobs.prefixes

    def _clean(self, training: Training) -> None:
        """Removes runs of all weights that are needed no more: each is as large as the backbone."""
        table = self._results.table(training.setting)
        if table is None or not METHODS[training.method].all_weights:
            return
        chosen = next(
            (
                rate
                for setting, method, rate in chosen_rates(self._request, self._results)
                if (setting, method) == (training.setting, training.method)
            ),
            None,
        )
        for each in table.trainings:
            spent = each.tested or (chosen is not None and each.learning_rate != chosen)
            if each.method == training.method and spent:
                name = training._replace(learning_rate=each.learning_rate, seed=each.seed).name
                shutil.rmtree(self._where.runs / training.setting.slug / name, ignore_errors=True)


def _is_done(folder: Path, training: Training) -> bool:
    """Whether a run is finished, and measured on test where it is to be."""
    try:
        info = read_run_info(folder)
    except AptError:
        return False
    done = info.status == "finished" and (not training.test or "test" in info.metrics)
    return done and _is_of(info, training)


def _is_of(info: RunInfo, training: Training) -> bool:
    """Whether a run is what was asked for: a job that was retried by hand may be another."""
    setting = training.setting
    wanted = (training.seed, training.learning_rate, gate_rate(training), setting.epochs, setting.batch_size)
    wanted += (setting.max_length, setting.per_class)
    names = ("learning_rate", "gate_learning_rate", "epochs", "batch_size", "max_length", "shots")
    made = (info.seed, *(info.training.get(name) for name in names))
    lengths = training.lengths or (setting.num_virtual_tokens,) * info.num_layers
    if METHODS[training.method].all_weights:
        lengths = (0,) * info.num_layers
    return made == wanted and tuple(info.prefix_lengths) == tuple(lengths)
