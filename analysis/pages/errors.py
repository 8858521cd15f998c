"""Errors: which examples are wrong, and whether their gates say so."""

from __future__ import annotations

import shlex

import streamlit as st

from analysis.audit import trained_by_command
from analysis.error_prediction import FOLDS, MAX_EXAMPLES, REPEATS, comparison, verdict
from analysis.error_views import (
    DIFFERENCE,
    VIEWS,
    View,
    classes_sentence,
    groups_table,
    groups_with_numbers,
    sentence,
    summary_table,
    untested_note,
)
from analysis.errors import CONFIDENCE, FALSE_DISCOVERIES, MIN_GROUP, GroupTests, lacking
from analysis.figures.layer_contrast import LayerContrast, layer_contrast_figure
from analysis.pages import context
from analysis.pages.charts import choose_image_format, show_downloads, show_figure
from analysis.pages.error_data import Predicted, classes_of, entities_of, predicted, predictions_of, tests_of
from analysis.pages.error_examples import show_examples
from analysis.pages.error_tokens import show_token_contrast
from analysis.runs import Run
from apt_core.errors import AptError, AptFileNotFoundError

DIFFERENCE_HELP = (
    f"Points: the difference of mean token gates. Bars: its {CONFIDENCE:.0%} interval (Welch, which does not ask for "
    "equal spreads). Filled: the p-value, corrected for the number of tests (Benjamini and Hochberg), is below "
    f"{FALSE_DISCOVERIES}. A difference says that gates and outcome go together, not that gates cause it; with many "
    "examples, differences too small to matter are found, too. A layer whose gate is the same for every example is not "
    "tested."
)
CORRELATION_HELP = (
    f"Points: Spearman's rank correlation. Bars: its {CONFIDENCE:.0%} interval (Fisher). Filled: the p-value, "
    f"corrected for the number of tests (Benjamini and Hochberg), is below {FALSE_DISCOVERIES}. A correlation sees "
    "rising and falling only, and does not say why. A layer whose gate is the same for every example is not tested."
)
TOKENS_HELP = (
    "The same comparison for every virtual token of every layer, as a heatmap. It needs each example's token gates, "
    "which a command writes on demand."
)
VERDICT_HELP = (
    f"Logistic regression on the gates of all layers, tried on examples it was not fitted to ({FOLDS} folds, {REPEATS} "
    f"times, at most {MAX_EXAMPLES:,} examples). ROC AUC: how often a wrong example gets a higher score than a right "
    "one. 'Not at all': the interval reaches down to 0.5. Gates may then still tell errors in a way that is not "
    "linear, or with more examples. It says nothing of other data."
)
FLOOR_HELP = "Always saying 'right' is right this often: what any score has to be compared with."


def show() -> None:
    st.title("Errors")
    run = context.choose_run("Run")
    if run is None:
        return
    choose_image_format()
    try:
        data = predicted(run)
    except AptFileNotFoundError:
        _show_no_predictions(run)
        return
    except (AptError, OSError) as problem:
        st.error(f"The predictions of {context.plain(run.key)} cannot be read: {context.plain(problem)}")
        return
    _facts(data)
    _verdict(data)
    _compare(run, data)
    if data.examples.kind == "tags":
        _entity_types(data)
    show_examples(run, data)


def _show_no_predictions(run: Run) -> None:
    if run.status != "finished":
        st.info("This run has no predictions: they are written when training ends.")
        return
    if not trained_by_command(run.info):
        st.info("This run has no predictions: it was made through the Python API, which writes none.")
        return
    st.info("This run has no predictions. This makes them:")
    words = ["python", "-m", "apt_core", "evaluate", str(run.folder), "--split", "validation"]
    st.code(shlex.join(words), language="bash", wrap_lines=True)


def _facts(data: Predicted) -> None:
    examples = data.examples
    cells = st.columns(4)
    cells[0].metric("Validation examples", f"{len(examples.ids):,}")
    if examples.kind == "target":
        tokens, right = sum(examples.gold), sum(examples.predicted)
        cells[1].metric("Target sub-words", f"{tokens:,}")
        cells[2].metric("Ranked first", f"{right:,}", help="With the true text before them.")
        cells[3].metric("Share ranked first", f"{right / tokens:.3f}" if tokens else "-")
        return
    wrong = int(examples.error.sum())
    any_entity = "An example is wrong if any of its entities is missed, wrong or invented."
    cells[1].metric("Right", f"{len(examples.ids) - wrong:,}")
    cells[2].metric("Wrong", f"{wrong:,}", help=any_entity if examples.kind == "tags" else None)
    cells[3].metric("Share right", f"{1 - wrong / len(examples.ids):.3f}", help=FLOOR_HELP)


def _verdict(data: Predicted) -> None:
    st.subheader("Do gates tell errors?", help=VERDICT_HELP)
    if data.examples.kind == "target":
        st.markdown(
            "There is no right or wrong example here, only a share of sub-words not ranked first. The correlations "
            "below say whether gates go with it."
        )
        return
    gates, answer = predictions_of(data)
    st.markdown(f"**{verdict(gates)}**")
    if beside := comparison(gates, answer, data.examples.kind):
        st.caption(beside)


def _compare(run: Run, data: Predicted) -> None:
    offered = [name for name, view in VIEWS.items() if data.examples.kind in view.kinds]
    chosen = context.choose("Gates by", offered, f"{data.examples.kind}_gates", offered[0])
    view, groups = VIEWS[chosen], tests_of(data, chosen)
    index = _choose_group(view, groups, chosen)
    if index is None:
        reason = lacking(data.examples.error) if chosen == "wrong or right" else None
        st.info(reason or f"Nothing to compare: it takes {MIN_GROUP} examples on each side, and gates that differ.")
    else:
        tests, (here, others) = groups.tests.of(index), groups.counts[index]
        sizes = f"{here:,} examples against {others:,}." if view.unit == DIFFERENCE else f"{here:,} examples."
        show_figure(
            layer_contrast_figure(LayerContrast(tests, view.unit, view.title.format(name=groups.names[index]))),
            "contrast",
            f"gates-by-{chosen}",
            lambda: groups_table(groups),
            f"{sentence(tests, view.unit)} {sizes}",
        )
        if st.toggle("By virtual token", key="by_token", bind="query-params", help=TOKENS_HELP):
            show_token_contrast(run, data, chosen, groups.names[index])
    st.caption(DIFFERENCE_HELP if view.unit == DIFFERENCE else CORRELATION_HELP)
    if view.group:
        _groups(data, chosen, view, groups)


def _choose_group(view: View, groups: GroupTests, chosen: str) -> int | None:
    """The place of the group to draw; None if there are numbers for none."""
    tested = groups_with_numbers(groups)
    if not tested:
        return None
    if not view.group:
        return tested[0]
    names = [groups.names[place] for place in tested]
    name = st.selectbox(view.group.capitalize(), names, key=f"{chosen.replace(' ', '_')}_group", bind="query-params")
    return groups.names.index(name)


def _groups(data: Predicted, chosen: str, view: View, groups: GroupTests) -> None:
    if chosen in ("gold", "predicted"):
        st.markdown(classes_sentence(classes_of(data, chosen)))
    table = summary_table(view, groups, data.examples)
    st.dataframe(
        table,
        hide_index=True,
        width="stretch",
        key=f"groups {chosen}",
        column_config={
            "share wrong": st.column_config.NumberColumn(format="%.3f"),
            "difference there": st.column_config.NumberColumn(format="%.6f"),
            "in SD": st.column_config.NumberColumn(
                format="%.2f", help="Cohen's d: the difference in standard deviations over examples."
            ),
            "adjusted p": st.column_config.NumberColumn(
                format="%.4f", help="Corrected for all layers and all rows of this table together."
            ),
        },
    )
    if note := untested_note(groups):
        st.caption(note)
    show_downloads("groups", f"gates-by-{chosen}-summary", lambda: table)


def _entity_types(data: Predicted) -> None:
    st.subheader(
        "Entities",
        help="Strict: right needs type and both ends. Wrong: another predicted entity overlaps it. Missed: none does. "
        "Invented: a predicted entity that overlaps no gold one.",
    )
    table = entities_of(data)
    scores = {name: st.column_config.NumberColumn(format="%.3f") for name in ("precision", "recall", "F1")}
    st.dataframe(table, hide_index=True, width="stretch", key="entities", column_config=scores)
    show_downloads("entities", "entities", lambda: table)
