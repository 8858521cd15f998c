"""Jobs on this machine: a detached supervisor process for each, which waits for a slot and outlives the app.

See ``job_files`` for what is on disk, and ``queue`` for the order.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import apt_core
from apt_core.errors import AptError, AptFileNotFoundError, AptValueError, AptWriteError, bad_value
from apt_core.jobs import locks
from apt_core.jobs.devices import check_device, cpu_environment, cpu_slots, gpu_slots
from apt_core.jobs.interface import WAITING, Job, JobReport, JobState
from apt_core.jobs.job_arguments import check_command, check_run_folder, device_of
from apt_core.jobs.job_files import (
    ALIVE_FILE,
    CANCEL_FILE,
    JOB_FILE,
    LOG_FILE,
    now,
    number_of,
    read_job,
    sign_alive,
    write_job,
)
from apt_core.jobs.log_file import follow, tail
from apt_core.jobs.process_tree import end_job
from apt_core.jobs.queue import cpu_slot_file, drawing, slot_holder, take_ticket, ticket_file
from apt_core.jobs.report import GRACE_SECONDS, report
from apt_core.jobs.retry import retry_arguments
from apt_core.processes import MARKER
from apt_core.run_format import this_host

PROGRAM = (sys.executable, "-m", "apt_core")
_SUPERVISOR = "apt_core.jobs.supervisor"
_ID = re.compile(r"[\w-]+")


class LocalJobs:
    """The default ``Jobs``: on this machine, queued for its processor and its GPUs.

    Args:
        folder: where jobs keep their state, and where they queue for the processor; made when the first is submitted.
        program: what ``arguments`` are given to.
        slots: how many jobs may run at once on the processor; None: ``APT_SLOTS``, or one for every two cores. A GPU
            has one job at a time, of all folders.
    """

    def __init__(
        self,
        folder: str | Path,
        program: Sequence[str] = PROGRAM,
        slots: int | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._program = list(program)
        self._slots = slots

    def submit(self, arguments: Sequence[str], run_folder: str | Path) -> Job:
        """Queues a command that goes on when the caller ends, and returns at once.

        Args:
            arguments: after ``python -m apt_core``, such as ``["retrain", "runs/a", "--prefix-lengths", "4,0,8"]``.
                ``--device`` among them decides what it waits for: cpu for the processor, cuda or auto for a GPU; auto
                where there is none for the processor.
            run_folder: the folder it will write.

        Raises:
            AptFileExistsError: if ``run_folder`` holds a run that would be overwritten.
            AptFileNotFoundError: if ``arguments`` need a run in ``run_folder``, and there is none.
            AptValueError: if another job is to write it, or a GPU is asked for where there is none.
            AptWriteError: if the state of the job cannot be written.
        """
        return self._submit([str(word) for word in arguments], Path(run_folder).absolute(), Path.cwd())

    def retry(self, job_id: str, halve_batch: bool = False) -> Job:
        """Queues a job again that failed, was cancelled or is lost; an interrupted run is gone on with.

        Args:
            job_id: of the job.
            halve_batch: with half the batch and twice the accumulation, for one that ran out of memory.

        Returns:
            The new job; the old one stays as it is.

        Raises:
            AptFileNotFoundError: if there is no such job.
            AptError: if it has finished or not ended yet, if there is no batch to halve, or as ``submit`` does.
        """
        state = self.status(job_id)
        job = self._job(job_id)
        if self._program == list(PROGRAM):
            check_command(job.arguments)
        directory = Path(job.directory or Path.cwd())
        if not directory.is_dir():
            raise bad_value("job", job_id, f"a job whose folder {directory} still exists; its paths start there")
        return self._submit(retry_arguments(job, state, halve_batch=halve_batch), Path(job.run_folder), directory)

    def list(self) -> list[Job]:
        """All jobs, the newest first; folders that are damaged are passed over."""
        jobs = filter(None, (read_job(path.parent) for path in self.folder.glob(f"*/{JOB_FILE}")))
        return sorted(jobs, key=lambda job: (number_of(job.id), job.submitted_at, job.id), reverse=True)

    def report(self, job_id: str) -> JobReport:
        """How a job stands; processes that a dead supervisor left behind are ended.

        Raises:
            AptFileNotFoundError: if there is no such job.
        """
        return report(self._known(job_id))

    def status(self, job_id: str) -> JobState:
        """The state of ``report`` alone."""
        return self.report(job_id).state

    def slots(self) -> dict[str, Path | None]:
        """The slots of this machine that jobs of this folder may get, and the folder of the job that has each.

        A GPU may have a job of another folder of jobs.

        Raises:
            AptValueError: if the number of slots is none.
        """
        own = self.folder.resolve()
        files = {gpu: _gpu_file(gpu) for gpu in gpu_slots()}
        files |= {slot: cpu_slot_file(own, slot) for slot in cpu_slots(self._slots)}
        return {slot: slot_holder(file) for slot, file in files.items()}

    def cancel(self, job_id: str, grace_seconds: float = GRACE_SECONDS) -> None:
        """Ends the whole process tree of a job: SIGTERM, then SIGKILL. One that is queued never starts.

        Does nothing if it has ended.

        Raises:
            AptFileNotFoundError: if there is no such job.
        """
        if self.status(job_id) not in WAITING:
            return
        (self.folder / job_id / CANCEL_FILE).touch()
        end_job(job_id, grace_seconds)
        self.status(job_id)  # writes the end if the supervisor did not come to it

    def logs(self, job_id: str, last_lines: int = 200) -> str:
        """The end of what the job printed; of a progress bar only its last state.

        Raises:
            AptFileNotFoundError: if there is no such job.
        """
        return tail(self._known(job_id) / LOG_FILE, last_lines)

    def follow(self, job_id: str) -> Iterator[str]:
        """What the job printed and prints, piece by piece, until it has ended.

        Raises:
            AptFileNotFoundError: if there is no such job.
        """
        return follow(self._known(job_id) / LOG_FILE, lambda: self.status(job_id) not in WAITING)

    def _submit(self, arguments: list[str], run_folder: Path, directory: Path) -> Job:
        locks.check_locks()
        slots, environment = self._suitable(device_of(arguments, directory, run_folder))
        try:
            with contextlib.ExitStack() as held:
                claim_file, claim = _claim(run_folder)
                held.callback(os.close, claim)
                check_run_folder(arguments, run_folder)
                with drawing(self.folder) as number:
                    job_id = f"{number:04}-{uuid.uuid4().hex[:12]}"
                    folder = self.folder.resolve() / job_id
                    folder.mkdir()
                    alive = locks.take(folder / ALIVE_FILE)
                    held.callback(os.close, alive)
                    sign_alive(alive)
                    ticket = take_ticket(folder.parent, job_id, slots)
                    held.callback(os.close, ticket)
                job = Job(job_id, arguments, str(run_folder), now(), str(directory))
                try:
                    os.ftruncate(claim, 0)
                    os.pwrite(claim, job_id.encode(), 0)
                    write_job(folder, job)
                    words = [str(folder), str(claim_file), *map(str, (alive, ticket, claim))]
                    self._start_supervisor(job, words, (alive, ticket, claim), environment)
                except BaseException:
                    ticket_file(folder.parent, job_id).unlink(missing_ok=True)
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
                return job
        except OSError as problem:
            if isinstance(problem, AptError):
                raise
            place = problem.filename or self.folder
            raise AptWriteError(f"jobs: nothing was queued: {place}: {problem.strerror}.") from problem

    def _suitable(self, device: str) -> tuple[dict[str, Path], dict[str, str]]:
        """The slots for a device, with the files whose locks they are, and what its job gets in its environment."""
        check_device(device)
        gpus = [] if device == "cpu" else gpu_slots()
        if gpus:
            return {gpu: _gpu_file(gpu) for gpu in gpus}, {}
        slots = cpu_slots(self._slots)
        files = {slot: cpu_slot_file(self.folder.resolve(), slot) for slot in slots}
        return files, cpu_environment(slots, hide_gpus=device == "cpu")

    def _start_supervisor(
        self, job: Job, words: Sequence[str], descriptors: Sequence[int], environment: dict[str, str]
    ) -> None:
        package = str(Path(apt_core.__file__).resolve().parent.parent)
        search_path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        job_variables = {MARKER: job.id, "PYTHONPATH": search_path, "PYTHONUNBUFFERED": "1"}
        job_variables["PYTHONSAFEPATH"] = "1"  # no folder where a job's paths start stands for this package
        with (Path(words[0]) / LOG_FILE).open("wb") as log:
            subprocess.Popen(
                [sys.executable, "-m", _SUPERVISOR, *words, *self._program, *job.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=job.directory,
                pass_fds=descriptors,
                env={**os.environ, **environment, **job_variables},
            )

    def _job(self, job_id: str) -> Job:
        job = read_job(self._known(job_id))
        if job is None:
            raise AptValueError(f"job: got {job_id!r}, whose {JOB_FILE} is damaged; submit its command again.")
        return job

    def _known(self, job_id: str) -> Path:
        folder = self.folder.resolve() / job_id
        if not _ID.fullmatch(job_id) or not (folder / JOB_FILE).is_file():
            raise AptFileNotFoundError(
                f"job: got {job_id!r}; accepted: an id that 'python -m apt_core jobs list' shows."
            )
        return folder


def _claim(run_folder: Path) -> tuple[Path, int]:
    """Takes a run folder for one job, whichever folder of jobs that belongs to: the lock's file and descriptor.

    Raises:
        AptValueError: if a job has it.
    """
    path = _shared_folder() / "runs" / hashlib.sha256(os.fsencode(run_folder.resolve())).hexdigest()
    descriptor = locks.take(path)
    if descriptor is None:
        writer = ""
        with contextlib.suppress(OSError, ValueError):  # it has let go meanwhile
            writer = path.read_text(encoding="utf-8")
        who = f"Job {writer}" if writer else "Another job"
        raise bad_value("out", str(run_folder), "a folder that no job writes", f"{who} writes it.")
    return path, descriptor


def _gpu_file(gpu: str) -> Path:
    """The file whose lock is the slot of a GPU."""
    return _shared_folder() / "gpus" / quote(gpu, safe="")


def _shared_folder() -> Path:
    """Where this user's jobs on this machine meet, whichever folder they were submitted to."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as problem:
        raise bad_value(
            "XDG_CACHE_HOME", None, "a folder for the locks of jobs, as there is no home folder"
        ) from problem
    return Path(home).absolute() / "apt-gate-studio" / this_host()
