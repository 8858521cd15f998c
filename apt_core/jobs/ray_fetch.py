"""Brings a run that a node has copied to storage to its folder here. No torch."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from apt_core.errors import AptError, AptWriteError
from apt_core.jobs.interface import JobReport
from apt_core.jobs.run_copy import RunCopy
from apt_core.run_format import (
    NOTES_FILE,
    RUN_FILE,
    check_new_folder,
    read_run_info,
    run_exists,
    this_host,
    update_finished_run,
)

_CLOCKS = timedelta(seconds=1)


def fetch_run(copy: RunCopy, folder: Path) -> bool:
    """Puts what was copied in place of ``folder``, in one step.

    Args:
        copy: of the run.
        folder: new, empty, or an earlier copy of the same run; one that is as new is left as it is.

    Returns:
        Whether there is a run in the copy. A person's notes stay.

    Raises:
        AptError: if the folder holds something else, or the copy cannot be read.
        AptWriteError: if the disk does not take it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            new = Path(scratch) / "new"
            copy.load(new)
            if not (new / RUN_FILE).exists():
                return False
            if (folder / RUN_FILE).exists():
                here, there = read_run_info(folder), read_run_info(new)
                if here.created_at != there.created_at:
                    raise run_exists(folder)
                if here.updated_at >= there.updated_at:
                    return True
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy2(folder / NOTES_FILE, new, follow_symlinks=False)
                folder.rename(Path(scratch) / "old")
            else:
                check_new_folder(folder)
                with contextlib.suppress(FileNotFoundError):
                    folder.rmdir()
            shutil.move(new, folder)
    except OSError as problem:
        if isinstance(problem, AptError):
            raise
        raise AptWriteError(f"{folder}: the run was not fetched: {problem}.") from problem
    return True


def settle_run(folder: Path, report: JobReport) -> None:
    """Says in the run of a job that was seen to end on another machine that it is interrupted.

    Without this, such a run counts as running until its last sign of life is two minutes old. Nothing is changed if
    there is a later sign of life than the job's end: then somebody else has gone on with it.
    """
    with contextlib.suppress(AptError, OSError, ValueError, TypeError):
        info = read_run_info(folder)
        ended = datetime.fromisoformat(report.ended_at or "")
        alive = datetime.fromisoformat(info.updated_at).astimezone(UTC)
        seen = report.state in ("cancelled", "failed")
        if info.status == "running" and info.host != this_host() and seen and alive <= ended + _CLOCKS:
            update_finished_run(folder, status="interrupted")
