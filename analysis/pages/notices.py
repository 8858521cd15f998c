"""In the sidebar of every page: how many jobs and sweeps run and wait, and a notice when one has ended."""

from __future__ import annotations

from contextlib import suppress

import streamlit as st

from analysis.job_book import Standing
from analysis.job_progress import board, notices
from analysis.pages import context, job_actions
from analysis.runs import shown
from analysis.sweep_results import driven_sweeps, ended_words
from apt_core.errors import AptError
from apt_core.sweep_format import read_recorded
from apt_core.sweep_look import look

LOOK_SECONDS = 4
SWEEPS = "sweeps_known_to_run"
"""folders of sweeps that had a driver at the last look of this browser session"""
KNOWN = "jobs_known_to_have_ended"
"""ids of which this browser session needs no notice, or has had one"""
_FAILURES = ("failed", "lost")


def show() -> None:
    """Call it in the sidebar, before a page is drawn."""
    with st.sidebar:
        _watch()


@st.fragment(run_every=LOOK_SECONDS)
def _watch() -> None:
    _watch_jobs()
    _watch_sweeps()


def _watch_jobs() -> None:
    try:
        standings = job_actions.look()
    except (AptError, OSError):  # the Jobs page says so; here it would be said on every page
        return
    for state, words in notices(_just_ended(standings)):
        icon = job_actions.STATE_ICONS[state]
        st.toast(context.plain(shown(words)), icon=icon, duration="infinite" if state in _FAILURES else "long")
    now = board(standings)._replace(ended=[])
    if now.words:
        job_actions.link_to_jobs(now.words)


def _watch_sweeps() -> None:
    """A sweep's own jobs end by the dozen, so that the sweep as a whole has one notice."""
    driven = driven_sweeps(context.chosen_roots())
    ended = st.session_state.get(SWEEPS, set()) - set(driven)
    st.session_state[SWEEPS] = set(driven)
    for folder in sorted(ended):
        with suppress(AptError, OSError):  # removed meanwhile, or refused before it began: its page says so
            complete, words = ended_words(folder.name, look(read_recorded(folder), None))
            icon = job_actions.STATE_ICONS["finished" if complete else "failed"]
            st.toast(context.plain(shown(words)), icon=icon, duration="long" if complete else "infinite")
    pages = st.session_state.get("pages")
    if driven and pages:
        label = "1 sweep at work" if len(driven) == 1 else f"{len(driven)} sweeps at work"
        query = {"sweep": driven[0].as_posix()} if len(driven) == 1 else None
        st.page_link(pages["sweeps"], label=label, icon=":material/apps:", query_params=query)


def _just_ended(standings: list[Standing]) -> list[Standing]:
    """Jobs that have ended since the last look; what had ended before this session began is known."""
    ended = [each for each in standings if not each.waits]
    known = st.session_state.get(KNOWN)
    st.session_state[KNOWN] = {each.job.id for each in ended}
    if known is None:
        return []
    by_hand = st.session_state.get(job_actions.ENDED_HERE, set())
    return [
        each
        for each in ended
        if each.job.id not in known and not (each.report.state == "cancelled" and each.job.id in by_hand)
    ]
