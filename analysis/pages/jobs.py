"""Jobs: what runs, what waits and what has ended, on which slots of this machine."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path

import psutil
import streamlit as st

from analysis.job_book import Standing
from analysis.job_progress import FILTERS, board, bytes_words, device_words, matching, taken_over
from analysis.pages import context, job_actions, job_card
from analysis.runs import shown
from apt_core.errors import AptError
from apt_core.jobs import LocalJobs
from apt_core.jobs.places import JOBS_FOLDER

AT_FIRST = {"running": 20, "waiting": 10, "ended": 10}
"""cards of each kind that are drawn before somebody asks for more"""
MORE = 20


def show() -> None:
    st.title("Jobs")
    try:
        standings = job_actions.look()
    except (AptError, OSError) as problem:
        st.error(f"The jobs cannot be listed: {context.plain(shown(problem))}")
        return
    if standings:
        choice = context.choose("Show", FILTERS, "state", "all", help="A failed or lost job can be tried again.")
    else:
        choice = FILTERS[0]
        _show_nothing_yet()
    st.fragment(_show_live, run_every=job_actions.LOOK_SECONDS)(choice, _drawn(standings))
    _show_ended(standings, choice)


def _show_nothing_yet() -> None:
    root = context.roots()[0]
    words = ["python", "-m", "apt_core", "jobs", "submit", *context.jobs_flags(), "train", "--out", str(root / "first")]
    st.info("There is no job yet. Retrain on the Budget page and the Pilot page make some; so does this:")
    st.code(shlex.join(words), language="bash", wrap_lines=True)


def _drawn(standings: list[Standing]) -> tuple:
    """What the part of the page that is not drawn again by itself rests on: how jobs have ended, and the minute."""
    ended = tuple((each.job.id, each.report.state) for each in standings if not each.waits)
    return ended, len(standings) > 0, datetime.now(UTC).replace(second=0, microsecond=0)


def _show_live(choice: str, drawn: tuple) -> None:
    """Slots, and what runs and waits; looked at again every two seconds. When a job has ended, all is drawn anew."""
    try:
        standings = job_actions.look()
    except (AptError, OSError) as problem:
        st.error(f"The jobs cannot be listed: {context.plain(shown(problem))}")
        return
    if _drawn(standings) != drawn:
        st.rerun()
    now = board(standings)
    cluster = context.cluster()
    if cluster:
        st.badge(f"on the cluster {context.plain(cluster)}", icon=":material/lan:")
    else:
        _show_machine(now.running)
    if standings:
        st.caption(f"{now.words}. Those of a sweep are on the Sweeps page.")
    left = board(matching([*now.running, *now.waiting], choice))
    shown_now = left.running[: _count("running")] + left.waiting[: _count("waiting")]
    if not shown_now:
        return
    view = job_card.view_of(shown_now, {})
    for name, kind in (("running", left.running), ("waiting", left.waiting)):
        _show_cards(name, kind, view)


def _show_ended(standings: list[Standing], choice: str) -> None:
    ended = board(matching(standings, choice)).ended
    if ended:
        replaced = taken_over([each.job for each in standings])
        _show_cards("ended", ended, job_card.view_of(ended[: _count("ended")], replaced))
    elif standings and not matching(standings, choice):
        st.info("No job is in this state. 'all' shows every job.")


def _show_cards(name: str, standings: list[Standing], view: job_card.View) -> None:
    if not standings:
        return
    st.subheader(name.capitalize())
    count = _count(name)
    for each in standings[:count]:
        job_card.show_card(each, view)
    left = len(standings) - count
    if left > 0:
        st.button(f"Show {min(left, MORE)} more of {left:,}", key=f"more {name}", on_click=_show_more, args=(name,))


def _count(name: str) -> int:
    return st.session_state.get(f"jobs shown {name}", AT_FIRST[name])


def _show_more(name: str) -> None:
    st.session_state[f"jobs shown {name}"] = _count(name) + MORE


def _of_another(holder: Path) -> str:
    """What has a slot: a job of another folder of runs, such as a sweep's, or one that has just begun or ended."""
    return f"a job of {holder.parent.parent.name}" if holder.parent.name == JOBS_FOLDER else "a job"


def _show_machine(running: list[Standing]) -> None:
    """The slots of this machine, busy ones with their job, and its memory."""
    busy = {each.report.device: job_actions.short_name(each.job) for each in running if each.report.device}
    names: dict[str, str | None] = {}
    try:
        holders = LocalJobs(context.roots()[0] / JOBS_FOLDER).slots()
        names = {slot: None if holder is None else _of_another(holder) for slot, holder in holders.items()}
    except (AptError, OSError) as problem:
        st.error(context.plain(shown(problem)))
    memory = psutil.virtual_memory()
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        for slot, name in (names | busy).items():
            st.badge(
                f"{context.plain(shown(device_words(slot)))}: {context.plain(shown(name or 'free', 60))}",
                icon=":material/memory:",
                color="blue" if name else "gray",
            )
        st.caption(
            f"{bytes_words(memory.available)} of {bytes_words(memory.total)} memory available",
            width="content",
            help="Of this machine. A slot is what a job waits for: see 'Slots' in docs/jobs.md.",
        )
