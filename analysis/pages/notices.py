"""In the sidebar of every page: how many jobs run and wait, and a notice when one has ended."""

from __future__ import annotations

import streamlit as st

from analysis.job_book import Standing
from analysis.job_progress import board, notices
from analysis.pages import context, job_actions
from analysis.runs import shown
from apt_core.errors import AptError

LOOK_SECONDS = 4
KNOWN = "jobs_known_to_have_ended"
"""ids of which this browser session needs no notice, or has had one"""
_FAILURES = ("failed", "lost")


def show() -> None:
    """Call it in the sidebar, before a page is drawn."""
    with st.sidebar:
        _watch()


@st.fragment(run_every=LOOK_SECONDS)
def _watch() -> None:
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
