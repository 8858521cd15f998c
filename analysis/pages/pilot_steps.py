"""The steps of the Pilot page up to the last training: question, train, audit, budget, retrain."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import streamlit as st

from analysis.job_progress import left_words, seconds_left
from analysis.live_training import pace_of
from analysis.pages import context, job_actions, job_card
from analysis.pages.audit_data import audited
from analysis.pages.gate_data import open_gates, weights_of
from analysis.pilot import Look, Pilot, TrainingState, arguments_of, look, start
from analysis.pilot_costs import duration, slots_for, training_seconds
from analysis.pilot_decision import unit_of
from analysis.pilot_files import save_pilot
from analysis.pilot_proposal import KEPT_PERCENT, propose
from analysis.run_table import lengths_text
from analysis.runs import Run, shown
from analysis.verdict import CARE, FOLLOW, ORDERS, UNIFORM
from apt_core.errors import AptError
from apt_core.jobs import Job, Jobs
from apt_core.measure_format import IMPORTANCES

LOOK_SECONDS = 2
ICONS = {
    "queued": ":material/hourglass_empty:",
    "running": ":material/play_circle:",
    "finished": ":material/check_circle:",
    "to start": ":material/radio_button_unchecked:",
}


class Place(NamedTuple):
    """What every step needs."""

    name: str
    pilot: Pilot
    root: Path
    jobs: Jobs
    found: Look
    now: int  # number of the step that is next


def cost_of(number: int, place: Place) -> str:
    """What a step that is to come takes, in words that go on after its title; empty if next to nothing."""
    if number == 2:
        return f" · 1 training, {_time(place, 1)}"
    if number == 5:
        count = 3 * len(place.pilot.seeds) - 1
        return f" · up to {count} trainings, {_time(place, count)}"
    return ""


def _time(place: Place, count: int) -> str:
    each = training_seconds(place.pilot, context.found().runs)
    if each is None:
        return "time not known before the first training"
    try:
        slots = slots_for(place.pilot.device)
    except AptError:  # a setting of the machine that the Jobs page names
        slots = 1
    return duration(each * -(-count // min(count, slots)))


def show_question(place: Place) -> None:
    """What was asked for; it is not changed any more, so that runs and pilot stay the same question."""
    pilot = place.pilot
    sizes = ", ".join(f"{count:,} {split}" for split, count in pilot.split_sizes.items())
    data = ", ".join(f"{name} {value}" for name, value in pilot.source.given().items()) or "built in"
    rows = {
        "task": pilot.task,
        "data": data,
        "examples": sizes or "not counted",
        "examples per class": pilot.shots or "all",
        "backbone": pilot.model,
        "full length": f"{pilot.num_virtual_tokens} virtual tokens in every layer",
        "epochs": pilot.epochs,
        "seeds": ", ".join(map(str, pilot.seeds)),
        "accepted cost": f"{pilot.tolerance:g} {unit_of(pilot.task)}",
    }
    st.table(pd.DataFrame({"": [shown(str(value)) for value in rows.values()]}, index=list(rows)).map(context.plain))


def show_train(place: Place) -> None:
    """The first training: full length, first seed."""
    state = place.found.first
    st.markdown(f"One training with {place.pilot.num_virtual_tokens} virtual tokens in every layer, {_time(place, 1)}.")
    _show_foreign([state])
    _commands([state], place)
    if state.can_start and context.may_edit():
        again = state.state != "to start"
        if st.button("Start again" if again else "Start the training", type="primary", icon=":material/play_arrow:"):
            _start([state], place)
    if state.state != "to start":
        _live(place, lambda found: [found.first])


def show_audit(place: Place) -> None:
    """Whether the gates may be believed; or what is to do to know."""
    run = place.found.first.run
    if run is None:
        return
    measuring = place.found.measuring is not None and place.found.measuring.waits
    found = None if measuring else audited(run)
    if found is None:
        _measure(place, run)
        return
    audit = found.audit
    box = {FOLLOW: st.success, CARE: st.warning}.get(audit.verdict, st.error)
    box(context.plain(audit.headline))
    for check in audit.checks:
        st.markdown(f"- {check.level}: {context.plain(check.text)}")
    context.offer("evidence", "All the evidence", run.key)


def _measure(place: Place, run: Run) -> None:
    state = place.found.measuring
    if state is not None and state.waits:
        st.caption("It measures what its virtual tokens are worth, in about the time of one epoch.")
        _live(place, lambda found: [found.measuring] if found.measuring else [])
        return
    if state is not None and state.job is not None and state.state != "finished":
        st.error(f"Measuring has ended: {state.state}.")
        _log(state)
    if context.may_edit() and st.button("Measure now", type="primary", icon=":material/science:"):
        context.attempt(lambda: place.jobs.submit(["measure", str(run.folder)], run.folder))


def show_budget(place: Place) -> None:
    """Total and lengths; settled by a click, and changed as long as nothing was trained with them."""
    run, budget = place.found.first.run, place.pilot.budget
    if run is None:
        return
    if budget is None:
        _propose(place, run)
        return
    _lengths_table(run.info.prefix_lengths, budget.prefix_lengths, budget.baseline)
    st.markdown(
        f"{budget.total} of {run.info.total_tokens} virtual tokens, "
        f"{'spread evenly' if budget.weighed_by == UNIFORM else 'shared out by ' + ORDERS[budget.weighed_by]}."
    )
    others = [each for each in place.found.trainings if each.training.arm != "full"]
    if any(each.waits or each.run is not None for each in others):
        st.caption("Trainings with these lengths run or were made, so they stay. A new pilot can try others.")
    elif context.may_edit() and st.button("Change the budget", icon=":material/edit:"):
        _save(place, place.pilot.model_copy(update={"budget": None}))


def _propose(place: Place, run: Run) -> None:
    gates = open_gates(run)
    if gates is None:
        return
    found = audited(run) if place.now > 3 else None
    measured = list(found.measures.importance) if found else ["gate"]
    options = [*(name for name in IMPORTANCES if name in measured), UNIFORM]
    use = found.audit.use if found and found.audit.use in options else "gate"
    if found is None:
        st.warning("Without an audit nobody knows whether the gates may be believed. It comes first for a reason.")
    cells = st.columns(2)
    total = cells[0].number_input(
        "Virtual tokens to keep",
        min_value=1,
        max_value=run.info.total_tokens,
        value=max(1, run.info.total_tokens * KEPT_PERCENT // 100),
        help=f"Over all layers; the full length has {run.info.total_tokens}. At the start: {KEPT_PERCENT} %.",
    )
    by = cells[1].selectbox(
        "Share out by",
        options,
        index=options.index(use),
        format_func=lambda name: "evenly (uniform)" if name == UNIFORM else ORDERS[name],
        help="At the start: what the audit recommends. Evenly means that only the total is tried, not its split.",
    )
    try:
        proposal = propose(int(total), by, weights_of(gates), found.measures if found else None)
    except AptError as problem:
        st.error(context.plain(shown(problem)))
        return
    budget = proposal.budget
    _lengths_table(run.info.prefix_lengths, budget.prefix_lengths, budget.baseline)
    if proposal.weighed is not None:
        st.caption(f"In proportion to the layers' sums of {ORDERS[by]}, {context.plain(proposal.weighed.source)}.")
    if budget.prefix_lengths == budget.baseline:
        st.info("These lengths are uniform: full length and uniform are compared, and there is no pruned arm.")
    if context.may_edit() and st.button("Use these lengths", type="primary", icon=":material/check:"):
        _save(place, place.pilot.model_copy(update={"budget": budget}))


def _lengths_table(full: Sequence[int], pruned: Sequence[int], even: Sequence[int]) -> None:
    st.dataframe(
        pd.DataFrame({"layer": range(1, len(full) + 1), "full": full, "budget": pruned, "uniform": even}),
        hide_index=True,
        width="content",
    )


def show_retrain(place: Place) -> None:
    """All other trainings by one click, and how they go."""
    rest = place.found.trainings[1:]
    left = [each for each in rest if each.can_start]
    _show_foreign(rest)
    budget = place.pilot.budget
    if budget is not None:
        st.markdown(
            f"{len(rest)} trainings: the budget ({lengths_text(budget.prefix_lengths)}), uniform lengths of the same "
            f"total where they differ ({lengths_text(budget.baseline)}), and the full length with the other seeds."
        )
    if left:
        st.caption(f"{len(left)} to start: {_time(place, len(left))}, as many at once as this machine has slots.")
    _commands(rest, place)
    if left and context.may_edit():
        label = f"Start all {len(left)} trainings" if len(left) == len(rest) else f"Start what is left ({len(left)})"
        if st.button(label, type="primary", icon=":material/play_arrow:"):
            _start(left, place)
    if any(each.state != "to start" for each in rest):
        _live(place, lambda found: found.trainings[1:])


def _show_foreign(states: Sequence[TrainingState]) -> None:
    """Runs that are in the way of the pilot's own."""
    for each in states:
        if each.state == "another run":
            st.error(
                f"{context.plain(each.training.name)} is not a training of this pilot ({context.plain(each.problem)}). "
                "Rename or delete that run on the Runs page."
            )


def _live(place: Place, choose: Callable[[Look], Sequence[TrainingState]]) -> None:
    """How trainings go; looked at every two seconds as long as one waits or runs, then the page is drawn anew."""
    waits = any(each.waits for each in choose(place.found))
    states = [each.state for each in choose(place.found)]

    def show() -> None:
        found = look(place.name, place.pilot, place.root, place.jobs) if waits else place.found
        chosen = choose(found)
        if [each.state for each in chosen] != states:
            st.rerun()
        _progress(place, chosen)

    st.fragment(show, run_every=LOOK_SECONDS if waits else None)()


def _progress(place: Place, states: Sequence[TrainingState]) -> None:
    finished = sum(each.state == "finished" for each in states)
    if len(states) > 1:
        part = sum(each.done for each in states) / len(states)
        st.progress(part, text=f"{finished} of {len(states)} finished")
        # the newest first: a slot that gets free is not given to one that is about to end
        waiting = [each.job for each in reversed(states) if each.waits and each.job is not None]
        if len(waiting) > 1:
            _cancel(waiting, "Cancel all", "cancel all")
    for each in states:
        with st.container(horizontal=True, vertical_alignment="center"):
            icon = ICONS.get(each.state, ":material/error:")
            st.markdown(f"{icon} {context.plain(each.training.name)} · {each.state}{_step(each)}", width="content")
            if each.run is not None:
                context.offer("gates", "Gates, live" if each.state == "running" else "Gates", each.run.key)
            if each.waits and each.job is not None:
                _cancel([each.job], "Cancel", f"cancel {each.job.id}")
        if each.state == "running":
            st.progress(each.done)
        if each.state in ("failed", "lost", "interrupted"):
            _log(each)
    if any(each.job is not None for each in states):
        job_actions.link_to_jobs("All jobs")


def _cancel(jobs: Sequence[Job], label: str, key: str) -> None:
    if context.may_edit() and st.button(label, key=key, icon=":material/stop:") and job_actions.cancel(jobs):
        st.rerun()


def _step(state: TrainingState) -> str:
    info = state.run.info if state.run else None
    if state.state != "running" or (info is not None and info.status == "finished"):
        return ""
    if info is None or not info.total_steps:
        return ", preparing data and model"
    left = seconds_left(info, pace_of(state.run.folder))
    return f", step {info.step:,} of {info.total_steps:,}" + (f", {left_words(left)}" if left else "")


def _log(state: TrainingState) -> None:
    error = state.run.info.error if state.run else None
    if error:
        st.error(context.plain(shown(error)))
    if state.job is not None:
        job_card.show_log(state.job, is_open=True)


def _commands(states: Sequence[TrainingState], place: Place) -> None:
    with st.expander("The commands", icon=":material/terminal:"):
        lines = [
            shlex.join(["python", "-m", "apt_core", *arguments_of(each.training, place.name, place.pilot, place.root)])
            for each in states
            if each.training.arm == "full" or place.pilot.budget is not None
        ]
        st.code("\n".join(lines), language="bash", wrap_lines=True)


def _start(states: Sequence[TrainingState], place: Place) -> None:
    context.attempt(lambda: [start(each, place.name, place.pilot, place.root, place.jobs) for each in states])


def _save(place: Place, pilot: Pilot) -> None:
    context.attempt(lambda: save_pilot(place.root, place.name, pilot))
