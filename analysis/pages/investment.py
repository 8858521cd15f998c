"""Investment: what more parameters buy on a task, and where they stop buying."""

from __future__ import annotations

import shlex

import pandas as pd
import streamlit as st

from analysis.figures.investment import investment_figure, investment_panel
from analysis.investment import AXES, Axis, Investment, Option, Pool, invest, options_of, pool_names, pools, reading
from analysis.pages import context
from analysis.pages.charts import choose_image_format, show_downloads, show_figure
from analysis.runs import Run
from apt_core.estimates import CONFIDENCE
from apt_core.metric_names import reading_unit

FEWEST = 2
"""groups of seeds that can be held against each other"""


def show() -> None:
    st.title("Investment")
    runs = context.found().runs
    if not runs:
        context.show_no_runs()
        return
    choose_image_format()
    pool = _choose_pool(runs)
    axis, split, with_head = _choose_axis(pool)
    options, left_out = options_of(pool.runs, axis, split, with_head)
    if len(options) < FEWEST:
        _show_too_few(pool, options, len(left_out))
    else:
        found = invest(options, pool.metric_name)
        _show(found, axis, pool, split)
    _show_left_out(left_out)


def _choose_pool(runs: list[Run]) -> Pool:
    by_name = pool_names(pools(runs))
    chosen = st.selectbox(
        "Task, backbone and data",
        list(by_name),
        key="pool",
        bind="query-params",
        help="Only runs of one task, one backbone and the same data are put side by side: other metrics do not "
        "compare. Data is told by the hash that each run keeps of it. Few-shot runs draw their examples by seed: "
        "those with the same number of shots are taken together.",
    )
    pool = by_name[chosen]
    others = len(runs) - len(pool.runs)
    st.caption(
        f"{len(pool.runs)} run{'s' if len(pool.runs) != 1 else ''}; "
        f"{others} of other tasks, backbones or data {'are' if others != 1 else 'is'} not mixed in."
    )
    return pool


def _choose_axis(pool: Pool) -> tuple[Axis, str, bool]:
    left, middle, right = st.columns([4, 2, 2], vertical_alignment="bottom")
    with left:
        name = context.choose(
            "Cost",
            list(AXES),
            "cost",
            "parameters",
            help="parameters: what is trained and stored. virtual tokens: what attention sees beside the text, over "
            "all layers. KV cache: bytes that each sequence takes more in memory. training time: on the device that "
            "trained; other devices and loads do not compare.",
        )
    with middle:
        split = context.choose(
            "Metric on",
            ["validation", "test"],
            "split",
            "validation",
            help="validation also chose each run's checkpoint. test counts only runs that `apt_core evaluate` "
            "measured; it tells what a choice is worth once it is made. To choose by it would make it a second "
            "validation split.",
        )
    with right:
        with_head = st.toggle(
            "Count the task head",
            value=True,
            key="head",
            bind="query-params",
            help="The head is trained in every run of a task and does not depend on the prefix. Without it, the "
            "numbers are what the prefix and its gates take.",
        )
    if split == "test":
        st.warning(
            "Choosing a budget by the test metric is wrong: it is then no longer a test. Choose on validation, and "
            "look here afterwards."
        )
    return AXES[name], split, with_head


def _show(found: Investment, axis: Axis, pool: Pool, split: str) -> None:
    show_figure(
        investment_figure(investment_panel(found, axis.unit, pool.metric_name, split)),
        "investment",
        "investment",
        lambda: _options_table(found),
        f"Each point is the mean over runs that differ only by seed, with its {CONFIDENCE:.0%} interval (Student's "
        "t) where there are several. The front joins the points that no other one beats in both cost and mean. It is "
        "drawn through the best of noisy means, which flatters it.",
    )
    for sentence in reading(found, axis, pool.metric_name):
        st.markdown(f"- {context.plain(sentence)}")
    st.subheader("Steps along the front", help=_STEPS_HELP)
    if found.steps:
        steps = _steps_table(found, axis, pool.metric_name)
        st.dataframe(steps, hide_index=True, width="stretch", key="steps")
        show_downloads("steps", "steps", lambda: steps)
    else:
        st.caption("One point beats all others: it costs least and achieves most.")
    st.subheader("All points")
    table = _options_table(found)
    st.dataframe(
        table,
        hide_index=True,
        width="stretch",
        key="points",
        column_config={
            "cost": st.column_config.NumberColumn(axis.unit, format="localized"),
            "mean": st.column_config.NumberColumn(f"{split} {pool.metric_name}", format="%.3f"),
            "interval_half": st.column_config.NumberColumn("±", format="%.3f", help="Half of the interval's length."),
            "on_front": "on the front",
        },
    )
    if any(option.metric.count < 2 for option in found.options):
        st.caption(
            "Points with one seed have no interval: a difference of a few points can be the seed's. Retrain with "
            "`--seed 2` and `--seed 3`; such runs are folded into one point."
        )


_STEPS_HELP = (
    f"The gain is the difference of two means, with Welch's {CONFIDENCE:.0%} interval for unequal variances. An "
    "interval that contains 0 means that these seeds do not show a gain, not that there is none. The knee is the "
    "point furthest above the straight line from the cheapest to the dearest point of the front, both axes scaled "
    "from 0 to 1 (Kneedle, Satopaa et al., 2011); it moves when a dearer point is added, and is no recommendation by "
    "itself. Intervals are not corrected for the number of steps."
)


def _options_table(found: Investment) -> pd.DataFrame:
    front = set(found.front)
    return pd.DataFrame(
        {
            "runs": option.name,
            "cost": option.cost,
            "mean": option.metric.mean,
            "interval_half": option.metric.half,
            "seeds": option.metric.count,
            "on_front": place in front,
            "knee": found.knee is not None and option == found.knee.option,
        }
        for place, option in enumerate(found.options)
    )


def _steps_table(found: Investment, axis: Axis, metric_name: str) -> pd.DataFrame:
    factor, unit = reading_unit(metric_name)
    rows = []
    for step in found.steps:
        scale = factor * axis.per / step.added
        rows.append(
            {
                "from": step.cheaper.name,
                "to": step.dearer.name,
                f"added {axis.noun}": step.added,
                f"gain ({unit})": factor * step.gain.mean,
                f"gain per {axis.per_words}": scale * step.gain.mean,
                f"low per {axis.per_words}": None if step.gain.low is None else scale * step.gain.low,
                f"high per {axis.per_words}": None if step.gain.high is None else scale * step.gain.high,
                "distinguishable": "yes" if step.gain.sign == "above" else "no",
            }
        )
    return pd.DataFrame(rows)


def _show_too_few(pool: Pool, options: list[Option], num_left_out: int) -> None:
    st.info(
        f"There {'is one point' if options else 'is no point'} to draw here; it takes {FEWEST}. "
        + (f"Runs that are left out, with what is missing: {num_left_out}, listed below. " if num_left_out else "")
        + "Retrain a run with another number of virtual tokens, and with other seeds:"
    )
    run = next((run for run in pool.runs if run.status == "finished"), pool.runs[0])
    folder = shlex.quote(str(run.folder))
    half = max(1, run.info.total_tokens // 2)
    lengths = ",".join(str(length // 2) for length in run.info.prefix_lengths)
    st.code(
        f"python -m analysis budget {folder} --total {half}    # suggests lengths\n"
        f"python -m apt_core retrain {folder} --prefix-lengths {lengths} --seed 1\n"
        f"python -m apt_core retrain {folder} --prefix-lengths {lengths} --seed 2",
        language="bash",
    )


def _show_left_out(left_out: list[tuple[Run, str]]) -> None:
    if not left_out:
        return
    with st.expander(f"Not shown: {len(left_out)}"):
        for run, reason in left_out:
            st.markdown(f"- {context.plain(run.key)}: {context.plain(reason)}")
        st.code("python -m apt_core evaluate RUN --split test    # measures a finished run on test", language="bash")
