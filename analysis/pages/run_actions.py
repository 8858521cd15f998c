"""What is done with chosen runs on the Runs page: open, compare, edit, hide, delete; and the trash with its undo."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import streamlit as st

from analysis.pages import context
from analysis.pages.compare import MAX_RUNS, open_compare
from analysis.run_edits import (
    TRASH_FOLDER,
    Trashed,
    delete,
    empty_trash,
    in_sweep,
    rename,
    save_notes,
    trashed,
    undo,
)
from analysis.run_notes import MAX_NOTES, MAX_TAG, MAX_TAGS, read_notes
from analysis.run_table import Entry, entries_of
from analysis.runs import shown
from apt_core.errors import AptError, AptValueError

DIALOG = "runs_dialog"
"""session state: ("edit", [folder]), ("delete", folders) or ("empty", what is in the trash) while it is open"""
DELETED = "runs_deleted"
"""session state: the runs deleted last, for the Undo beside the words"""
OF_SWEEP = "A sweep knows its runs by their folders: they are neither renamed nor deleted here."
FAILED = "runs_failed"
"""session state: why the last action failed"""


def show_bar(bar: Any, chosen: list[Entry]) -> None:
    """The buttons for the chosen rows, in ``bar``: always there, so that the table never moves below the pointer."""
    keys = [entry.run.key for entry in chosen]
    none, not_one = not chosen, len(chosen) != 1
    if bar.button("Gates", icon=":material/grid_on:", disabled=not_one, help="Gates of the one selected run."):
        context.go("gates", run=keys[0])
    said = f"Up to {MAX_RUNS} side by side. Of one run: beside those made from it."
    if bar.button("Compare", icon=":material/balance:", disabled=none, help=said):
        open_compare(keys)
    if context.may_edit():
        _edit_buttons(bar, chosen)
    bar.caption(f"{len(chosen)} selected" if chosen else "Select runs by the boxes below.", width="content")


def _edit_buttons(bar: Any, chosen: list[Entry]) -> None:
    folders = [str(entry.run.folder) for entry in chosen]
    none, not_one = not chosen, len(chosen) != 1
    of_sweep = any(in_sweep(context.roots(), entry.run.folder) for entry in chosen)
    if bar.button("Edit", icon=":material/edit:", disabled=not_one, help="Name, tags and notes of one run."):
        _open_dialog("edit", folders)
    hide = none or not all(entry.notes.hidden for entry in chosen)
    label, icon = ("Hide", ":material/visibility_off:") if hide else ("Show", ":material/visibility:")
    said = "Hidden runs stay on disk; the switch under 'Columns' shows them."
    if bar.button(label, key="hide_runs", icon=icon, disabled=none, help=said):
        for entry in chosen:
            _attempt(save_notes, entry.run.folder, hidden=hide)
        st.rerun()
    said = OF_SWEEP if of_sweep else "Asks first, and can be undone."
    if bar.button("Delete", icon=":material/delete:", disabled=none or of_sweep, help=said):
        _open_dialog("delete", folders)


def show_dialog() -> None:
    """The open dialog, if any, and what the last action has to say."""
    problem = st.session_state.pop(FAILED, None)
    if problem:
        st.error(problem)
    if not context.may_edit():
        return
    _show_undo()
    kind, folders = st.session_state.get(DIALOG, (None, []))
    if kind is None:
        return
    chosen = [entry for entry in entries_of(context.found().runs) if str(entry.run.folder) in folders]
    if kind == "edit" and chosen:
        _edit(chosen[0])
    elif kind == "delete" and chosen:
        _confirm_delete(chosen)
    elif kind == "empty":
        _confirm_empty(folders)


def show_trash() -> None:
    """Deleted runs, each with a button that puts it back, and one that removes all for good."""
    items = trashed(context.chosen_roots()) if context.may_edit() else []
    if not items:
        return
    with st.expander(f"Trash ({len(items)})", icon=":material/delete:"):
        st.caption(f"Deleted runs are in the folder `{TRASH_FOLDER}` beside the others until the trash is emptied.")
        for item in items:
            name = context.plain(shown(f"{item.root.name}/{item.name}"))
            if st.button(f"Put back {name}", key=f"undo {item.folder}", icon=":material/undo:"):
                _undo([item])
        if st.button("Empty trash", icon=":material/delete_forever:"):
            _open_dialog("empty", items)


def _show_undo() -> None:
    there = set(trashed(context.chosen_roots()))
    items = [item for item in st.session_state.get(DELETED, []) if item in there]
    if not items:
        return
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        st.markdown(f"Deleted {', '.join(context.plain(shown(item.name)) for item in items)}.", width="content")
        if st.button("Undo", key="undo", icon=":material/undo:"):
            _undo(items)


def _undo(items: list[Trashed]) -> None:
    for item in items:
        _attempt(undo, item)
    st.rerun()


def _open_dialog(kind: str, about: list[Any]) -> None:
    st.session_state[DIALOG] = (kind, about)
    st.rerun()


def _close_dialog() -> None:
    st.session_state.pop(DIALOG, None)


def _attempt(action: Any, *arguments: Any, **fields: Any) -> Any:
    """Does it; None, with the reason kept for the next look at the page, if that fails or may not be done."""
    try:
        context.check_may_edit()
        return action(context.roots(), *arguments, **fields)
    except (AptError, OSError) as problem:
        st.session_state[FAILED] = context.plain(shown(problem))
        return None


@st.dialog("Edit run", width="medium", icon=":material/edit:", on_dismiss=_close_dialog)
def _edit(entry: Entry) -> None:
    run, notes = entry.run, entry.notes
    if entry.problem:
        st.error(context.plain(entry.problem))
    known = {tag for other in entries_of(context.found().runs) for tag in other.notes.tags}
    running, of_sweep = entry.status == "running", in_sweep(context.roots(), run.folder)
    with st.form("edit", border=False):
        name = st.text_input(
            "Name",
            run.name,
            disabled=running or of_sweep,
            help=OF_SWEEP
            if of_sweep
            else "A run that runs cannot be renamed."
            if running
            else "Of the folder. Runs made from it are told.",
        )
        tags = st.multiselect(
            "Tags",
            sorted(known),
            default=list(notes.tags),
            accept_new_options=True,
            max_selections=MAX_TAGS,
            help=f"Up to {MAX_TAGS}, of at most {MAX_TAG} characters. Type a new one and press Enter.",
        )
        text = st.text_area("Notes", notes.notes, max_chars=MAX_NOTES, height=160)
        with st.container(horizontal=True):
            save = st.form_submit_button("Save", type="primary")
            cancel = st.form_submit_button("Cancel")
    if cancel:
        _close_dialog()
        st.rerun()
    if not save:
        return
    try:
        context.check_may_edit()
        changed = {"tags": tuple(tag.strip() for tag in tags), "notes": text}
        changed = {field: value for field, value in changed.items() if value != getattr(notes, field)}
        _check_unchanged(entry, changed)
        if changed:
            save_notes(context.roots(), run.folder, **changed)
        if name != run.name:
            rename(context.roots(), run.folder, name)
    except (AptError, OSError) as problem:
        st.error(context.plain(shown(problem)))
        return
    _close_dialog()
    st.rerun()


def _check_unchanged(entry: Entry, fields: Iterable[str]) -> None:
    """Refuses to write over what somebody else has written since the dialog was opened.

    Raises:
        AptValueError: naming the field.
    """
    now = read_notes(entry.run.folder)
    for field in fields:
        if getattr(now, field) != getattr(entry.notes, field):
            raise AptValueError(
                f"{field}: somebody has changed them since this was opened. Copy yours, and open it again."
            )


@st.dialog("Delete runs?", icon=":material/delete:", on_dismiss=_close_dialog)
def _confirm_delete(chosen: list[Entry]) -> None:
    said = {"running": " · running, which is refused: cancel it first"}
    st.markdown(
        "\n".join(f"- {context.plain(shown(entry.run.folder))}{said.get(entry.status, '')}" for entry in chosen)
    )
    st.caption(f"They are moved into `{TRASH_FOLDER}` in their folder of runs, and can be put back from there.")
    with st.container(horizontal=True):
        if st.button("Delete", key="confirm", type="primary", icon=":material/delete:"):
            done = [_attempt(delete, entry.run.folder) for entry in chosen]
            st.session_state[DELETED] = [item for item in done if item]
            _close_dialog()
            st.rerun()
        if st.button("Cancel", key="cancel"):
            _close_dialog()
            st.rerun()


@st.dialog("Empty the trash?", icon=":material/delete_forever:", on_dismiss=_close_dialog)
def _confirm_empty(items: list[Trashed]) -> None:
    """For what was in the trash when it was asked for: what somebody else deletes meanwhile is not meant."""
    st.markdown(f"Runs to be removed for good: {len(items)}. This cannot be undone.")
    with st.container(horizontal=True):
        if st.button("Remove for good", key="confirm", type="primary", icon=":material/delete_forever:"):
            try:
                context.check_may_edit()
                empty_trash(context.chosen_roots(), items)
            except (AptError, OSError) as problem:
                st.session_state[FAILED] = context.plain(shown(problem))
            _close_dialog()
            st.rerun()
        if st.button("Cancel", key="cancel"):
            _close_dialog()
            st.rerun()
