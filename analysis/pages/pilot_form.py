"""The first step of the Pilot page: the question, and data that is read and checked before anything is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from analysis.inputs import data_place, model_name
from analysis.pages import context
from analysis.pilot import MAX_QUESTION, MAX_SEEDS, Pilot, run_names
from analysis.pilot_costs import check_data
from analysis.pilot_decision import default_tolerance, unit_of
from analysis.pilot_files import MAX_PILOT_NAME, check_pilot_name, create_pilot, pilot_path
from analysis.runs import shown
from apt_core.config import MAX_TOKENS_PER_LAYER, TrainSettings
from apt_core.errors import AptError, bad_value
from apt_core.run_format import utc_now
from apt_core.tasks import TASKS
from apt_core.tasks.source import COLUMNS, DataSource

ARMS = 3
"""full, pruned and uniform"""
FEW = 16
"""examples per class that are offered"""


def show(root: Path) -> str | None:
    """The form; the name of the pilot once it was made."""
    st.subheader("1 · Question and data")
    question = st.text_area(
        "Question",
        max_chars=MAX_QUESTION,
        placeholder="Can we halve the adapter of our ticket router without losing accuracy?",
        help="The report's title. What is decided, in the words of whoever asks for it.",
    )
    left, right = st.columns(2)
    task = left.selectbox("Task", list(TASKS), help="; ".join(f"{name}: {TASKS[name].description}" for name in TASKS))
    name = right.text_input(
        "Name",
        _free_name(root, task),
        key=f"pilot name {task}",
        max_chars=MAX_PILOT_NAME,
        help="Of the pilot; the folders of its runs begin with it.",
    )
    st.caption(context.plain(TASKS[task].description))
    place, columns = _data(task)
    settings = _settings(task)
    seeds = settings["seeds"]
    st.markdown(
        f"**{ARMS * len(seeds)} trainings** in all: full length, pruned and uniform, {len(seeds)} seeds each. The "
        "first comes alone; the time that the others take is said before they start."
    )
    if not st.button("Check the data and make the pilot", type="primary", icon=":material/check:"):
        return None
    try:
        with st.spinner("Reading the data"):
            return _make(root, name, place, {"question": question.strip(), "task": task, "data": columns, **settings})
    except (AptError, OSError) as problem:
        st.error(context.plain(shown(problem)))
        return None


def _data(task: str) -> tuple[str, dict[str, str]]:
    """Where the data is, as typed, and the columns that were named."""
    entry = TASKS[task]
    if not entry.needs_data:
        return "", {}
    place = st.text_input(
        "Data folder or training file",
        help=f"On the machine where this dashboard runs. A folder that holds the folder {task}, or its files; for your "
        "own data also one training file, of which a part is set aside for validation.",
    ).strip()
    named: dict[str, str] = {}
    columns = [column for column in COLUMNS if column in entry.columns]
    if columns:
        cells = st.columns(len(columns))
        for cell, column in zip(cells, columns, strict=True):
            words = column.replace("_", " ")
            typed = cell.text_input(words.capitalize(), placeholder="default", help="Name of the column in your files.")
            named |= {column: typed.strip()} if typed.strip() else {}
    return place, named


def _settings(task: str) -> dict[str, Any]:
    usual = TrainSettings(**TASKS[task].training)
    cells = st.columns(4)
    few = cells[0].toggle("Few examples", value=not TASKS[task].needs_data, help="Off: all training examples.")
    shots = cells[1].number_input(
        "Examples per class",
        min_value=1,
        value=FEW,
        disabled=not few,
        help="In all where there are no classes. Every seed draws its own. Validation and test stay whole.",
    )
    epochs = cells[2].number_input(
        "Epochs",
        min_value=1,
        max_value=10_000,
        value=usual.epochs,
        key=f"pilot epochs {task}",
        help="Passes over the training examples.",
    )
    count = cells[3].number_input(
        "Seeds",
        min_value=2,
        max_value=MAX_SEEDS,
        value=3,
        help="Trainings of each kind. Two give a very wide interval; five make it useful.",
    )
    with st.expander("More settings"):
        cells = st.columns(5)
        model = cells[0].text_input(
            "Backbone", "minilm", help="A folder, a name on the Hugging Face Hub, or minilm, which needs no download."
        )
        length = cells[1].number_input(
            "Full length",
            min_value=1,
            max_value=MAX_TOKENS_PER_LAYER,
            value=16,
            help="Virtual tokens of every layer, before anything is pruned.",
        )
        max_length = cells[2].number_input(
            "Sub-words per text",
            min_value=4,
            value=usual.max_length,
            key=f"pilot max length {task}",
            help="Longer texts are cut.",
        )
        tolerance = cells[3].number_input(
            f"Accepted cost ({unit_of(task)})",
            min_value=0.0,
            value=default_tolerance(task),
            step=default_tolerance(task) / 4,
            key=f"pilot tolerance {task}",
            help="How much of the metric fewer virtual tokens may cost. Points: hundredths of a metric from 0 to 1. "
            "Decide it before you see a result.",
        )
        device = cells[4].selectbox("Device", ["auto", "cpu", "cuda"], help="auto takes a GPU where there is one.")
    return {
        "shots": int(shots) if few else None,
        "epochs": int(epochs),
        "seeds": tuple(range(1, int(count) + 1)),
        "model": model,
        "num_virtual_tokens": int(length),
        "max_length": int(max_length) if max_length != usual.max_length else None,
        "tolerance": float(tolerance),
        "device": device,
    }


def _make(root: Path, name: str, place: str, fields: dict[str, Any]) -> str:
    """Checks what was typed, and the data as a training would read it, then keeps the pilot; returns its name."""
    context.check_may_edit()
    check_pilot_name(name)
    allowed = context.allowed_data()
    if place:
        found = data_place(place, allowed, "data")
        fields["data"] = {"train_file" if found.is_file() else "data_dir": str(found), **fields["data"]}
    fields["model"] = model_name(fields["model"], allowed)
    pilot = Pilot(created_at=utc_now(), **fields)
    taken = [each for each in run_names(name, pilot) if (root / each).exists()]
    if taken:
        raise bad_value("name", name, "one whose runs do not exist yet", f"There is a folder {taken[0]}.")
    checked = check_data(pilot.task, DataSource(**pilot.data), pilot.shots, pilot.seeds[0])
    create_pilot(root, name, pilot.model_copy(update={"split_sizes": checked.split_sizes}))
    for note in checked.notes:
        st.toast(context.plain(shown(note)))
    return name


def _free_name(root: Path, task: str) -> str:
    number = 1
    while pilot_path(root, f"{task}-pilot-{number}").exists() or any(root.glob(f"{task}-pilot-{number}-*")):
        number += 1
    return f"{task}-pilot-{number}"
