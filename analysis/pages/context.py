"""What every page shares: the folders of runs, the choice of a run, cached gates, and how errors are shown."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import isinf
from pathlib import Path
from typing import Literal

import streamlit as st
from streamlit.errors import StreamlitAPIException

from analysis.pages import access
from analysis.runs import Found, Run, find_runs, shown
from apt_core.errors import AptError, AptValueError
from apt_core.jobs import Jobs
from apt_core.jobs.places import place
from apt_core.jobs.ray_client import checked_address
from apt_core.sweep_format import Sweep

WANTED = "wanted"
WAIT_SECONDS = 5
"""between two looks at folders without a run"""


def roots() -> list[Path]:
    """Folders of runs, as given by ``streamlit run app.py -- --runs DIR``; new runs go to the first."""
    return [Path(root) for root in access.flags().runs]


def may_edit() -> bool:
    """Whether this session may change runs and start trainings, see ``analysis.access``; asked before a button."""
    return access.access().may_edit


def check_may_edit() -> None:
    """The same, asked by an action at the moment that it acts.

    Raises:
        AptValueError: with the reason.
    """
    now = access.access()
    if not now.may_edit:
        raise AptValueError(now.reason)


def allowed_data() -> list[Path] | None:
    """Folders in which data may be named on a page (``-- --data DIR``); None: anywhere, while only this machine can."""
    return [Path(folder) for folder in access.flags().data] if access.access().shared else None


def chosen_roots() -> list[Path]:
    """The folders that the sidebar's choice leaves."""
    chosen = st.session_state.get("folders")
    return [root for root in roots() if not chosen or str(root) in chosen]


def choose_roots() -> None:
    """The sidebar's choice of run folders."""
    options = [str(root) for root in roots()]
    with st.sidebar:
        st.pills(
            "Run folders",
            options,
            selection_mode="multi",
            default=options,
            key="folders",
            persist_state="session",
            help="Which folders are shown. Start the app with `-- --runs DIR` (repeatable) for others; "
            "new runs are written to the first.",
        )


def found() -> Found:
    """The runs in the chosen folders, newest first."""
    return find_runs(chosen_roots())


def cluster() -> str | None:
    """The address of the Ray cluster where trainings run; None: on this machine."""
    flags = access.flags()
    return checked_address(flags.address) if flags.executor == "ray" else None


def jobs_flags() -> list[str]:
    """The words of ``python -m apt_core jobs`` that mean the same jobs."""
    address = cluster()
    return ["--executor", "ray", "--address", address] if address else ["--runs", str(roots()[0])]


def jobs() -> Jobs:
    """Trainings that this dashboard's folder, or the cluster that it was started with, knows of.

    On a cluster, new ones write their run folders themselves: pages show what is in a folder here.
    """
    flags = access.flags()
    shared = {"storage": ""} if flags.executor == "ray" else {}
    return place(roots()[0], executor=flags.executor, address=flags.address, **shared)


def new_sweep() -> Sweep:
    """What a sweep that this dashboard starts runs on."""
    return Sweep(executor=access.flags().executor, address=cluster())


def go(page: str, **query: str | list[str]) -> None:
    """Opens another page as an address with ``query`` would.

    What that page's widgets were before is forgotten first: Streamlit drops it only once a page was run to its end,
    and who clicks faster than that would be shown the old choice.
    """
    for key in query:
        st.session_state.pop(key, None)
    try:
        st.switch_page(st.session_state["pages"][page], query_params=query)
    except StreamlitAPIException:  # one of them is a control of this page: ``choose_run`` takes them over there
        st.session_state[WANTED] = query
        st.switch_page(st.session_state["pages"][page], query_params={})


def offer(page: str, label: str, run: str, where: str = "") -> None:
    """A button that opens a page on a run; a link would show the one that was looked at last, which Streamlit keeps.

    Args:
        page: its name.
        label: of the button.
        run: its key.
        where: tells it from another button for the same on the same page.
    """
    if st.session_state.get("pages") and st.button(
        label, key=f"open {page} {run} {where}", type="tertiary", icon=":material/arrow_outward:"
    ):
        go(page, run=run)


def attempt(action: Callable[[], object]) -> None:
    """Does it and draws the page anew; shows why where that fails."""
    try:
        check_may_edit()
        action()
    except (AptError, OSError) as problem:
        st.error(plain(shown(problem)))
        return
    st.rerun()


def plain(text: object) -> str:
    """Text from a file, safe to place into Markdown."""
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]()<>#+-.!|~$:&" else letter for letter in str(text))


def choose_run(label: str, key: str = "run") -> Run | None:
    """A selection box over all runs, in the URL as ``key``; None, with words on what to do, if there is none.

    At first the newest is chosen, and the address names it too: one that is kept shows the same run tomorrow.
    """
    runs = found().runs
    if not runs:
        show_no_runs()
        return None
    for name, value in st.session_state.pop(WANTED, {}).items():
        _put(name, value)
    by_key = {run.key: run for run in runs}
    wanted = st.session_state.get(key) or st.query_params.get(key)
    if wanted and wanted not in by_key:
        st.warning(
            f"{plain(shown(wanted))} is not in the chosen folders: it was deleted or renamed, or its folder is not "
            "chosen. This is the newest run."
        )
    if wanted not in by_key or key not in st.query_params:
        _put(key, wanted if wanted in by_key else runs[0].key)
    chosen = st.selectbox(
        label, list(by_key), index=None, required=True, key=key, bind="query-params", help="Newest first: folder/run."
    )
    return by_key.get(chosen, runs[0])  # none, where the script runs without a browser


def show_no_runs() -> None:
    """The empty state: what makes a first run."""
    st.info("There is no run in the chosen folders yet. This makes one, in about three minutes on two CPU cores:")
    st.code(f"python -m apt_core train --out {shlex.quote(str(roots()[0] / 'first'))}", language="bash")
    st.fragment(_wait_for_runs, run_every=WAIT_SECONDS)()


def _wait_for_runs() -> None:
    if found().runs:
        st.rerun()


def choose(
    label: str,
    options: Sequence[str],
    key: str,
    default: str,
    help: str | None = None,
    format_func: Callable[[str], str] = str,
) -> str:
    """One of a few options side by side, in the URL as ``key``; an address with an empty value means the default."""
    empty = key in st.query_params and not any(st.query_params.get_all(key))
    chosen = st.segmented_control(
        label,
        options,
        default=default,
        required=True,
        key=key,
        bind=_forget(key) if empty else "query-params",
        help=help,
        format_func=format_func,
    )
    return default if chosen is None else chosen


def bind(key: str) -> Literal["query-params"] | None:
    """``bind`` of a number: none while the address has an infinite one, which Streamlit cannot make an integer."""
    return _forget(key) if any(_infinite(value) for value in st.query_params.get_all(key)) else "query-params"


def _infinite(value: str) -> bool:
    try:
        return isinf(float(value))
    except ValueError:
        return False


def _put(key: str, value: str | list[str]) -> None:
    """Gives a control that is not drawn yet its value, and the address, which a first value does not reach."""
    with suppress(StreamlitAPIException):  # bound already: then it does
        st.query_params[key] = value
    st.session_state[key] = value


def _forget(key: str) -> None:
    """Drops what no widget can take from the address; if one is bound to it, Streamlit drops it as that is unbound."""
    with suppress(StreamlitAPIException):
        del st.query_params[key]
