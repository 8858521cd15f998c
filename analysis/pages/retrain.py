"""The part of the Budget page that starts trainings, and the jobs of the run that it is about."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import streamlit as st

from analysis.inputs import data_folder
from analysis.job_progress import board, jobs_of_run, taken_over
from analysis.pages import context, job_actions, job_card
from analysis.retraining import MAX_SEEDS, Planned, check_new, parse_seeds, plan
from analysis.runs import Run, shown
from apt_core.errors import AptError
from apt_core.jobs.devices import gpu_slots
from apt_core.run_format import snapshot_steps
from apt_core.tasks import TASKS

INIT_HELP = (
    "scratch: random values. warm: the kept tokens' values at the end of this run. rewind: their values at an early "
    "step that this run kept. Not offered where a layer would get more tokens than it has."
)
SEEDS_HELP = (
    f"Numbers such as 1,2,3 or 1-3, at most {MAX_SEEDS}: one training for each. Only several seeds tell a difference "
    "from chance."
)
JOBS_SHOWN = 4
IDLE_SECONDS = 10
MOST = {"epochs": 10_000, "batch_size": 65_536, "gradient_accumulation_steps": 65_536}


def show_form(run: Run, lengths: list[int], uniform: list[int]) -> None:
    """Settings of a retraining, the commands that do the same, and the two buttons."""
    st.subheader("Retrain")
    if run.info.task not in TASKS:
        st.info("This run was made through the Python API: retrain it there with the lengths above.")
        return
    data = _data_options(run)
    chosen = _settings(run, inits(run, [lengths, uniform]))
    if data is None or chosen is None:
        return
    seeds, options = chosen
    try:
        taken = {Path(each.job.run_folder) for each in job_actions.look() if each.waits}
    except (AptError, OSError) as problem:
        st.error(f"The jobs cannot be listed: {context.plain(shown(problem))}")
        return
    for kind, wanted, label, help_text in (
        ("pruned", lengths, "Retrain with these lengths", None),
        ("uniform", uniform, "Retrain uniform, same total", "The baseline: the same number of tokens, spread evenly."),
    ):
        planned = plan(run.folder, kind, wanted, seeds, [*options, *data], context.roots()[0], taken)
        st.code("\n".join(each.command for each in planned), language="bash", wrap_lines=True)
        if not context.may_edit():
            continue
        label += f", {len(seeds)} seeds" if len(seeds) > 1 else ""
        if st.button(label, key=f"start {kind}", type="primary" if kind == "pruned" else "secondary", help=help_text):
            _start(planned)


def inits(run: Run, wanted: list[list[int]]) -> list[str]:
    """What a retraining of ``run`` can start from: its own values only where no layer is to grow."""
    lengths = run.info.prefix_lengths
    if any(new > old for asked in wanted for new, old in zip(asked, lengths, strict=True)):
        return ["scratch"]
    return ["scratch", "warm", *(f"rewind:{step}" for step in snapshot_steps(run.folder) if step > 0)]


def show_jobs(run: Run) -> None:
    """The newest jobs that write a run or retrain it; looked at again every two seconds while one is at work."""
    try:
        standings = job_actions.look()
    except (AptError, OSError):  # the form above says so
        return
    ids = set(jobs_of_run([each.job for each in standings], run.folder))
    at_work = any(each.waits for each in standings if each.job.id in ids)
    st.fragment(_show_jobs, run_every=job_actions.LOOK_SECONDS if at_work else IDLE_SECONDS)(run.folder)


def _show_jobs(folder: Path) -> None:
    try:
        standings = job_actions.look()
    except (AptError, OSError) as problem:
        st.error(f"The jobs cannot be listed: {context.plain(shown(problem))}")
        return
    jobs = [each.job for each in standings]
    ids = set(jobs_of_run(jobs, folder))
    now = board(each for each in standings if each.job.id in ids)
    own = [*now.running, *now.waiting, *now.ended]
    if not own:
        return
    st.subheader("Jobs of this run")
    view = job_card.view_of(own[:JOBS_SHOWN], taken_over(jobs))
    for each in own[:JOBS_SHOWN]:
        job_card.show_card(each, view)
    left = len(own) - JOBS_SHOWN
    job_actions.link_to_jobs(f"All jobs, {left:,} more of this run among them" if left > 0 else "All jobs")


def _data_options(run: Run) -> list[str] | None:
    """Where the data is, if the run does not know; None if it is not where it should be."""
    if not TASKS[run.info.task].needs_data or run.info.data:  # built in, or the run knows its files or its Hub name
        return []
    data_dir = st.text_input(
        "Data folder", value=run.info.data_dir or "", help=f"Holds the folder {run.info.task}, or its files."
    )
    try:
        return ["--data-dir", str(data_folder(data_dir, context.allowed_data()))]
    except AptError as problem:
        st.warning(
            f"There is no such folder to train on. Give the one that holds the task's files. {context.plain(problem)}"
        )
        return None


def _settings(run: Run, starts: Sequence[str]) -> tuple[tuple[int, ...], list[str]] | None:
    """Seeds, and the options that all of them share; None, with words beside the field, if one does not do."""
    cells = st.columns(4)
    epochs = _number(cells[0], run, "Epochs", "epochs", "Passes over the training data. At first as in the run.")
    typed = cells[1].text_input("Seeds", value=str(run.info.training.get("seed", 1)), help=SEEDS_HELP)
    device = cells[2].selectbox("Device", ["auto", "cpu", "cuda"], help="auto takes a GPU where there is one.")
    init = cells[3].selectbox("Start from", starts, help=INIT_HELP)
    options = ["--epochs", str(epochs), "--device", device, "--init", init, *_more(run)]
    seeds = None
    try:
        seeds = parse_seeds(typed)
    except AptError as problem:
        cells[1].error(context.plain(shown(problem)))
    no_gpu = device == "cuda" and context.cluster() is None and not gpu_slots()
    if no_gpu:
        cells[2].error("No GPU is visible to this app. auto and cpu train on the processor.")
    return None if seeds is None or no_gpu else (seeds, options)


def _more(run: Run) -> list[str]:
    """What seldom has to differ from the run."""
    names = ("batch_size", "gradient_accumulation_steps")
    with st.expander("More settings"):
        cells = st.columns(2)
        batch = _number(
            cells[0], run, "Batch size", names[0], "Examples at once on a device. Fewer need less memory, and time."
        )
        accumulated = _number(
            cells[1], run, "Batches for each step", names[1], "Gradient accumulation: an optimizer step sees them all."
        )
        usual = [_recorded(run, name) for name in names]
        if batch * accumulated == usual[0] * usual[1]:
            st.caption(f"{batch * accumulated:,} examples for each optimizer step, as in the run.")
        else:
            st.warning(
                f"{batch * accumulated:,} examples for each optimizer step; the run had {usual[0] * usual[1]:,}. Its "
                "learning rate may not suit, and the two runs then differ in more than their lengths."
            )
        measures = st.checkbox(
            "Measure what the tokens are worth afterwards",
            value=True,
            help="For Evidence and a further budget of the new runs; takes about as long as an epoch.",
        )
    options = ["--batch-size", str(batch)] if batch != usual[0] else []
    options += ["--gradient-accumulation-steps", str(accumulated)] if accumulated != usual[1] else []
    return options + ([] if measures else ["--no-measure"])


def _number(cell, run: Run, label: str, name: str, help_text: str) -> int:
    value = _recorded(run, name)
    return int(cell.number_input(label, min_value=1, max_value=MOST[name], value=value, help=help_text))


def _recorded(run: Run, name: str) -> int:
    """A setting of the run's training, within what a training accepts."""
    value = run.info.training.get(name, 1)
    return min(MOST[name], max(1, value)) if type(value) is int else 1


def _start(planned: Sequence[Planned]) -> None:
    job_actions.book().forget()
    try:
        check_new(planned, job_actions.look())
    except (AptError, OSError) as problem:
        st.error(context.plain(shown(problem)))
        return
    job_actions.queue([partial(context.jobs().submit, each.arguments, each.out) for each in planned])
