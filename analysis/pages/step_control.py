"""One step for all panels of the Gates page: slider, exact number, Play, and following the newest of a live run.

The step is kept in one place, the number under ``step`` in session state and in the URL; empty means the newest.
"""

from __future__ import annotations

import time

import numpy as np
import streamlit as st

from analysis.pages import context
from analysis.steps import frames, moved, nearest, slider_range

STEP, SLIDER, FOLLOW, PLAYING, STEP_OF = "step", "step_slider", "follow", "playing", "step_of"
FRAME_SECONDS = 0.25


def frame_interval() -> float | None:
    """Seconds between two redraws of the figures while they play; None while they do not."""
    return FRAME_SECONDS if PLAYING in st.session_state else None


def choose_step(run: str, steps: np.ndarray, planned: int, live: bool) -> int:
    """Shows the controls; the recorded step to draw.

    Args:
        run: whose steps these are; when it changes Play ends, and the newest step is shown.
        steps: recorded ones [S >= 1].
        planned: steps of the whole training, 0 if unknown; the slider of a live run has room for them.
        live: whether the run is running.
    """
    before = st.session_state.get(STEP_OF)
    st.session_state[STEP_OF] = run
    if before not in (None, run):  # the step was another run's
        st.session_state[STEP] = None
        _stop()
    newest = int(steps[-1])
    if len(steps) == 1:
        st.caption(f"One step has been recorded so far: {newest:,}.")
        return newest
    _next_frame(run, steps)
    slider, number, play = st.columns([6, 2, 1.2], vertical_alignment="bottom")
    wanted = number.number_input(
        "Go to step",
        min_value=0,
        value=None,
        step=1,
        key=STEP,
        bind=context.bind(STEP),
        placeholder="newest",
        help="The nearest recorded step is shown. Empty: the newest.",
    )
    chosen = newest if wanted is None else int(steps[nearest(steps, wanted)])
    reach = slider_range(steps, planned if live else 0)
    st.session_state[SLIDER] = chosen
    slider.slider(
        f"Optimizer step (recorded: {len(steps):,}, from {int(steps[0]):,} to {newest:,})",
        min_value=reach.first,
        max_value=reach.last,
        step=reach.step,
        format="localized",
        key=SLIDER,
        on_change=_slid,
        args=(steps, chosen),
        help="All panels show this step. With the handle in focus, the arrow keys go from one recorded step to the "
        "next.",
    )
    playing = PLAYING in st.session_state
    if play.button(
        "Stop" if playing else "Play",
        icon=":material/stop:" if playing else ":material/play_arrow:",
        key="play",
        width="stretch",
        on_click=_stop if playing else _start,
        args=() if playing else (run, steps, chosen),
        help="Goes from this step to the last one, from the first if this is the last, in at most 130 pictures.",
    ):
        st.rerun()
    if live:
        st.session_state[FOLLOW] = wanted is None
        st.toggle(
            "Follow the newest step",
            key=FOLLOW,
            on_change=_follow,
            args=(chosen,),
            help="On: the panels move on with the training. Off: they stay at the step chosen.",
        )
    if wanted is not None and wanted != chosen:
        st.caption(f"Step {wanted:,} was not recorded; this is step {chosen:,}, the nearest.")
    return chosen


def _slid(steps: np.ndarray, before: int) -> None:
    step = moved(steps, before, st.session_state[SLIDER])
    st.session_state[STEP] = None if step == int(steps[-1]) else step
    _stop()


def _follow(chosen: int) -> None:
    st.session_state[STEP] = None if st.session_state[FOLLOW] else chosen


def _start(run: str, steps: np.ndarray, chosen: int) -> None:
    st.session_state[PLAYING] = (run, frames(steps, chosen), time.monotonic())


def _stop() -> None:
    st.session_state.pop(PLAYING, None)


def _next_frame(run: str, steps: np.ndarray) -> None:
    """While playing: puts the step whose time has come into session state; ends after the last."""
    if PLAYING not in st.session_state:
        return
    played, shown, started = st.session_state[PLAYING]
    index = int((time.monotonic() - started) / FRAME_SECONDS)
    if played != run or index >= len(shown):
        _stop()
        if played == run:
            st.session_state[STEP] = None
        st.rerun()
    step = int(shown[index])
    st.session_state[STEP] = None if step == int(steps[-1]) else step
