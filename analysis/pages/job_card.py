"""A job on a page: how it stands, how far it is, its log, and what can be done with it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from analysis.job_book import Standing
from analysis.job_progress import (
    RESUMES,
    bytes_words,
    command_line,
    last_words,
    progress_of,
    standing_words,
    times_words,
)
from analysis.live_training import logged_by
from analysis.pages import context
from analysis.pages.job_actions import LOOK_SECONDS, STATE_ICONS, cancel, queue, short_name
from analysis.runs import shown
from apt_core.errors import AptError
from apt_core.jobs import Job
from apt_core.jobs.job_arguments import MAKES_A_RUN, WRITES_ITS_RUN, command_of
from apt_core.jobs.retry import lacks_measures, ran_out_of_memory, retry_arguments
from apt_core.jobs.usage import Meter, Usage
from apt_core.run_format import RUN_FILE, RunInfo, read_run_info

LAST_LINES = 50
"""of a log, among which the error of a failed job is"""
SHOWN_LINES = 15
SHOWN_LOG = 4_000
"""characters of the end of a log that are shown"""
MAX_COMMAND = 20_000
"""characters"""
RETRY_HELP = f"Queues it again. {RESUMES}"
MEASURE_HELP = "Its run is finished: only what the virtual tokens are worth is left to be measured."
HALVE_HELP = (
    "The log says that memory did not suffice. Half as many examples at once, twice as many passes for each optimizer "
    "step: less memory, the same training."
)
LINKS = {
    "running": {"gates": "Gates, live"},
    "finished": {"gates": "Gates", "compare": "Compare"},
}
LOSS_WIDTH = 210
"""pixels"""


class View(NamedTuple):
    """What cards need beside their job."""

    usages: dict[str, Usage]
    """of the jobs that run"""
    replaced: dict[str, str]
    """jobs that a newer one did again -> its id"""


@st.cache_resource(show_spinner=False)
def _meter() -> Meter:
    return Meter()


@st.cache_data(ttl=LOOK_SECONDS, show_spinner=False)
def _usages(job_ids: tuple[str, ...], gpus: bool) -> dict[str, Usage]:
    return _meter().usages(job_ids, gpus=gpus)


def view_of(standings: Sequence[Standing], replaced: dict[str, str]) -> View:
    """What the cards of ``standings`` need; ``replaced``: see ``taken_over``."""
    running = [each for each in standings if each.report.state == "running"]
    on_gpu = any(not (each.report.device or "cpu").startswith("cpu") for each in running)
    usages = _usages(tuple(sorted(each.job.id for each in running)), on_gpu) if running else {}
    return View(usages, replaced)


def show_card(standing: Standing, view: View) -> None:
    """One job, in a frame; one that waits in a line."""
    job, report = standing
    title = (
        f"{STATE_ICONS[report.state]} **{context.plain(shown(_name(job)))}** · "
        f"{context.plain(shown(standing_words(job, report)))}"
    )
    relative, exact = times_words(standing, datetime.now(UTC))
    if report.state == "queued":
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            with st.container(width="stretch", gap=None):
                st.markdown(title)
                st.caption(relative, help=exact)
            _offer_cancel(standing)
            _show_command(standing)
        return
    failed_log = log_end(job) if report.state == "failed" else ""
    with st.container(border=True):
        st.markdown(title)
        if report.state == "running":
            _show_running(standing, view.usages.get(job.id))
        elif report.state != "finished":
            _show_ending(standing, view.replaced.get(job.id), failed_log)
        st.caption(relative, help=exact)
        with st.container(horizontal=True, vertical_alignment="center"):
            if report.state == "running":
                _offer_cancel(standing)
            elif report.state != "finished" and job.id not in view.replaced:
                _offer_retry(standing, failed_log)
            _show_links(standing)
            _show_command(standing)
        show_log(job)


def show_log(job: Job, *, is_open: bool = False) -> None:
    """The end of what a job printed; read only while it is open.

    Args:
        job: that has started.
        is_open: at first.
    """
    log = st.expander("Log", is_open, key=f"log {job.id}", on_change="rerun", icon=":material/notes:")
    if log.open:
        text = shown(log_end(job, SHOWN_LINES)[-SHOWN_LOG:], SHOWN_LOG)
        log.code(text or "nothing printed yet", language=None, wrap_lines=True)
        log.caption(f"The last {SHOWN_LINES} lines. This prints all of them:")
        words = ["python", "-m", "apt_core", "jobs", "logs", job.id, "--follow", *context.jobs_flags()]
        log.code(shlex.join(words), language="bash", wrap_lines=True)


def log_end(job: Job, lines: int = LAST_LINES) -> str:
    """The last lines that a job printed, or why there are none."""
    try:
        return context.jobs().logs(job.id, lines)
    except (AptError, OSError) as problem:
        return str(problem)


def _name(job: Job) -> str:
    """What pages call the folder that a job writes; its whole path where that is elsewhere."""
    folder = Path(job.run_folder)
    inside = any(folder.parent.resolve() == root.resolve() for root in context.roots())
    return f"{folder.parent.name}/{folder.name}" if inside else str(folder)


def _run_key(job: Job) -> str | None:
    """What pages call the run that a job wrote; None if they do not show it."""
    name, parent = short_name(job), Path(job.run_folder).parent.resolve()
    roots = [root for root in context.chosen_roots() if (root / name / RUN_FILE).is_file()]
    root = next((root for root in roots if root.resolve() == parent), None)
    if root is None:
        return None
    alike = [other for other in roots if other.name == root.name]
    return f"{root.name}/{name}" if len(alike) == 1 else (root / name).as_posix()


def _info(job: Job) -> RunInfo | None:
    try:
        return read_run_info(Path(job.run_folder))
    except (AptError, OSError):
        return None


def _show_running(standing: Standing, usage: Usage | None) -> None:
    """Bar and time left, loss and metric, what it uses."""
    job, info = standing.job, _info(standing.job)
    trains = info is not None and command_of(job.arguments) in MAKES_A_RUN
    logged = logged_by(Path(job.run_folder), info.metric_name) if trains else None
    progress = progress_of(standing, info, logged.pace if logged else None)
    if progress.done is None:
        st.caption(progress.words)
    else:
        st.progress(progress.done, text=progress.words)
    cells = st.container(horizontal=True, gap="medium")
    if logged is not None and logged.curves.loss:
        cells.metric(
            "training loss (nats)",
            f"{logged.curves.loss[-1]:.4g}",
            chart_data=logged.curves.loss,
            width=LOSS_WIDTH,
            help="As logged last; the line is the whole training so far.",
        )
    if logged is not None and logged.curves.metric:
        name = context.plain(shown(info.metric_name))
        cells.metric(
            f"validation {name}", f"{logged.curves.metric[-1]:.3f}", width="content", help="After the last epoch."
        )
    if usage is not None:
        _show_usage(cells, usage)


def _show_usage(cells: DeltaGenerator, usage: Usage) -> None:
    processes = f"{usage.num_processes} process{'' if usage.num_processes == 1 else 'es'}"
    cells.metric(
        "memory",
        bytes_words(usage.rss_bytes),
        width="content",
        help=f"Resident, of its {processes} on this machine.",
    )
    if usage.gpu_bytes is not None:
        cells.metric("GPU memory", bytes_words(usage.gpu_bytes), width="content", help="As its driver says.")
    if usage.cpu_percent is not None:
        cells.metric("processor", f"{usage.cpu_percent:.0f} %", width="content", help="100 % is one core.")


def _show_ending(standing: Standing, again: str | None, failed_log: str) -> None:
    """Where a job that did not finish stopped, and why."""
    if again is not None:
        st.caption(f"Done again as job {context.plain(again)}.")
    elif _is_complete(standing.job):
        st.caption("Its run is finished" + (", but was not measured." if lacks_measures(standing.job) else "."))
    elif words := progress_of(standing, _info(standing.job)).words:
        st.caption(words)
    if standing.report.state == "failed":
        code = standing.report.exit_code
        silent = "It said nothing" + ("." if code is None else f" and ended with exit code {code}.")
        st.error(context.plain(shown(last_words(failed_log) or silent)))
    elif standing.report.state == "lost":
        st.warning("What watched over it is gone: it was killed, or the machine went down.")


def _show_links(standing: Standing) -> None:
    run, state = _run_key(standing.job), standing.report.state
    if run is not None and state in ("running", "finished"):
        for page, label in LINKS[state].items():
            context.offer(page, label, run, standing.job.id)


def _show_command(standing: Standing) -> None:
    job, report = standing
    with st.popover("Command", icon=":material/terminal:", key=f"command {job.id}"):
        st.code(shown(command_line(job), MAX_COMMAND), language="bash", wrap_lines=True)
        facts = {"job": job.id, "run folder": job.run_folder, "paths start in": job.directory or "unknown"}
        facts |= {"device": report.device} if report.device else {}
        facts |= {"exit code": report.exit_code} if report.exit_code is not None else {}
        st.markdown("\n".join(f"- {name}: {context.plain(shown(text))}" for name, text in facts.items()))


def _offer_cancel(standing: Standing) -> None:
    """Asks once more, as work is lost by it."""
    job = standing.job
    if not context.may_edit():
        return
    with st.popover("Cancel", icon=":material/stop:", key=f"ask {job.id}"):
        if standing.report.state == "queued":
            st.markdown("It has not started yet, and then never will. Retry queues it again, at the end.")
        else:
            after = "Retry starts it again." if command_of(job.arguments) in WRITES_ITS_RUN else RESUMES
            st.markdown(f"It is at work: this ends it and every process that it started. {after}")
        if st.button("Cancel this job", key=f"cancel {job.id}", type="primary", icon=":material/stop:") and cancel(
            [job]
        ):
            st.rerun()


def _is_complete(job: Job) -> bool:
    """Whether the run that a job was to make is finished, although the job itself came to no good end."""
    info = _info(job) if command_of(job.arguments) in MAKES_A_RUN else None
    return info is not None and info.status == "finished"


def _can_be_halved(standing: Standing) -> bool:
    try:
        retry_arguments(standing.job, standing.report.state, halve_batch=True)
    except (AptError, OSError):
        return False
    return True


def _offer_retry(standing: Standing, failed_log: str) -> None:
    """Retry, and where memory ran out first of all with half the batch; nothing where nothing is left to do."""
    job = standing.job
    if not context.may_edit():
        return
    if _is_complete(job):
        if lacks_measures(job) and st.button(
            "Measure", key=f"retry {job.id}", icon=":material/replay:", help=MEASURE_HELP
        ):
            _retry(job)
        return
    halve = ran_out_of_memory(failed_log) and _can_be_halved(standing)
    if halve and st.button(
        "Retry with half the batch", key=f"halve {job.id}", icon=":material/compress:", type="primary", help=HALVE_HELP
    ):
        _retry(job, halve_batch=True)
    if st.button("Retry", key=f"retry {job.id}", icon=":material/replay:", help=RETRY_HELP):
        _retry(job)


def _retry(job: Job, **options: bool) -> None:
    if queue([partial(context.jobs().retry, job.id, **options)]):
        st.rerun()
