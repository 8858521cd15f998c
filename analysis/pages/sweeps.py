"""Sweeps: grids of trainings, how far they are, and what they found. This file: which sweep, and how it stands."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

import streamlit as st

from analysis.pages import context, sweeps_form, sweeps_results
from analysis.pages.charts import choose_image_format
from analysis.runs import Rejected, shown
from analysis.sweep_results import find_sweeps
from apt_core.errors import AptError
from apt_core.jobs import Jobs
from apt_core.jobs.interface import WAITING
from apt_core.jobs.ray_client import checked_address
from apt_core.sweep_format import SWEEP_FILE, Recorded, Sweep
from apt_core.sweep_look import Standing, counts_of, look
from apt_core.sweep_process import driver_log, driver_words, is_driven, jobs_of, start_driver, stop

CHOSEN, CREATED = "sweep", "sweep_created"
"""session state: the chosen one; what was started just now and is to be chosen"""
LOOK_SECONDS = 2
LOG_LINES = 20
SHOWN = 20
"""trainings that are listed one by one"""


def show() -> None:
    st.title("Sweeps")
    st.caption(
        "A grid of tasks, seeds, budgets, ways to share them out and learning rates, trained as jobs, each once. Close "
        "the page whenever you like: it goes on, and the table fills as trainings finish."
    )
    found = find_sweeps(context.chosen_roots())
    _show_rejected(found.rejected)
    folder = _choose(list(found.sweeps))
    if folder is None:
        st.info("There is no sweep in the chosen folders yet. The form below makes one; so does this:")
        st.code("python -m apt_core sweep SPEC.toml", language="bash")
    else:
        choose_image_format()
        recorded = found.sweeps[folder]
        if recorded is None:
            _show_not_begun(Path(folder))
        else:
            _show_sweep(recorded)
    with st.expander("New sweep", icon=":material/add:", expanded=folder is None):
        created = sweeps_form.show(context.roots()[0])
    if created is not None:
        st.session_state[CREATED] = created
        st.rerun()


def _choose(folders: list[str]) -> str | None:
    if not folders:
        return None
    created = st.session_state.pop(CREATED, None)
    if created in folders:
        st.session_state[CHOSEN] = created
    elif st.session_state.get(CHOSEN, folders[0]) not in folders:
        del st.session_state[CHOSEN]
    return st.selectbox("Sweep", folders, key=CHOSEN, bind="query-params", help="Its folder; the latest first.")


def _show_rejected(rejected: list[Rejected]) -> None:
    for folder, reason in rejected:
        st.warning(f"{context.plain(shown(folder))} is not shown: {context.plain(reason)}")


def _show_not_begun(folder: Path) -> None:
    """A spec that is there, while a driver checks it, or after one has refused it."""
    driven = is_driven(folder)

    def show_log() -> None:
        if is_driven(folder) != driven or (folder / SWEEP_FILE).exists():
            st.rerun()
        _show_log(folder, expanded=True)

    if driven:
        st.info("Its data and its backbones are being checked; nothing is trained before that.")
    elif driver_log(folder, LOG_LINES):
        st.error("It has not begun: its driver ended with the words below.")
    else:
        st.info("Here is the spec of a sweep that has not begun.")
    if not driven:
        _start_button("Begin", folder, None)
    st.fragment(show_log, run_every=LOOK_SECONDS)()


def _show_sweep(recorded: Recorded) -> None:
    jobs = None
    try:
        if _is_here(recorded.sweep):
            jobs = jobs_of(recorded.folder, recorded.sweep)
        standings = look(recorded, jobs)
    except (AptError, OSError) as problem:
        jobs, standings = None, look(recorded, None)
        st.warning(f"Its jobs cannot be asked; what follows is from run folders. {context.plain(shown(problem))}")
    if jobs is None:
        _show_elsewhere(recorded, standings)
        return
    finished = {each.training.name: each for each in standings if each.state == "finished"}
    live = is_driven(recorded.folder) or any(each.state in WAITING for each in standings)
    states = _signature(standings)

    def show_live() -> None:
        """Looked at every two seconds while something changes by itself; the page is drawn anew when it has."""
        try:
            now = look(recorded, jobs, finished) if live else standings
        except (AptError, OSError) as problem:
            st.error(f"This sweep cannot be looked at: {context.plain(shown(problem))}")
            return
        if live and (_signature(now) != states or not _goes_on(recorded.folder, now)):
            st.rerun()
        _show_progress(now)

    st.fragment(show_live, run_every=LOOK_SECONDS if live else None)()
    _show_controls(recorded, jobs, standings, live)
    _show_unfinished(standings)
    _show_rest(recorded, standings)


def _show_rest(recorded: Recorded, standings: list[Standing]) -> None:
    """Results, log and command."""
    sweeps_results.show(recorded, standings)
    _show_log(recorded.folder, expanded=False)
    with st.expander("The spec, and the command that goes on with it", icon=":material/terminal:"):
        _show_command(recorded.folder, recorded)


def _is_here(sweep: Sweep) -> bool:
    """Whether its jobs are on this machine or on the cluster that the dashboard was started with; no other is asked.

    A sweep's folder may be somebody else's, and what asks a cluster tells it the token that opens one's own.
    """
    if sweep.executor == "local" or sweep.address is None:  # None: as the environment of this dashboard has it
        return True
    with contextlib.suppress(AptError):
        return checked_address(sweep.address) == context.cluster()
    return False


def _show_elsewhere(recorded: Recorded, standings: list[Standing]) -> None:
    """A sweep whose jobs are not asked: what its run folders say."""
    if not _is_here(recorded.sweep):
        address = shown(recorded.sweep.address)
        words = ["streamlit", "run", "app.py", "--", "--executor", "ray", "--address", address]
        st.info(
            f"Its jobs are on {context.plain(address)}, which this dashboard does not ask: what follows is from "
            "run folders. To follow its jobs, stop it or go on with it, start the dashboard with"
        )
        st.code(shlex.join(words), language="bash", wrap_lines=True)
    _show_progress(standings)
    _show_rest(recorded, standings)


def _signature(standings: list[Standing]) -> list[tuple[str, str | None]]:
    return [(each.state, each.step) for each in standings]


def _goes_on(folder: Path, standings: list[Standing]) -> bool:
    return is_driven(folder) or any(each.state in WAITING for each in standings)


def _show_progress(standings: list[Standing]) -> None:
    counts = counts_of(standings)
    part = sum(each.done for each in standings) / len(standings)
    words = ", ".join(f"{count} {name}" for name, count in counts.items() if name != "done" and count)
    st.progress(part, text=f"{counts['done']} of {len(standings)} done" + (f", {words}" if words else ""))
    for each in standings:
        if each.state == "running":
            step = f", step {each.info.step:,} of {each.info.total_steps:,}" if each.info else ", preparing"
            words = step if each.step == "train" else ""
            st.markdown(f":material/play_circle: {context.plain(each.training.name)} · {each.step}{words}")


def _show_controls(recorded: Recorded, jobs: Jobs, standings: list[Standing], live: bool) -> None:
    if all(each.state == "finished" for each in standings) and not live:
        st.success("Complete: every training of the grid is finished.")
        return
    driven = is_driven(recorded.folder)
    if not driven:
        st.warning(
            "Nobody submits the rest: the driver of this sweep has ended. Going on adopts jobs that still run, keeps "
            "what is finished, and resumes what was interrupted."
        )
    if not context.may_edit():
        return
    with st.container(horizontal=True):
        if live and st.button("Stop", icon=":material/stop:", help="Ends its driver and its jobs; runs stay."):
            context.attempt(lambda: stop(recorded, jobs))
        if not driven:
            _start_button("Go on", recorded.folder, recorded)
            if any(each.state == "failed" for each in standings):
                _start_button("Go on, failed ones too", recorded.folder, recorded, retry_failed=True)


def _start_button(label: str, folder: Path, recorded: Recorded | None, retry_failed: bool = False) -> None:
    if not context.may_edit():
        return
    kind = "secondary" if retry_failed else "primary"
    if st.button(label, key=f"start {label}", type=kind, icon=":material/play_arrow:"):
        sweep = recorded.sweep if recorded is not None else context.new_sweep()
        context.attempt(lambda: start_driver(folder, sweep, retry_failed=retry_failed))


def _show_unfinished(standings: list[Standing]) -> None:
    """What went wrong, with the reason."""
    wrong = [each for each in standings if each.state in ("failed", "cancelled", "interrupted", "another run")]
    if not wrong:
        return
    with st.expander(f"Not finished: {len(wrong)}", icon=":material/error:", expanded=True):
        for each in wrong[:SHOWN]:
            reason = f": {context.plain(shown(each.reason))}" if each.reason else ""
            st.markdown(f"- {context.plain(each.training.name)} · {each.state}{reason}")
        if len(wrong) > SHOWN:
            st.caption(f"and {len(wrong) - SHOWN} more; 'Data' at the table has all")


def _show_log(folder: Path, *, expanded: bool) -> None:
    log = driver_log(folder, LOG_LINES)
    if log:
        with st.expander("What its driver has printed", icon=":material/article:", expanded=expanded):
            st.code(shown(log, 20_000), language=None)


def _show_command(folder: Path, recorded: Recorded) -> None:
    try:
        st.code(shown(sweeps_results.spec_of(folder), 20_000), language="toml")
    except AptError as problem:
        st.error(context.plain(shown(problem)))
    words = ["python", "-m", "apt_core", *driver_words(folder, recorded.sweep)]
    st.code(shlex.join(words), language="bash", wrap_lines=True)
