"""A run's measures and its audit for the pages, cached until a file that they rest on changes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

import streamlit as st

from analysis.agreement import Effects, layer_effects
from analysis.audit import Audit, audit_run, siblings_of, trained_by_command
from analysis.pages.context import plain
from analysis.pages.gate_data import stamp_of
from analysis.runs import Run
from apt_core.errors import AptError
from apt_core.measure_format import MEASURES_FILE, Measures, read_measures
from apt_core.run_format import ADAPTER_FILE, ADAPTER_FOLDER, GATES_FOLDER


class Audited(NamedTuple):
    """What the pages show of a measured run."""

    measures: Measures
    effects: Effects | None  # of leaving out layers
    audit: Audit


def audited(run: Run) -> Audited | None:
    """The audit of a run; None, with words on what to do shown, if it was not measured or cannot be read."""
    if not run.info.total_tokens:
        st.info("This run has no virtual tokens, so there is nothing to measure.")
        return None
    try:
        if not (run.folder / MEASURES_FILE).exists():
            show_not_measured(run)
            return None
        return _audited(run.folder, _stamp(run), run)
    except (AptError, OSError) as problem:
        st.error(f"The measures of {plain(run.key)} cannot be used: {plain(problem)}")
        return None


def show_not_measured(run: Run) -> None:
    """The empty state: what measures a run."""
    if not trained_by_command(run.info):
        st.info("This run has not been measured. It was made through the Python API: apt_core.measure.measure does it.")
        return
    st.info(
        "This run has not been measured, so there is no evidence for or against its gates. This measures what its "
        "virtual tokens are worth, in about the time of one training epoch and without changing the run:"
    )
    st.code(f"python -m apt_core measure {shlex.quote(str(run.folder))}", language="bash")


def _stamp(run: Run) -> tuple:
    """Changes with the measures, the adapter, the gates or the runs that differ only by seed."""
    files = [_state(run.folder / MEASURES_FILE), _state(run.folder / ADAPTER_FOLDER / ADAPTER_FILE)]
    beside = siblings_of(run)
    return (*files, run.info.data_hash, *((each.name, stamp_of(each.folder / GATES_FOLDER)) for each in (run, *beside)))


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


@st.cache_resource(max_entries=24, show_spinner="Auditing the run")
def _audited(folder: Path, stamp: tuple, _run: Run) -> Audited:
    measures = read_measures(folder, _run.info.prefix_lengths)
    audit = audit_run(_run)
    if audit is None:
        raise AptError(f"{folder}: its measures were removed just now.")
    return Audited(measures, layer_effects(measures), audit)
