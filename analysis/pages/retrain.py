"""The part of the Budget page that starts trainings and shows how they go."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from analysis.pages import context
from analysis.runs import Run
from apt_core.errors import AptError
from apt_core.jobs import Job, JobReport
from apt_core.jobs.interface import WAITING
from apt_core.run_format import next_run_folder, read_run_info, snapshot_steps
from apt_core.tasks import TASKS

INIT_HELP = (
    "scratch: random values. warm: the kept tokens' values at the end of this run. rewind: their values at an early "
    "step that this run kept. Not offered where a layer would get more tokens than it has."
)
RETRY_HELP = "Queues it again. A run that it left interrupted is gone on with, from its last checkpoint."
LOG_LINES = 40
JOBS_SHOWN = 6


def show_form(run: Run, lengths: list[int], uniform: list[int]) -> None:
    """Settings of a retraining, the command that does the same, and the two buttons."""
    st.subheader("Retrain")
    if run.info.task not in TASKS:
        st.info("This run was made through the Python API: retrain it there with the lengths above.")
        return
    settings = run.info.training
    cells = st.columns(4)
    epochs = cells[0].number_input("Epochs", min_value=1, value=int(settings.get("epochs", 1)), help="As in the run.")
    seed = cells[1].number_input("Seed", min_value=0, value=int(settings.get("seed", 1)), help="As in the run.")
    device = cells[2].selectbox("Device", ["auto", "cpu", "cuda"], help="auto takes a GPU where there is one.")
    init = cells[3].selectbox("Start from", inits(run, [lengths, uniform]), help=INIT_HELP)
    options = ["--epochs", str(epochs), "--seed", str(seed), "--device", device, "--init", init]
    if TASKS[run.info.task].needs_data and not run.info.data:  # else the run knows its files or its Hub name
        data_dir = st.text_input(
            "Data folder", value=run.info.data_dir or "", help=f"Holds the folder {run.info.task}, or its files."
        )
        if not Path(data_dir).expanduser().is_dir() or not data_dir:
            st.warning("There is no such folder on this machine. Give the one that holds the task's files.")
            return
        options += ["--data-dir", data_dir]
    root = context.roots()[0]
    for kind, chosen, label, help_text in (
        ("pruned", lengths, "Retrain with these lengths", None),
        ("uniform", uniform, "Retrain uniform, same total", "The baseline: the same number of tokens, spread evenly."),
    ):
        out = next_run_folder(root, f"{run.name}-{kind}{sum(chosen)}")
        arguments = ["retrain", str(run.folder), "--prefix-lengths", ",".join(map(str, chosen)), "--out", str(out)]
        arguments += options
        st.code(shlex.join(["python", "-m", "apt_core", *arguments]), language="bash", wrap_lines=True)
        if not context.may_edit():
            continue
        if st.button(label, key=f"start {kind}", type="primary" if kind == "pruned" else "secondary", help=help_text):
            _start(arguments, out)


def inits(run: Run, wanted: list[list[int]]) -> list[str]:
    """What a retraining of ``run`` can start from: its own values only where no layer is to grow."""
    lengths = run.info.prefix_lengths
    if any(new > old for asked in wanted for new, old in zip(asked, lengths, strict=True)):
        return ["scratch"]
    return ["scratch", "warm", *(f"rewind:{step}" for step in snapshot_steps(run.folder) if step > 0)]


def _start(arguments: list[str], out: Path) -> None:
    _queue(lambda: context.jobs().submit(arguments, out))


def _queue(submit: Callable[[], Job]) -> None:
    """Queues a job, and says which or why not."""
    try:
        job = submit()
    except (AptError, OSError) as problem:
        st.error(context.plain(problem))
        return
    st.toast(f"Queued job {job.id}: {context.plain(job.run_folder)}")


@st.fragment(run_every=2)
def show_jobs() -> None:
    """Jobs of this dashboard with progress: those that run, those that wait, the newest that ended.

    It looks again every two seconds.
    """
    jobs = context.jobs()
    reports = [(job, jobs.report(job.id)) for job in jobs.list()]
    if not reports:
        return
    st.subheader("Retrainings")
    reports.sort(key=lambda pair: (pair[1].state != "running", pair[1].state != "queued", pair[1].position or 0))
    for job, report in reports[:JOBS_SHOWN]:
        _show_job(job, report)
    if len(reports) > JOBS_SHOWN:
        st.caption(f"{len(reports) - JOBS_SHOWN} more: `python -m apt_core jobs list --runs {context.roots()[0]}`")


def _show_job(job: Job, report: JobReport) -> None:
    jobs = context.jobs()
    folder = Path(job.run_folder)
    state = report.state
    with st.container(border=True):
        left, right = st.columns([4, 1])
        left.markdown(f"**{context.plain(folder)}** · {context.plain(_standing(job, report))}")
        done, text = _progress(folder, state)
        left.progress(done, text=text)
        if state in WAITING:
            if context.may_edit() and right.button(
                "Cancel",
                key=f"cancel {job.id}",
                icon=":material/stop:",
                help="Ends it; one that is queued never starts.",
            ):
                jobs.cancel(job.id)
                st.rerun(scope="fragment")
        elif state == "finished":
            pages = st.session_state["pages"]
            key = f"{folder.parent.name}/{folder.name}"
            right.page_link(pages["gates"], label="Gates", query_params={"run": key})
            right.page_link(pages["compare"], label="Compare", query_params={"run": key})
        elif context.may_edit() and right.button(
            "Retry", key=f"retry {job.id}", icon=":material/replay:", help=RETRY_HELP
        ):
            _queue(lambda: jobs.retry(job.id))
        with st.expander("Log", expanded=state in ("failed", "lost")):
            st.code(jobs.logs(job.id, LOG_LINES) or "nothing printed yet", language=None)


def _standing(job: Job, report: JobReport) -> str:
    """A job's command and state, with its place in the queue or its device."""
    command = job.arguments[0] if job.arguments else "job"
    if report.state == "queued" and report.position:
        return f"{command}: queued, number {report.position} in line"
    if report.state == "running" and report.device:
        return f"{command}: running on {report.device}"
    return f"{command}: {report.state}"


def _progress(folder: Path, state: str) -> tuple[float, str]:
    if state == "queued":
        return 0.0, "waits for a slot"
    try:
        info = read_run_info(folder)
    except AptError:
        return 0.0, "preparing data and model" if state == "running" else "no run in this folder"
    if not info.total_steps:
        return 0.0, "preparing"
    return min(1.0, info.step / info.total_steps), f"step {info.step} of {info.total_steps}"
