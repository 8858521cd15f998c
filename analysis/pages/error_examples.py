"""The Errors page's list of examples, and the one that was chosen: its text, its gates, its token gates."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from analysis.example_list import IN_ORDER, PER_PAGE, Wanted, answers, choose, list_table, orders
from analysis.example_texts import entity_rows, local_places, needs_network, place_of, source_of, whole_text
from analysis.examples import Examples
from analysis.figures.example_profile import example_profile, example_profile_figure
from analysis.figures.gate_difference import GateDifference, gate_difference_figure
from analysis.figures.heatmap import Heatmap, heatmap_figure
from analysis.inputs import data_place
from analysis.pages import context
from analysis.pages.charts import show_downloads, show_figure
from analysis.pages.error_data import Predicted, texts_of
from analysis.pages.error_tokens import token_gates_or_command
from analysis.runs import Run
from analysis.tables import cells_table
from apt_core.errors import AptError, AptValueError
from apt_core.tasks.base import Example
from apt_core.tasks.source import DataSource

EXAMPLE, LIST, PAGE = "example", "examples", "page"
ANY = "any"


def show_examples(run: Run, data: Predicted) -> None:
    """The list, its filters, and below it the chosen example."""
    st.subheader("Examples")
    examples = data.examples
    texts = _texts(run)
    places = choose(examples, _wanted(examples, bool(texts)), texts)
    if not len(places):
        st.info("No example is like that.")
        return
    shown = _page(places)
    table = list_table(examples, shown, texts)
    st.dataframe(
        table,
        hide_index=True,
        width="stretch",
        key=list_key(shown),
        on_select=lambda: _take_selected(list_key(shown), table["id"].tolist()),
        selection_mode="single-row",
        column_config=_columns(table),
    )
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(f"{len(places):,} of {len(examples.ids):,} examples. Mark a row, at its left end, to look at it.")
        show_downloads("examples", "examples", lambda: list_table(examples, places, {}))
    _example(run, examples, texts, int(shown[0]))


def _wanted(examples: Examples, searchable: bool) -> Wanted:
    cells = st.columns(5)
    outcome, gold, predicted, search = "all", ANY, ANY, ""
    if examples.kind != "target":
        outcome = cells[0].selectbox("Outcome", ["wrong", "right", "all"], key="outcome", bind="query-params")
        names = [ANY, *answers(examples)]
        has = "an entity of type" if examples.kind == "tags" else "answer"
        gold = cells[1].selectbox("Gold", names, key="gold", bind="query-params", help=f"Gold {has}.")
        predicted = cells[2].selectbox(
            "Predicted", names, key="predicted", bind="query-params", help=f"Predicted {has}."
        )
    by = cells[3].selectbox("Sort by", orders(examples), index=1, key="by", bind="query-params")
    with cells[4]:
        largest_first = st.toggle(
            "Largest first", value=True, key="largest", bind="query-params", disabled=by == IN_ORDER
        )
    if searchable:
        search = st.text_input("Search the texts", key="search", bind="query-params", max_chars=200)
    chosen = ("" if name == ANY else name for name in (gold, predicted))
    return Wanted(outcome, *chosen, search.strip(), by, largest_first)


def _page(places: np.ndarray) -> np.ndarray:
    pages = math.ceil(len(places) / PER_PAGE)
    if pages == 1:
        return places
    if st.session_state.get(PAGE, 1) > pages:  # the list got shorter
        st.session_state[PAGE] = pages
    number = st.number_input(f"Page (of {pages:,})", 1, pages, key=PAGE, bind=context.bind(PAGE), width=160)
    return places[(number - 1) * PER_PAGE : number * PER_PAGE]


def list_key(places: np.ndarray) -> str:
    """The list's widget key. A row is marked by its place, so that other examples must not inherit the mark."""
    return f"{LIST} {hashlib.sha256(places.tobytes()).hexdigest()[:16]}"


def _take_selected(key: str, ids: list[str]) -> None:
    """The marked row becomes the example of the page and of its address."""
    rows = st.session_state[key].selection.rows
    if rows and rows[0] < len(ids):
        st.session_state[EXAMPLE] = ids[rows[0]]


def _columns(table: pd.DataFrame) -> Mapping[str, object]:
    layers = {
        name: st.column_config.NumberColumn(format="%.4f", help="mean token gate of the layer")
        for name in table.columns
        if name.startswith("layer ")
    }
    return {"loss (nats)": st.column_config.NumberColumn(format="%.4f"), **layers}


def _texts(run: Run) -> dict[str, Example]:
    """The examples as the data has them; empty, with words on what to do, where they are not read."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = st.toggle(
            "Show the texts",
            key="texts",
            bind=None if context.allowed_data() is not None else "query-params",  # no link makes a server read files
            help="A run keeps no text of its data. It is read from where the data is, now, and not written anywhere.",
        )
        if not wanted:
            return {}
        folder = ""
        if run.info.data_dir or run.info.data:
            folder = _data_folder()
    try:
        allowed = context.allowed_data()
        source = source_of(run.info, str(data_place(folder, allowed)) if folder else "")
        if allowed is not None:
            _check_place(source, allowed)
        st.caption(context.plain(f"From {place_of(source) or 'the task built in'}{_far(needs_network(source))}."))
        found = texts_of(run, source)
    except (AptError, OSError) as problem:
        st.warning(
            f"The texts are not available: {context.plain(problem)} If the data has moved, give the folder where it is "
            "now."
        )
        return {}
    if not found.same_data:
        st.warning("This is not the data that the run was trained on: texts may belong to other examples.")
    return found.by_id


def _check_place(source: DataSource, allowed: Sequence[Path]) -> None:
    """Of a dashboard that others reach: a run's folder may name any file, and was perhaps written by somebody else.

    Raises:
        AptError: if the data is elsewhere than in the folders that the app was started with.
    """
    for place in local_places(source):
        data_place(os.path.abspath(os.path.expanduser(place)), allowed, "the run's data")  # it is read from here, too
    if needs_network(source) and not context.may_edit():
        raise AptValueError("the run's data is on the Hugging Face Hub; it is fetched for editors only.")


def _data_folder() -> str:
    if not context.may_edit():
        return ""
    return st.text_input(
        "Data folder",
        key="data_folder",
        persist_state="session",
        placeholder="as the run says",
        help="Only if the data has moved: the folder that holds it now, in the form in which it was given.",
    ).strip()


def _far(network: bool) -> str:
    return ", on the Hugging Face Hub" if network else ""


def _example(run: Run, examples: Examples, texts: dict[str, Example], first: int) -> None:
    name = st.text_input(
        "Example", key=EXAMPLE, bind="query-params", placeholder=examples.ids[first], help="Its id, as in the list."
    )
    if name and name not in examples.ids:
        st.warning(f"There is no example {context.plain(name)} in this run; this is the first of the list.")
    place = examples.ids.index(name) if name in examples.ids else first
    name = examples.ids[place]
    st.markdown(f"**{context.plain(name)}**: {_answer(examples, place)}")
    if name in texts:
        _text(texts[name], examples, place)
    figure = example_profile(examples.gates, place, name)
    show_figure(
        example_profile_figure(figure),
        "example",
        "example-gates",
        lambda: pd.DataFrame(
            {"layer": np.arange(1, len(figure.gate) + 1), "gate": figure.gate, "minus_mean": figure.deviation,
             "sd_over_examples": figure.spread}
        ),
        "Each layer's gate, averaged over its virtual tokens, minus the mean over all examples. Gates are 0 to 1: "
        "look at the axis before you read much into a distance.",
    )  # fmt: skip
    _token_gates(run, name)


def _answer(examples: Examples, place: int) -> str:
    loss = f"loss {examples.loss[place]:.4f} nats" if np.isfinite(examples.loss[place]) else "no loss"
    gold, predicted = examples.gold[place], examples.predicted[place]
    if examples.kind == "target":
        return f"{predicted:,} of {gold:,} sub-words ranked first, {loss}"
    outcome = "wrong" if examples.error[place] else "right"
    if examples.kind == "tags":
        return f"{outcome}, {loss}"
    return f"{outcome}, gold {context.plain(gold)}, predicted {context.plain(predicted)}, {loss}"


def _text(example: Example, examples: Examples, place: int) -> None:
    st.code(whole_text(example), language=None, wrap_lines=True)
    if examples.kind == "tags" and "tokens" in example:
        rows = entity_rows(example["tokens"], examples.gold[place], examples.predicted[place])
        if rows:
            st.dataframe(pd.DataFrame(rows), hide_index=True, key="entities of example")


def _token_gates(run: Run, name: str) -> None:
    found = token_gates_or_command(run)
    if found is None:
        return
    if name not in found.ids:
        st.info("The token gates of this example were not written: only the first examples that fit are.")
        return
    try:
        gates = found.read(found.ids.index(name))
    except AptError as problem:
        st.error(f"The token gates cannot be read: {context.plain(problem)}")
        return
    difference = (gates - found.mean).astype(np.float32)
    left, right = st.columns(2)
    with left:
        show_figure(
            heatmap_figure(Heatmap(gates, "token gate", 1.0, "Token gates of this example")),
            "token gates",
            "example-token-gates",
            lambda: cells_table(0, token_gate=gates, minus_mean=difference).drop(columns="step"),
            "Of this example alone, after training.",
        )
    with right:
        reach = float(np.nanmax(np.abs(difference), initial=0.0)) or 1.0
        show_figure(
            gate_difference_figure(
                GateDifference(difference, reach, "difference of token gate", "Token gates: this example - mean of all")
            ),
            "token gate differences",
            "example-token-gate-differences",
            lambda: cells_table(0, token_gate=gates, minus_mean=difference).drop(columns="step"),
            "Orange: a larger gate than usual. The scale is this example's own: full colour may be very little.",
        )
