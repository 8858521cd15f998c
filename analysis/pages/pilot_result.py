"""The last steps of the Pilot page: the decision with what it rests on, and the report."""

from __future__ import annotations

import shlex

import pandas as pd
import streamlit as st

from analysis.figures.arms import arms_by_metric, arms_figure
from analysis.pages import context
from analysis.pages.audit_data import audited
from analysis.pages.charts import show_figure
from analysis.pages.pilot_steps import LOOK_SECONDS, Place
from analysis.pilot import look
from analysis.pilot_caveats import caveats
from analysis.pilot_decision import KEEP, PRUNE, PilotDecision, decision_of, rules, signed
from analysis.pilot_files import pilot_path
from analysis.report import gather, report_html
from analysis.runs import shown
from apt_core.errors import AptError
from apt_core.estimates import CONFIDENCE
from apt_core.jobs.interface import WAITING
from apt_core.measure_format import MEASURES_FILE
from apt_core.metric_names import lower_is_better


def show_decision(place: Place) -> None:
    """The answer, its numbers, its caveats, and the one look at the test split."""
    found = place.found
    decision = decision_of(place.pilot, found)
    if decision is None:
        st.info("No metric was measured, so there is nothing to decide on.")
        return
    box = {PRUNE: st.success, KEEP: st.error}.get(decision.outcome, st.warning)
    box(f"**{context.plain(decision.headline)}**")
    for sentence in decision.sentences:
        st.markdown(context.plain(sentence))
    st.caption("The rules: " + context.plain(" ".join(rules(decision.tolerance, decision.unit))))
    show_figure(
        arms_figure(arms_by_metric(decision.arms, decision.metric_name, decision.split)),
        "arms",
        f"{place.name}-arms",
        lambda: _values(place, decision),
        f"Every seed, and the mean with its {CONFIDENCE:.0%} interval. Intervals of two arms may overlap although "
        "their difference, paired by seed, is clear.",
    )
    better = "lower" if lower_is_better(decision.metric_name) else "higher"
    whole = st.column_config.NumberColumn(format="localized")
    st.dataframe(
        _arms(decision),
        hide_index=True,
        width="stretch",
        key="pilot arms",
        column_config={"trained parameters": whole},
    )
    st.caption(f"Means over seeds with half the length of their {CONFIDENCE:.0%} interval; {better} is better.")
    st.dataframe(_differences(decision), hide_index=True, width="content", key="pilot differences")
    st.caption(f"Paired by seed, in {context.plain(decision.unit)}; positive: the first is better.")
    first = found.first.run
    audit = audited(first) if first is not None and (first.folder / MEASURES_FILE).exists() else None
    with st.expander("Caveats", icon=":material/warning:"):
        for sentence in caveats(place.pilot, found, decision, audit.audit if audit else None):
            st.markdown(f"- {context.plain(sentence)}")
    _test(place, decision)


def show_report(place: Place) -> None:
    """The download; the file is made when it is asked for."""
    if decision_of(place.pilot, place.found) is None:
        st.info("There is nothing to report before something was decided.")
        return
    st.markdown(
        "One HTML file of about 5 MB: question, answer, figures, tables, caveats, setting, and the commands that "
        "repeat it. It opens in any browser without a network, prints well, and names no folder of this machine."
    )
    st.download_button(
        "Download the report",
        lambda: report_html(gather(place.name, place.pilot, place.root, place.jobs)).encode(),
        f"{place.name}-report.html",
        "text/html",
        type="primary",
        icon=":material/download:",
        on_click="ignore",
    )
    path = shlex.quote(str(pilot_path(place.root, place.name)))
    st.code(f"python -m analysis report {path} --out {shlex.quote(f'{place.name}-report.html')}", language="bash")


def _test(place: Place, decision: PilotDecision) -> None:
    runs = [each.run for each in place.found.trainings if each.run is not None and each.state == "finished"]
    states = [place.found.testing.get(run.name) for run in runs]
    if any(state in WAITING for state in states):
        _watch_test(place)
        return
    if any(each.waits for each in place.found.trainings):
        return  # one look, once all that comes by itself is there
    left = [run for run in runs if run.metric("test") is None]
    if not left or decision.split == "test":
        return
    if not place.pilot.has_test:
        st.caption("The data has no test split: what was decided on validation cannot be confirmed on examples unseen.")
        return
    st.markdown("**Test split.** It chose nothing, so its numbers flatter nobody, as long as it is looked at once.")
    failed = [state for state in states if state not in (None, "finished")]
    if failed:
        st.error(f"Measuring the test split has ended for {len(failed)} runs: {', '.join(sorted(set(failed)))}.")
    if context.may_edit() and st.button("Measure the test split once", icon=":material/lock_open:"):
        try:
            context.check_may_edit()
            for run in left:
                place.jobs.submit(["evaluate", str(run.folder), "--split", "test"], run.folder)
        except (AptError, OSError) as problem:
            st.error(context.plain(shown(problem)))
            return
        st.rerun()


def _watch_test(place: Place) -> None:
    before = place.found.testing

    def show() -> None:
        now = look(place.name, place.pilot, place.root, place.jobs).testing
        if not any(state in WAITING for state in now.values()):
            st.rerun()
        done = sum(state not in WAITING for state in now.values())
        st.progress(done / len(now), text=f"Measuring the test split: {done} of {len(before)} done")

    st.fragment(show, run_every=LOOK_SECONDS)()


def _arms(decision: PilotDecision) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "arm": arm.arm,
            "virtual tokens": arm.tokens,
            "trained parameters": arm.trained_parameters,
            f"{decision.split} {decision.metric_name}": arm.metric.mean,
            "±": arm.metric.half,
            "seeds": arm.metric.count,
            "training (s)": arm.seconds.mean,
        }
        for arm in decision.arms
    )


def _differences(decision: PilotDecision) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "difference": f"{each.arm} against {each.against}",
            f"{decision.split} {decision.metric_name} ({CONFIDENCE:.0%} interval)": signed(each.better, decision.unit),
            "pairs": each.better.count,
        }
        for each in decision.compared
    )


def _values(place: Place, decision: PilotDecision) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "arm": arm.arm,
            "seed": seed,
            "split": decision.split,
            "metric": decision.metric_name,
            "value": value,
            "virtual_tokens": arm.tokens,
            "trained_parameters": arm.trained_parameters,
        }
        for arm in decision.arms
        for seed, value in zip(place.pilot.seeds, arm.values, strict=True)
    )
