"""What pages do with jobs: look at them, queue some, end some; and say what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import streamlit as st

from analysis.job_book import JobBook, Standing
from analysis.pages import context
from analysis.runs import shown
from apt_core.errors import AptError
from apt_core.jobs import Job

LOOK_SECONDS = 2
ENDED_HERE = "jobs_ended_here"
"""ids that this browser session has cancelled: nobody needs a notice of what they did themselves"""
STATE_ICONS = {
    "queued": ":material/hourglass_empty:",
    "running": ":material/play_circle:",
    "finished": ":material/check_circle:",
    "failed": ":material/error:",
    "lost": ":material/help:",
    "cancelled": ":material/cancel:",
}


def book() -> JobBook:
    """What the app knows of this dashboard's jobs, all browsers together."""
    return _book(str(context.roots()[0]))


def look() -> list[Standing]:
    """All jobs and how they stand, the newest first.

    Raises:
        AptError, OSError: if they cannot be listed.
    """
    return book().look(context.jobs())


def queue(submits: Sequence[Callable[[], Job]]) -> bool:
    """Queues jobs one after the other, and says which, or why not all; whether all are queued."""
    jobs: list[Job] = []
    try:
        context.check_may_edit()
        for submit in submits:
            jobs.append(submit())
    except (AptError, OSError) as problem:
        before = f" The {len(jobs)} before it are queued." if jobs else ""
        st.error(context.plain(shown(f"{problem}{before}")))
    book().forget()
    if jobs:
        st.toast(f"Queued: {context.plain(shown(', '.join(map(short_name, jobs))))}", icon=STATE_ICONS["queued"])
    return len(jobs) == len(submits)


def cancel(jobs: Sequence[Job]) -> bool:
    """Ends jobs, without a notice in this browser, and says why if that fails; whether all were asked to end."""
    st.session_state.setdefault(ENDED_HERE, set()).update(job.id for job in jobs)
    try:
        context.check_may_edit()
        with st.spinner("Ending it and every process that it started..."):
            for job in jobs:
                context.jobs().cancel(job.id)
    except (AptError, OSError) as problem:
        st.error(context.plain(shown(problem)))
        return False
    finally:
        book().forget(*(job.id for job in jobs))
    return True


def link_to_jobs(label: str, icon: str = ":material/pending_actions:") -> None:
    """A link to the Jobs page; none where a page is shown outside the app."""
    pages = st.session_state.get("pages")
    if pages:
        st.page_link(pages["jobs"], label=label, icon=icon)


def short_name(job: Job) -> str:
    """The name of the folder that a job writes."""
    return Path(job.run_folder).name


@st.cache_resource(show_spinner=False)
def _book(place: str) -> JobBook:
    return JobBook()
