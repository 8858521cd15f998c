"""Jobs on a Ray cluster: they queue for its resources, and go on when the client ends. No torch.

All that is known of a job is in the cluster, so that any client sees, follows and cancels it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from apt_core.errors import AptError, AptFileNotFoundError, AptValueError, AptWriteError, bad_value
from apt_core.jobs.interface import WAITING, Job, JobReport, JobState
from apt_core.jobs.job_arguments import MAKES_A_RUN, check_command, check_run_folder, command_of, device_of
from apt_core.jobs.job_files import now, number_of
from apt_core.jobs.log_file import why_killed
from apt_core.jobs.ray_client import RayCluster
from apt_core.jobs.ray_entrypoint import EVERY_SECONDS, PROGRAM, entrypoint
from apt_core.jobs.ray_fetch import fetch_run, settle_run
from apt_core.jobs.ray_logs import followed, last_lines_of
from apt_core.jobs.ray_records import (
    Record,
    cancel_id,
    cancel_metadata,
    may_be_marked,
    metadata_of,
    record_of,
    report_of,
)
from apt_core.jobs.report import GRACE_SECONDS
from apt_core.jobs.retry import retry_arguments
from apt_core.jobs.run_copy import RunCopy
from apt_core.run_format import this_host

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

CPUS_VARIABLE = "APT_RAY_CPUS"
_COPY_SECONDS = 60
"""what a job that was cancelled has to copy its run"""
_SLACK_SECONDS = 60
"""what Ray may take to tell that a job has ended"""
_LOOK_SECONDS = 0.3
_ID = re.compile(r"[\w-]+")
_MOST_CPUS = 1024
_MOST_METADATA = 100_000
"""characters: Ray hands them to the job in one environment variable"""


class RayJobs:
    """``Jobs`` on a Ray cluster.

    Nodes need this package's dependencies and, without ``storage``, the same path to the run folder.

    Args:
        address: of the cluster's dashboard, such as http://10.0.0.4:8265; None: ``APT_RAY_ADDRESS``. Nothing is asked
            of it before the first request, and all of them raise an ``AptError`` if it does not answer.
        storage: where nodes copy their runs to, such as s3://bucket/runs or file:///mnt/runs, for ``fetch``; None:
            they write the run folders themselves.
        program: what ``arguments`` are given to; it begins with a node's Python.
    """

    def __init__(self, address: str | None, storage: str | None = None, program: Sequence[str] = PROGRAM) -> None:
        self._cluster = RayCluster(address)
        self._storage = storage or ""
        self._program = list(program)

    @property
    def address(self) -> str:
        """Of the cluster's dashboard."""
        return self._cluster.address

    def submit(self, arguments: Sequence[str], run_folder: str | Path) -> Job:
        """Queues a command on the cluster, and returns once it is there.

        Args:
            arguments: after ``python -m apt_core``. ``--device`` among them decides what it asks for: cuda a GPU, cpu
                cores (``APT_RAY_CPUS``, or one), auto a GPU if a node that is there now has one.
            run_folder: the folder it will write.

        Raises:
            AptError: if the folder does not suit, another job of the cluster is to write it, or the cluster or the
                storage is not reached; nothing is then queued.
        """
        words = [str(word) for word in arguments]
        return self._submit(words, Path(run_folder).absolute(), Path.cwd(), self._storage)

    def retry(self, job_id: str, halve_batch: bool = False) -> Job:
        """Queues a job again that failed, was cancelled or is lost; an interrupted run is gone on with.

        Returns:
            The new job; the old one stays as it is.

        Raises:
            AptFileNotFoundError: if there is no such job.
            AptError: if it has finished or not ended yet, or as ``submit`` does.
        """
        (_, record), report = self._known(job_id), self.report(job_id)
        if self._program == list(PROGRAM):
            check_command(record.job.arguments)
        folder = Path(record.job.run_folder)
        if report.state not in (*WAITING, "finished"):
            if record.storage:
                fetch_run(RunCopy(record.storage, record.place), folder)
            settle_run(folder, report)
        arguments = retry_arguments(record.job, report.state, halve_batch=halve_batch)
        if record.storage and command_of(arguments) not in MAKES_A_RUN:
            accepted = "one that has something left to train"
            hint = f"Its run is here now; to measure it: python -m apt_core {shlex.join(arguments)}"
            raise bad_value("job", job_id, accepted, hint)
        return self._submit(arguments, folder, Path(record.job.directory), record.storage)

    def list(self) -> list[Job]:
        """All jobs of this program that the cluster knows of, whoever submitted them, the newest first."""
        found = self._cluster.jobs().values()
        ours = [(details.start_time or 0, record.job) for details in found if (record := record_of(details))]
        return [job for _, job in sorted(ours, key=lambda pair: (pair[0], pair[1].id), reverse=True)]

    def report(self, job_id: str) -> JobReport:
        """How a job stands.

        Raises:
            AptFileNotFoundError: if there is no such job.
        """
        details, _ = self._known(job_id)
        return report_of(details, self._cluster.details(cancel_id(job_id)) if may_be_marked(details) else None)

    def status(self, job_id: str) -> JobState:
        """The state of ``report`` alone."""
        return self.report(job_id).state

    def cancel(self, job_id: str) -> None:
        """Ends a job: SIGTERM to its processes, then SIGKILL; returns once it has ended.

        One that waits is marked as cancelled. Ray ends it when its turn comes, before it has loaded anything.

        Raises:
            AptFileNotFoundError: if there is no such job.
            AptWriteError: if it does not end; it was asked to.
        """
        if self.status(job_id) not in WAITING:
            return
        self._cluster.stop(job_id)
        _, record = self._known(job_id)
        deadline = time.monotonic() + _stop_seconds(record) + _SLACK_SECONDS
        while (state := self.status(job_id)) in WAITING:
            if state == "queued":
                self._cluster.submit(cancel_id(job_id), "true", cancel_metadata(job_id))
            elif time.monotonic() > deadline:
                raise AptWriteError(f"job: {job_id} was asked to end and has not yet; see 'jobs list'.")
            time.sleep(_LOOK_SECONDS)

    def logs(self, job_id: str, last_lines: int = 200) -> str:
        """The end of what the job printed, or why it could not start; of a progress bar only its last state.

        Raises:
            AptFileNotFoundError: if there is no such job.
        """
        details, record = self._known(job_id)
        state, code = details.status.value, details.driver_exit_code
        try:
            parts = [self._cluster.logs(job_id).rstrip("\n")]
        except AptError:
            if state in ("PENDING", "RUNNING"):
                raise
            parts = ["The log is gone: it was on a node that does not answer any more."]
        if state in ("PENDING", "FAILED") and code is None:
            parts.append(details.message)
        if state == "FAILED" and code == -signal.SIGKILL:
            parts.append(f"error: {why_killed(record.job.arguments)}.")
        return last_lines_of("\n".join(filter(None, parts)), last_lines)

    def follow(self, job_id: str) -> Iterator[str]:
        """What the job printed and prints, line by line, until it has ended.

        Raises:
            AptFileNotFoundError: if there is no such job.
        """
        self._known(job_id)
        return followed(self._parts(job_id))

    def fetch(self, job_id: str) -> Path:
        """Brings the run of a job that was submitted with a storage to its run folder here, as far as it is copied.

        Returns:
            The run folder. A run that was fetched before is replaced, if the copy is newer.

        Raises:
            AptFileNotFoundError: if there is no such job, or nothing was copied yet.
            AptValueError: if the job writes its run folder itself, or another run is there.
        """
        _, record = self._known(job_id)
        folder = Path(record.job.run_folder)
        if not record.storage:
            raise bad_value("job", job_id, "one that was submitted with --storage", f"This one writes {folder} itself.")
        if not fetch_run(RunCopy(record.storage, record.place), folder):
            raise AptFileNotFoundError(
                f"job: {job_id} has not copied anything yet; it does so every {EVERY_SECONDS} s."
            )
        return folder

    def _submit(self, arguments: list[str], run_folder: Path, directory: Path, storage: str) -> Job:
        check_run_folder(arguments, run_folder)
        if storage and command_of(arguments) not in MAKES_A_RUN:
            accepted = "train or retrain, where runs are copied to a storage"
            raise bad_value("command", command_of(arguments), accepted, "Others need folders that the nodes share.")
        device = device_of(arguments, directory, run_folder)
        num_cpus = _cpus()
        on_gpu = device == "cuda" or (device == "auto" and self._cluster.has_gpus())
        job_id = self._free_id(run_folder, bool(storage))
        job = Job(job_id, arguments, str(run_folder), now(), str(directory))
        place = f"{job_id}-{os.urandom(4).hex()}" if storage else ""
        record = Record(job, "cuda" if on_gpu else "cpu", storage, place)
        metadata = metadata_of(record)
        if sum(map(len, metadata.values())) > _MOST_METADATA:
            raise bad_value("arguments", f"{len(arguments)} words", f"up to about {_MOST_METADATA:,} characters")
        copy = RunCopy(storage, place) if storage else None
        try:
            if copy is not None:
                copy.save(run_folder)  # an interrupted run goes along
            queued = self._cluster.submit(
                job_id,
                entrypoint(record, self._program),
                metadata,
                num_cpus=num_cpus,
                num_gpus=int(on_gpu),
                variables={"RAY_JOB_STOP_WAIT_TIME_S": str(_stop_seconds(record))},
                with_code=True,
            )
        except OSError as problem:
            if isinstance(problem, AptError):
                raise
            raise AptWriteError(f"storage: nothing was queued: {storage}: {problem}.") from problem
        if not queued:
            if copy is not None:
                copy.remove()
            raise _taken(run_folder, job_id)
        return job

    def _free_id(self, run_folder: Path, on_this_host: bool) -> str:
        """The id of the next job for a run folder, which two clients that ask at once both get: Ray takes one of them.

        Raises:
            AptValueError: if a job waits or runs that writes the folder.
        """
        key = os.fsencode(run_folder.resolve()) + (this_host().encode() if on_this_host else b"")
        ending = f"-{hashlib.sha256(key).hexdigest()[:12]}"
        jobs = self._cluster.jobs()
        attempts = {job_id: details for job_id, details in jobs.items() if job_id.endswith(ending)}
        for job_id, details in attempts.items():
            if report_of(details, jobs.get(cancel_id(job_id))).state in WAITING:
                raise _taken(run_folder, job_id)
        return f"{max(map(number_of, attempts), default=0) + 1:04}{ending}"

    def _parts(self, job_id: str) -> Iterator[str]:
        while self.status(job_id) == "queued":
            time.sleep(_LOOK_SECONDS)
        if self._known(job_id)[0].driver_node_id is None:
            yield self.logs(job_id)
        else:
            yield from self._cluster.follow(job_id)

    def _known(self, job_id: str) -> tuple[JobDetails, Record]:
        """A job of ours."""
        details = self._cluster.details(job_id) if _ID.fullmatch(job_id) else None
        record = record_of(details) if details else None
        if details is None or record is None:
            raise AptFileNotFoundError(
                f"job: got {job_id!r}; accepted: an id that 'python -m apt_core jobs list --executor ray' shows."
            )
        return details, record


def _taken(run_folder: Path, job_id: str) -> AptValueError:
    return bad_value("out", str(run_folder), "a folder that no job writes", f"Job {job_id} writes it.")


def _stop_seconds(record: Record) -> int:
    """What a job that is asked to end has until it is killed."""
    return int(GRACE_SECONDS) + (_COPY_SECONDS if record.storage else 0)


def _cpus() -> int:
    """Processor cores that a job asks for."""
    asked = os.environ.get(CPUS_VARIABLE) or "1"
    if not re.fullmatch(r"[0-9]{1,4}", asked) or not 1 <= int(asked) <= _MOST_CPUS:
        raise bad_value(CPUS_VARIABLE, asked, f"processor cores that a job asks Ray for, 1 to {_MOST_CPUS}")
    return int(asked)
