"""Addresses with values that no control can take: every page shows something all the same."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from streamlit.testing.v1 import AppTest

from analysis.pilot_files import create_pilot
from apt_core.inference_format import write_inference
from apt_core.measure_format import write_measures
from tests.analysis.pilot_world import PILOT
from tests.analysis.simulated_measures import layered_effects, simulate
from tests.inferences import make_inference

SAMPLE_RUNS = Path(__file__).parents[1] / "sample_runs"
LENGTHS = (8,) * 6
MEASURED, WIDE, LONG_LIST = "run=runs/measured", "run=runs/wide", "run=sample_runs/wnut17-apt&outcome=all"
EMPTY = {
    "budget": ("method", "importance", "limit", "total", "min", "max", "multiple", "method=pareto&tolerance_unit"),
    "compare": ("profile", "compared"),
    "errors": ("tags_gates", "gold", "page", "example", "run=sample_runs/copa-apt&choice_gates"),
    "evidence": ("shown", "orders", "inference_quality", "inference_reference"),
    "gates": (
        "show",
        "scale",
        "order",
        "step",
        "from",
        "to",
        "difference=true&minus",
        "difference=true&minus_step",
        "axis",
        "layers",
        "columns",
    ),
    "investment": ("cost", "split", "pool", "head"),
    "pilot": ("pilot",),
    "runs": ("q", "status", "columns", "group", "hidden"),
    "tasks": ("likeness", "run_order", "layers", "profiles"),
}
NUMBERS = {
    "budget": ("total", "min", "max", "multiple", "method=coverage&coverage", "method=pareto&tolerance"),
    "errors": ("page",),
    "gates": ("step", "from", "to", "difference=true&minus_step", "layers", "columns"),
}
NO_NUMBERS = ("1e999", "-1e999", "nan", "1e300")
RUNS = {"budget": MEASURED, "compare": MEASURED, "errors": LONG_LIST, "evidence": MEASURED, "gates": WIDE}
HOSTILE = [
    *((page, f"{key}=") for page, keys in EMPTY.items() for key in keys),
    *((page, f"{key}={value}") for page, keys in NUMBERS.items() for key in keys for value in NO_NUMBERS),
    *(("gates", f"{key}=2&{key}=1e999") for key in ("step", "layers", "columns")),
]

PATHS = ("../secret", "/etc/passwd", "runs/../secret", "-rf", "runs/measured%00", "runs/measured%0A", "$(touch trace)")
WITH_PATHS = [
    *(("gates", f"run={path}") for path in PATHS),
    *((page, "run=../secret") for page in ("budget", "errors", "evidence", "compare")),
    ("compare", "run=runs/measured&compared=../secret&compared=/etc/passwd"),
    ("gates", "run=runs/wide&difference=true&minus=../secret"),
    *(("pilot", f"pilot={path}") for path in PATHS),
    ("errors", "run=sample_runs/copa-apt&texts=true&data_folder=../secret&example=../secret"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory, record_run) -> Path:
    """A measured run, a run with sliders for its shape and with many steps, and a pilot."""
    root = tmp_path_factory.mktemp("addresses") / "runs"
    measured = record_run(root / "measured", steps=20, lengths=LENGTHS)
    write_measures(measured, simulate(layered_effects(0)))
    write_inference(measured, make_inference(LENGTHS))
    record_run(root / "wide", steps=600, lengths=(65,) + (1,) * 24)
    create_pilot(root, "pilot", PILOT)
    record_run(root.parent / "secret", steps=5)
    return root


@pytest.fixture(autouse=True)
def app_of_these_runs(root, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py", "--runs", str(root), "--runs", str(SAMPLE_RUNS)])


def opened(page: str, address: str) -> AppTest:
    app = AppTest.from_string(f"from analysis.pages import {page}\n{page}.show()", default_timeout=60)
    app.query_params.update(parse_qs(f"{RUNS.get(page, '')}&{address}", keep_blank_values=True))
    app.run()
    assert not app.exception, [element.value for element in app.exception]
    return app


@pytest.mark.parametrize(("page", "address"), HOSTILE, ids=[f"{page}?{address}" for page, address in HOSTILE])
def test_no_address_stops_a_page(page, address):
    app = opened(page, address)
    app.run()
    assert not app.exception, [element.value for element in app.exception]


@pytest.mark.parametrize(("page", "address"), WITH_PATHS, ids=[f"{page}?{address}" for page, address in WITH_PATHS])
def test_no_address_leads_out_of_the_folders_of_runs(page, address, root):
    before = sorted(root.parent.rglob("*"))
    app = AppTest.from_string(f"from analysis.pages import {page}\n{page}.show()", default_timeout=60)
    app.query_params.update(parse_qs(address, keep_blank_values=True))
    app.run()
    assert not app.exception, [element.value for element in app.exception]
    boxes = [*app.selectbox, *app.multiselect]
    assert not [option for box in boxes for option in box.options if "secret" in option or "passwd" in option]
    assert "secret" not in str([box.value for box in boxes])
    assert "secret" not in str(app.query_params.get("run"))
    assert sorted(root.parent.rglob("*")) == before


def test_what_no_control_can_take_leaves_the_address_and_the_controls_are_bound_again():
    app = opened("gates", "step=1e999&show=&scale=log")
    assert {"step", "show"}.isdisjoint(app.query_params)
    assert app.query_params["scale"] == "log"
    assert app.number_input(key="step").value is None
    assert app.button_group(key="show").value == "weight"
    app.number_input(key="step").set_value(7)
    app.button_group(key="show").set_value("token gate").run()
    app.run()
    assert not app.exception
    assert app.number_input(key="step").value == 7
    assert app.button_group(key="show").value == "token gate"
