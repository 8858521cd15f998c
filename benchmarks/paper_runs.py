"""Does the trainings of the experiment as jobs, and goes on where an earlier call was ended. No torch.

What is to be done follows from the results file and the run folders alone. Jobs outlive a driver that is killed; the
next one adopts them.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from apt_core.errors import AptError, bad_value
from apt_core.jobs.interface import WAITING, Job, Jobs
from apt_core.jobs.local import LocalJobs
from apt_core.jobs.places import JOBS_FOLDER, Executor, place
from apt_core.run_format import RUN_FILE, read_run_info, status_of
from benchmarks.paper_methods import METHODS
from benchmarks.paper_plan import Request, Training, chosen_rates, counts, open_trainings
from benchmarks.paper_results import Results, measured_of
from benchmarks.paper_settings import place_words, words_of

LOOK_SECONDS = 1.0
LOG_LINES = 20
FINE_TUNING = (sys.executable, "-m", "benchmarks.fine_tuning")


class Places(NamedTuple):
    """Where jobs run."""

    prefixes: Jobs
    all_weights: Jobs | None
    """for fine-tuning, which is not a command of ``apt_core``; None where it cannot run"""


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
        return Places(place(runs, executor="ray", address=address, storage=""), None)
    prefixes = place(runs, executor=executor, address=address, slots=workers)
    return Places(prefixes, LocalJobs(runs / JOBS_FOLDER, program=FINE_TUNING, slots=workers))


def check_places(where: Places, request: Request) -> None:
    """Refuses methods that cannot run there.

    Raises:
        AptValueError: naming them.
    """
    if where.all_weights is None and any(METHODS[method].all_weights for method in request.methods):
        accepted = "the other methods with --executor ray, whose nodes have no benchmarks"
        raise bad_value("methods", list(request.methods), accepted, "Fine-tune with --executor local.")


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
        waiting = [job for job in jobs.prefixes.list() if jobs.prefixes.status(job.id) in WAITING]
        self._adopted = {job.run_folder: job for job in waiting}
        self._mine: dict[str, Job] = {}

    def step(self) -> bool:
        """Looks at every training that could go on once; False when there is nothing left to do or to wait for.

        Raises:
            RuntimeError: when all have ended and one of them badly.
        """
        for setting, method, rate in list(chosen_rates(self._request, self._results)):
            self._results.choose(setting, method, rate)
        trainings = open_trainings(self._request, self._results)
        for training in trainings:
            self._advance(training)
        if self._failures and not self._mine:
            raise RuntimeError(self._failures[0])
        return bool(trainings)

    def cancel(self) -> None:
        """Ends the jobs of this experiment."""
        for job in self._mine.values():
            self._jobs.prefixes.cancel(job.id)

    def _advance(self, training: Training) -> None:
        folder = self._where.runs / training.setting.slug / training.name
        job = self._mine.get(str(folder))
        if job is None and str(folder) in self._adopted:
            job = self._mine[str(folder)] = self._adopted.pop(str(folder))
        if job is not None:
            state = self._jobs.prefixes.status(job.id)
            if state in WAITING:
                return
            del self._mine[str(folder)]
            if state != "finished":
                log = self._jobs.prefixes.logs(job.id, LOG_LINES)
                self._failures.append(f"{folder.name}: its job {job.id} {state}; the end of its log:\n{log}")
        if self._failures:
            return
        if _is_done(folder, training):
            measured, info = measured_of(folder, training.method, training.learning_rate)
            self._results.add(training.setting, measured, info)
            self._clean(training)
            self._changed()
        elif len(self._mine) < self._workers:
            words, jobs = self._next(folder, training)
            self._mine[str(folder)] = jobs.submit(words, folder)

    def _next(self, folder: Path, training: Training) -> tuple[list[str], Jobs]:
        """The command that brings a run on its way, and where it runs; what cannot be gone on with is removed."""
        place_of_data = place_words(training.setting.task, self._where.data_dir)
        if (folder / RUN_FILE).exists():
            status = status_of(read_run_info(folder))
            if status == "finished":
                return ["evaluate", str(folder), "--split", "test", *place_of_data], self._jobs.prefixes
            if status == "interrupted":
                return ["train", "--out", str(folder), "--resume", "--no-measure", *place_of_data], self._jobs.prefixes
            if status == "running":
                raise RuntimeError(f"{folder} is written by a process that no job of this experiment knows.")
        shutil.rmtree(folder, ignore_errors=True)
        words = ["train", *words_of(training.setting, self._where.data_dir), "--out", str(folder)]
        words += ["--lr", repr(training.learning_rate), "--seed", str(training.seed), "--device", self._where.device]
        method = METHODS[training.method]
        if method.all_weights and self._jobs.all_weights is not None:
            return words, self._jobs.all_weights
        lengths = ("--num-virtual-tokens", str(training.setting.num_virtual_tokens))
        if training.lengths is not None:
            lengths = ("--prefix-lengths", ",".join(map(str, training.lengths)))
        return [*words, *lengths, *method.words, "--no-measure"], self._jobs.prefixes

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
    return info.status == "finished" and (not training.test or "test" in info.metrics)
