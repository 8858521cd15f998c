"""Pilot: a guided path from a question to a decision, each step a click. This file: which pilot, new ones, deletion."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from analysis.pages import access, context, pilot_form, pilot_result, pilot_steps
from analysis.pages.charts import choose_image_format
from analysis.pilot import STEPS, Pilot, current_step, look
from analysis.pilot_decision import decision_of
from analysis.pilot_files import PILOTS_FOLDER, delete_pilot, find_pilots, undo_delete
from analysis.runs import Rejected, shown
from apt_core.errors import AptError
from apt_core.measure_format import MEASURES_FILE

CHOSEN, NEW, CREATED = "pilot", "pilot_new", "pilot_created"
"""session state: the chosen one; whether the form is open; what was made just now and is to be chosen"""
DELETING, DELETED, FAILED = "pilot_deleting", "pilot_deleted", "pilot_failed"
"""session state: the name asked about; where what was deleted last is now; why the last action failed"""
ICONS = {
    "done": ":material/check_circle:",
    "now": ":material/radio_button_checked:",
    "provisional": ":material/pending:",
    "skipped": ":material/remove_circle:",
}


def show() -> None:
    st.title("Pilot")
    st.caption(
        "Try on a little data whether fewer virtual tokens will do, before anybody invests in more: train, audit, "
        "choose a budget, retrain with several seeds, decide, and hand on a report. Close the page whenever you like: "
        "trainings go on, and everything is found again from the run folders."
    )
    root = context.roots()[0]
    found = find_pilots(root)
    _show_undo(root)
    name = _choose(list(found.pilots))
    _show_rejected(found.rejected)
    if st.session_state.get(NEW) or name is None:
        _show_new(root, bool(found.pilots))
    elif name in found.pilots:
        choose_image_format()
        _show_steps(name, found.pilots[name], root)
    if st.session_state.get(DELETING) in found.pilots:
        _confirm_delete(root, st.session_state[DELETING])


def _choose(names: list[str]) -> str | None:
    if not names:
        return None
    created = st.session_state.pop(CREATED, None)
    if created in names:
        st.session_state[CHOSEN] = created
    elif st.session_state.get(CHOSEN, names[0]) not in names:
        del st.session_state[CHOSEN]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox("Pilot", names, key=CHOSEN, bind="query-params", help="Newest first.")
        if context.may_edit():
            if st.button("New pilot", icon=":material/add:"):
                st.session_state[NEW] = True
                st.rerun()
            if st.button("Delete pilot", icon=":material/delete:", help="Asks first, and can be undone. Runs stay."):
                st.session_state[DELETING] = name
                st.rerun()
    return name


def _show_new(root: Path, others: bool) -> None:
    if not context.may_edit():
        st.info(f"There is no pilot in this folder of runs. {context.plain(access.access().reason)}")
        return
    created = pilot_form.show(root)
    if created is not None:
        st.session_state[CREATED] = created
        st.session_state.pop(NEW, None)
        st.rerun()
    if others and st.button("Cancel", key="cancel new"):
        st.session_state.pop(NEW, None)
        st.rerun()


def _show_steps(name: str, pilot: Pilot, root: Path) -> None:
    """The stepper: done, now, to come."""
    jobs = context.jobs()
    try:
        found = look(name, pilot, root, jobs)
    except (AptError, OSError) as problem:
        st.error(f"This pilot cannot be looked at: {context.plain(shown(problem))}")
        return
    measured = found.first.run is not None and (found.first.run.folder / MEASURES_FILE).exists()
    now = current_step(pilot, found, measured)
    place = pilot_steps.Place(name, pilot, root, jobs, found, now)
    st.markdown(f"**{context.plain(pilot.question or 'How few virtual tokens are enough?')}**")
    showing = (
        pilot_steps.show_question,
        pilot_steps.show_train,
        pilot_steps.show_audit,
        pilot_steps.show_budget,
        pilot_steps.show_retrain,
        pilot_result.show_decision,
        pilot_result.show_report,
    )
    for number, (title, show_step) in enumerate(zip(STEPS, showing, strict=True), start=1):
        if not _is_open(number, place):
            costs = pilot_steps.cost_of(number, place)
            st.markdown(f":material/radio_button_unchecked: :gray[{number} · {title} · to come{costs}]")
            continue
        done = number < now
        state = "now" if not done else "skipped" if number == 3 and not measured else "done"
        state = "provisional" if number > now == 5 else state
        expanded = not done or show_step is pilot_result.show_decision
        with st.expander(f"{number} · {title} · {state}", icon=ICONS[state], expanded=expanded):
            show_step(place)


def _is_open(number: int, place: pilot_steps.Place) -> bool:
    """Whether a step can be looked at: what is done, what is now, the budget already beside a missing audit, and an
    answer, provisional, as soon as there is one: a training that keeps failing must not hide it."""
    if place.now == 5 and number > 5:
        return decision_of(place.pilot, place.found) is not None
    return number <= place.now or (place.now == 3 and number == 4)


def _show_rejected(rejected: list[Rejected]) -> None:
    if not rejected:
        return
    with st.expander(f"Not readable ({len(rejected)})", icon=":material/error:"):
        for item in rejected:
            st.markdown(f"- {context.plain(shown(item.folder.name))}: {context.plain(item.reason)}")


def _show_undo(root: Path) -> None:
    problem = st.session_state.pop(FAILED, None)
    if problem:
        st.error(problem)
    trashed = st.session_state.get(DELETED)
    if trashed is None or not trashed.exists() or not context.may_edit():
        return
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        st.markdown(f"Deleted pilot {context.plain(trashed.stem)}. Its runs are still there.", width="content")
        if st.button("Undo", key="undo pilot", icon=":material/undo:"):
            try:
                context.check_may_edit()
                st.session_state[CREATED] = undo_delete(root, trashed)
                st.session_state.pop(DELETED)
            except (AptError, OSError) as problem:
                st.session_state[FAILED] = context.plain(shown(problem))
            st.rerun()


def _close_dialog() -> None:
    st.session_state.pop(DELETING, None)


@st.dialog("Delete pilot?", icon=":material/delete:", on_dismiss=_close_dialog)
def _confirm_delete(root: Path, name: str) -> None:
    st.markdown(
        f"{context.plain(name)} is moved into the trash in `{PILOTS_FOLDER}`. Its runs stay, and trainings that run "
        "go on: cancel them first if they should not."
    )
    with st.container(horizontal=True):
        if st.button("Delete", key="confirm delete pilot", type="primary", icon=":material/delete:"):
            try:
                context.check_may_edit()
                st.session_state[DELETED] = delete_pilot(root, name)
            except (AptError, OSError) as problem:
                st.session_state[FAILED] = context.plain(shown(problem))
            _close_dialog()
            st.rerun()
        if st.button("Cancel", key="cancel delete pilot"):
            _close_dialog()
            st.rerun()
