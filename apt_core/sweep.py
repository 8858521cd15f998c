"""Does a sweep: submits its trainings as jobs, each once, and goes on where an earlier driver was ended. No torch.

A driver holds nothing that is lost with it. Which trainings there are follows from the spec, how they stand from run
folders and jobs; jobs go on without it, and the next one adopts them.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from apt_core.budget_file import read_budget
from apt_core.errors import AptError, AptUnreachableError, AptValueError, AptWriteError
from apt_core.jobs.interface import WAITING, Jobs
from apt_core.jobs.job_arguments import RESUME, unkept
from apt_core.jobs.retry import ran_out_of_memory
from apt_core.run_format import CHECKPOINT_FOLDER, utc_now
from apt_core.sweep_format import (
    MAX_REASON,
    STOP_FILE,
    Recorded,
    Sweep,
    budget_path,
    read_recorded,
    write_sweep,
)
from apt_core.sweep_look import Standing, counts_of, look
from apt_core.sweep_plan import Training, arguments_of
from apt_core.sweep_process import cancel_all, environment

LOOK_SECONDS = 1.0
MOST_QUEUED = 16
"""jobs that wait for a slot at once: each has a process of its own, and a driver is there to submit the next"""
MOST_TRIES = 3
"""jobs of one driver for the same step, if its supervisor is lost again and again"""
BUDGET_SECONDS = 600
PATIENCE_SECONDS = 600
"""with a cluster that answered before and does not now: its head may have been started again"""


class Outcome(NamedTuple):
    """How a driver ended."""

    standings: list[Standing]
    stopped: bool
    """whether somebody asked for the end"""

    @property
    def complete(self) -> bool:
        """Whether every training is finished."""
        return all(each.state == "finished" for each in self.standings)


def drive(
    out: Path,
    jobs: Jobs,
    *,
    retry_failed: bool = False,
    say: Callable[[str], None] = print,
    look_seconds: float = LOOK_SECONDS,
) -> Outcome:
    """Does what is left of the sweep in ``out``, while ``only_driver`` is held; returns once nothing more can be done.

    Args:
        out: folder that ``sweep_begin.begin`` has prepared.
        jobs: where to submit to.
        retry_failed: also try again what had failed before.
        say: receives one-line messages.
        look_seconds: between two looks.

    Raises:
        AptError: if the folder cannot be read or written any more, or a cluster has not answered for long.
    """
    recorded = read_recorded(out)
    standings = look(recorded, None)
    if all(each.state == "finished" for each in standings):  # also where its cluster is stopped
        return Outcome(standings, False)
    driver = _Driver(recorded, jobs, retry_failed, say)
    silent_since = None
    with tqdm(total=len(driver.recorded.plan), desc="sweep", unit="training", file=sys.stderr) as bar:
        try:
            while True:
                try:
                    outcome = driver.step(bar)
                    silent_since = None
                except AptUnreachableError as problem:
                    if silent_since is None:
                        silent_since = time.monotonic()
                        say(f"{problem} Asking again for up to {PATIENCE_SECONDS // 60} minutes")
                    elif time.monotonic() - silent_since > PATIENCE_SECONDS:
                        raise
                    outcome = None
                if outcome is not None:
                    return outcome
                time.sleep(look_seconds)
        except KeyboardInterrupt:
            say("interrupted; jobs that were submitted go on, and the same command goes on with the rest")
            raise


class _Driver:
    """What one driver knows: which jobs had ended before it came, and what it has tried."""

    def __init__(self, recorded: Recorded, jobs: Jobs, retry_failed: bool, say: Callable[[str], None]) -> None:
        self.recorded, self._jobs, self._retry_failed, self._say = recorded, jobs, retry_failed, say
        self._finished: dict[str, Standing] = {}
        self._tries: Counter[tuple[str, str | None]] = Counter()
        self._note(problems={})  # what could not be submitted may be possible now
        self._before = {each.job.id for each in self.look() if each.job is not None and each.state not in WAITING}

    def step(self, bar: tqdm) -> Outcome | None:
        """Looks, submits what can be done now or ends all if asked to; None while there is more to wait for."""
        request = self.recorded.folder / STOP_FILE
        standings = self.look()
        stopped = request.exists()
        if stopped:
            cancel_all(standings, self._jobs)
            request.unlink(missing_ok=True)
        submitted = 0 if stopped else self.submit_ready(standings)
        ended = not submitted and (stopped or not any(each.state in WAITING for each in standings))
        standings = self.look() if ended else standings
        _show(bar, standings)
        return Outcome(standings, stopped) if ended else None

    def look(self) -> list[Standing]:
        """How all trainings stand."""
        standings = look(self.recorded, self._jobs, self._finished)
        self._finished = {each.training.name: each for each in standings if each.state == "finished"}
        return standings

    def submit_ready(self, standings: list[Standing]) -> int:
        """Submits what can be done now, and returns how much was."""
        by_name = {each.training.name: each for each in standings}
        queued, submitted = sum(each.state == "queued" for each in standings), 0
        for each in standings:
            if queued + submitted >= MOST_QUEUED:
                break
            if self._may(each) and self._is_ready(each, by_name):
                self._tries[each.training.name, each.step] += 1
                submitted += self._submit(each)
        return submitted

    def _may(self, standing: Standing) -> bool:
        """Whether a step is to be submitted, for the first time or again.

        What was ended before this driver came goes on with it, what had failed only if asked for. What a person cancels
        or what fails while it watches stays so.
        """
        name, state, job = standing.training.name, standing.state, standing.job
        if state not in ("waiting", "interrupted", "cancelled", "failed") or name in self.recorded.sweep.same_lengths:
            return False
        tried = self._tries[name, standing.step]
        if state == "waiting" or (state == "interrupted" and job is None):
            return tried < MOST_TRIES
        if job is not None and job.id not in self._before:
            return state == "interrupted" and self._jobs.status(job.id) == "lost" and tried < MOST_TRIES
        return not tried and (state != "failed" or self._retry_failed) and name not in self.recorded.sweep.problems

    def _is_ready(self, standing: Standing, by_name: dict[str, Standing]) -> bool:
        """Whether the run that the lengths follow from is there, and measured where that is needed."""
        if standing.step != "train" or standing.training.parent is None or standing.info is not None:
            return True
        parent = by_name[standing.training.parent]
        return parent.trained and (parent.step in (None, "evaluate") if self.recorded.spec.measures else True)

    def _submit(self, standing: Standing) -> bool:
        """Submits a step; False where nothing was, with the reason on disk."""
        training = standing.training
        folder = self.recorded.folder / training.name
        try:
            if self._ran_out_of_memory(standing):
                self._jobs.retry(standing.job.id, halve_batch=True)
                self._say(f"{training.name}: memory ran out; again with half the batch, twice the accumulation")
                return True
            words = self._words(standing, folder)
            if words is None:
                return True  # another run stands for it, which is a change too
            self._jobs.submit(words, folder)
        except (AptWriteError, AptUnreachableError):
            raise
        except AptError as problem:
            reason = str(problem)[:MAX_REASON]
            self._say(f"{training.name}: {reason}")
            self._note(problems={**self.recorded.sweep.problems, training.name: reason})
            return False
        return True

    def _ran_out_of_memory(self, standing: Standing) -> bool:
        """Whether the last job of a training failed for want of memory, so that the same again would too."""
        job, failed = standing.job, standing.state == "failed" and standing.step == "train"
        return failed and job is not None and ran_out_of_memory(self._jobs.logs(job.id))

    def _words(self, standing: Standing, folder: Path) -> list[str] | None:
        """The command of a step; None where a run with the same lengths stands for it."""
        training, recorded = standing.training, self.recorded
        if standing.step == "measure":
            return ["measure", str(folder)]
        if standing.step == "evaluate":
            return ["evaluate", str(folder), "--split", "test"]
        if standing.info is not None:
            anew = arguments_of(training, recorded.spec, recorded.folder)
            return ["train", "--out", str(folder), RESUME, *unkept(anew)]  # the run knows all its other settings
        with contextlib.suppress(OSError):  # empty: a training was ended while it prepared
            (folder / CHECKPOINT_FOLDER).rmdir()
        if training.parent is None:
            return arguments_of(training, recorded.spec, recorded.folder)
        budget = budget_path(recorded.folder, training)
        if not budget.exists():
            _suggest(recorded.folder / training.parent, training, budget)
        other = self._same_lengths(training)
        if other is not None:
            self._note(same_lengths={**recorded.sweep.same_lengths, training.name: other})
            return None
        return arguments_of(training, recorded.spec, recorded.folder, budget)

    def _same_lengths(self, training: Training) -> str | None:
        """Another training that would do the same, because it has the same lengths."""
        lengths = self._lengths(training)
        known = self.recorded.sweep.same_lengths
        for other in self.recorded.plan:
            alike = other._replace(name=training.name, method=training.method, parent=None, prefix_lengths=None)
            same_place = alike == training._replace(parent=None, prefix_lengths=None)
            if same_place and other.name not in (training.name, *known) and self._lengths(other) == lengths:
                return other.name
        return None

    def _lengths(self, training: Training) -> tuple[int, ...] | None:
        if training.prefix_lengths is not None:
            return training.prefix_lengths
        path = budget_path(self.recorded.folder, training)
        return tuple(read_budget(path).prefix_lengths) if path.exists() else None

    def _note(self, **fields: object) -> None:
        """Changes ``sweep.json``."""
        sweep: Sweep = self.recorded.sweep.model_copy(update={**fields, "updated_at": utc_now()})
        try:
            write_sweep(self.recorded.folder, sweep)
        except OSError as problem:
            raise AptWriteError(f"out: {self.recorded.folder} cannot be written to ({problem.strerror}).") from problem
        self.recorded = self.recorded._replace(sweep=sweep)


def _suggest(parent: Path, training: Training, budget: Path) -> None:
    """Has the lengths of a training suggested from its parent's gates or measures, and written to ``budget``.

    Raises:
        AptValueError: in the words of ``python -m analysis budget``, if that refuses.
    """
    budget.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "analysis", "budget", str(parent)]
    command += ["--total", str(training.total), "--method", training.method, "--out", str(budget)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BUDGET_SECONDS, env=environment()
        )
    except subprocess.TimeoutExpired as problem:
        raise AptValueError(f"analysis budget took longer than {BUDGET_SECONDS} s on {parent}.") from problem
    if done.returncode and not budget.exists():  # else an earlier driver's has written it meanwhile
        said = done.stderr.strip().rpartition("\n")[2].removeprefix("error: ")
        raise AptValueError(said or f"analysis budget ended with exit code {done.returncode} on {parent}.")


def _show(bar: tqdm, standings: list[Standing]) -> None:
    counts = counts_of(standings)
    words = ", ".join(f"{count} {name}" for name, count in counts.items() if name != "done")
    if bar.n != counts["done"]:
        bar.update(counts["done"] - bar.n)
    if bar.postfix != words:
        bar.set_postfix_str(words)
