"""The form of a new sweep: its grid, the spec and the command that do the same, and the button that starts it."""

from __future__ import annotations

import contextlib
import shlex
import tomllib
from pathlib import Path
from typing import Any

import streamlit as st

from analysis.inputs import data_place, inside, model_name
from analysis.pages import context
from analysis.runs import shown
from apt_core.config import MAX_TOKENS_PER_LAYER
from apt_core.errors import AptError, AptWriteError, bad_value
from apt_core.files import write_atomic
from apt_core.sweep_begin import check_data, check_devices
from apt_core.sweep_format import SPEC_FILE
from apt_core.sweep_plan import most_trainings
from apt_core.sweep_process import driver_words, start_driver
from apt_core.sweep_spec import MAX_SEEDS, METHODS, SweepSpec, parse_spec, spec_text
from apt_core.tasks import TASKS
from apt_core.tasks.source import COLUMNS

METHODS_HELP = (
    "share, threshold, topk, coverage: from the gates of the full run of the same seed. greedy, pareto: from what was "
    "measured on it. uniform, random: look at no run. The Budget page says what each does."
)
BUDGETS_HELP = (
    "Separated by commas. 1.0: the full run; 0.5: half of its virtual tokens; whole numbers: virtual tokens over all "
    "layers, such as 48."
)


def show(root: Path) -> str | None:
    """The form; the folder of the sweep once it was started."""
    name, fields = _grid(root)
    train = _options()
    places: dict[str, str] = {}
    for task in fields["tasks"]:
        if TASKS[task].needs_data:
            places[task], train[task] = _data(task)
    content = _content(fields, train, places)
    try:
        folder = _folder(root, name)
        spec = parse_spec(content, "spec")
    except AptError as problem:
        st.warning(context.plain(shown(problem)))
        return None
    _show_size(spec)
    st.code(shown(content.decode(), 20_000), language="toml")
    st.caption(f"Saved as a file, this command does the same; the dashboard keeps it as `{SPEC_FILE}` in the folder:")
    words = ["python", "-m", "apt_core", *driver_words(folder, context.new_sweep())]
    st.code(shlex.join(words), language="bash", wrap_lines=True)
    with st.container(horizontal=True):
        st.download_button("The spec", content, SPEC_FILE, "application/toml", icon=":material/download:")
        if not context.may_edit():
            return None
        if not st.button("Check the data and start", type="primary", icon=":material/play_arrow:"):
            return None
    try:
        with st.spinner("Reading the data"):
            _start(folder, fields, train, places)
    except (AptError, OSError) as problem:
        st.error(context.plain(shown(problem)))
        return None
    return folder.as_posix()


def _folder(root: Path, name: str) -> Path:
    """Where it is to be: directly in the folder of runs, where pages find it.

    Raises:
        AptValueError: if the name is none of a folder there.
    """
    folder = inside(root, name)
    if folder.parent != root:
        raise bad_value("name", name, f"the name of a folder directly in {root}", "It has a '/'.")
    return folder


def _content(fields: dict[str, Any], train: dict[str, Any], places: dict[str, str]) -> bytes:
    """The spec; nothing is looked up on disk."""
    named = {task: {**_place(place), **train[task]} for task, place in places.items()}
    options = {flag: value for flag, value in {**train, **named}.items() if value != {}}
    return spec_text(fields | ({"train": options} if options else {})).encode()


def _place(place: str) -> dict[str, str]:
    """The option that says where data is, as typed or found."""
    return {"train-file" if _is_file(place) else "data-dir": place} if place else {}


def _is_file(place: str) -> bool:
    """What is not there yet counts as a file if its name has an ending."""
    path = Path(place)
    with contextlib.suppress(OSError, ValueError):
        if path.exists():
            return path.is_file()
    return bool(path.suffix)


def _grid(root: Path) -> tuple[str, dict[str, Any]]:
    """Its name, and the keys of the spec that span the grid."""
    left, right = st.columns([1, 2])
    name = left.text_input("Name", _free_name(root), max_chars=100, help="Of its folder, in the first folder of runs.")
    tasks = right.multiselect(
        "Tasks", list(TASKS), default=["pydoc-topic"], help="; ".join(f"{n}: {e.description}" for n, e in TASKS.items())
    )
    cells = st.columns([1, 2, 2])
    seeds = cells[0].number_input(
        "Seeds", min_value=1, max_value=MAX_SEEDS, value=3, help="1, 2, ...; two or more give an interval."
    )
    budgets = cells[1].text_input("Budgets", "1.0, 0.5, 0.25", help=BUDGETS_HELP)
    methods = cells[2].multiselect("Lengths by", METHODS, default=["share", "uniform"], help=METHODS_HELP)
    cells = st.columns([2, 1], vertical_alignment="bottom")
    rates = cells[0].text_input(
        "Learning rates", "", placeholder="each task's own", help="Separated by commas, such as 0.005, 0.01."
    )
    test = cells[1].toggle("Measure test", help="Every finished run is evaluated on the test split too.")
    fields: dict[str, Any] = {"tasks": tasks, "seeds": int(seeds), "budgets": _numbers(budgets), "methods": methods}
    if rates.strip():
        fields["learning_rates"] = _numbers(rates)
    if test:
        fields["test"] = True
    return name, fields


def _options() -> dict[str, Any]:
    """Options of ``train`` that hold for all; what is as ``train`` has it anyway is left out."""
    cells = st.columns(5)
    epochs = cells[0].number_input(
        "Epochs", min_value=1, max_value=10_000, value=None, placeholder="the task's own", help="Passes over train."
    )
    length = cells[1].number_input(
        "Full length",
        min_value=1,
        max_value=MAX_TOKENS_PER_LAYER,
        value=16,
        help="Virtual tokens of every layer in the full run.",
    )
    shots = cells[2].number_input(
        "Examples per class", min_value=1, value=None, placeholder="all", help="In all where there are no classes."
    )
    model = cells[3].text_input("Backbone", "minilm", help="A folder, a name on the Hugging Face Hub, or minilm.")
    device = cells[4].selectbox("Device", ["auto", "cpu", "cuda"], help="auto takes a GPU where there is one.")
    given = {"epochs": epochs, "num-virtual-tokens": length, "shots": shots}
    options: dict[str, Any] = {flag: int(value) for flag, value in given.items() if value is not None}
    options |= {} if model.strip() == "minilm" else {"model": model.strip()}
    return options | ({} if device == "auto" else {"device": device})


def _data(task: str) -> tuple[str, dict[str, str]]:
    """Where the data of a task is, as typed, and the columns that were named."""
    columns = [column for column in COLUMNS if column in TASKS[task].columns]
    cells = st.columns([3, *(1 for _ in columns)])
    label = f"{task}: data folder" + (" or training file" if columns else "")
    place = cells[0].text_input(
        label,
        key=f"sweep data {task}",
        help="On the machine where this dashboard runs. A folder that holds the task's files, or a folder of its "
        "name; for your own data also one training file, of which a part is set aside for validation.",
    )
    named: dict[str, str] = {}
    for cell, column in zip(cells[1:], columns, strict=True):
        words = column.replace("_", " ").capitalize()
        key = f"sweep {column} {task}"
        typed = cell.text_input(words, placeholder="default", key=key, help="Its name in your files.").strip()
        named |= {column.replace("_", "-"): typed} if typed else {}
    return place.strip(), named


def _numbers(text: str) -> list[Any]:
    """The numbers in a text, as TOML has them; words stay words, for the spec to refuse."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    numbers: list[Any] = []
    for part in parts:
        try:
            value = tomllib.loads(f"x = {part}")["x"]
        except (ValueError, RecursionError):
            value = part
        numbers.append(value if isinstance(value, int | float) and not isinstance(value, bool) else part)
    return numbers


def _show_size(spec: SweepSpec) -> None:
    count = most_trainings(spec)
    mixed = any(isinstance(budget, int) for budget in spec.budgets)
    cells = "full runs, and every smaller budget with every way to share it out" if spec.prunes else "full runs"
    st.markdown(f"{'Up to ' if mixed else ''}**{count} trainings**: {cells}, {len(spec.seeds)} seeds each.")


def _start(folder: Path, fields: dict[str, Any], train: dict[str, Any], places: dict[str, str]) -> None:
    """Checks what was typed, and the data as trainings would read it; then keeps the spec, and starts the driver.

    Raises:
        AptError: if the folder exists, a path or the data is not usable, or the disk does not take the spec.
    """
    context.check_may_edit()
    if folder.exists():
        raise bad_value("name", folder.name, "one that is free", "There is a folder of this name.")
    allowed = context.allowed_data()
    found = {task: str(data_place(place, allowed, f"data of {task}")) for task, place in places.items() if place}
    model = {"model": model_name(train["model"], allowed)} if "model" in train else {}
    content = _content(fields, train | model, places | found)
    spec = parse_spec(content, "spec")
    if context.cluster() is None:
        check_devices(spec)
    for task in places:
        check_data(spec, task)
    try:
        folder.mkdir(parents=True)
        write_atomic(folder / SPEC_FILE, content)
    except OSError as problem:
        raise AptWriteError(f"{folder} cannot be written to ({problem.strerror}).") from problem
    start_driver(folder, context.new_sweep())


def _free_name(root: Path) -> str:
    number = 1
    while (root / f"sweep-{number}").exists():
        number += 1
    return f"sweep-{number}"
