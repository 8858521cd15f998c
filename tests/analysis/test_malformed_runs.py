"""Damaged, foreign and hostile run folders: the app loads, good runs work, each bad one is said with its reason."""

from __future__ import annotations

import importlib.util
import os
import re
import resource
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analysis.runs import find_runs

APP = Path(__file__).parents[2] / "app.py"
TIMEOUT = 60
MAX_GROWTH_MIB = 300


def _load_cases():
    spec = importlib.util.spec_from_file_location("malformed", Path(__file__).with_name("malformed.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["malformed"] = module
    spec.loader.exec_module(module)
    return module


malformed = _load_cases()
OPENED = [case for case in malformed.CASES if case.where != "runs"]
MARKUP = ("<script>", "![x](", "[x](javascript", "$x^2$", ":material/home:", ":red[no]", "<b>x</b>", ":red[x]")


@pytest.fixture(scope="module")
def outside(tmp_path_factory, record_run) -> Path:
    """What links point at: a good run whose every text is the canary, last read long ago."""
    folder = record_run(
        tmp_path_factory.mktemp("outside") / "target",
        steps=12,
        task=malformed.CANARY,
        model=malformed.CANARY,
        metric_name=malformed.CANARY,
    )
    (folder / "predictions.jsonl").write_text(f'{{"id": "{malformed.CANARY}"}}\n')
    (folder / "notes.json").write_text(f'{{"notes": "{malformed.CANARY}", "tags": ["{malformed.CANARY}"]}}')
    for path in folder.rglob("*"):
        os.utime(path, (1_000_000_000, 1_600_000_000))
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory, record_run, outside) -> Path:
    """All cases, and two good runs."""
    root = tmp_path_factory.mktemp("malformed") / "runs"
    malformed.write_all(root, outside, record_run)
    for name in ("good", "good-too"):
        record_run(root / name, steps=20, created_at="2026-01-01T00:00:00+00:00")
    return root


@pytest.fixture(autouse=True)
def look_at_root(root, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["app.py", "--runs", str(root)])
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "pickled").exists()


@pytest.fixture(scope="module", autouse=True)
def nothing_outside_is_touched(outside):
    def state() -> dict:
        stats = {path: os.lstat(path) for path in sorted(outside.rglob("*"))}
        return {
            path: (found.st_size, found.st_mtime_ns, found.st_ino, None if path.is_dir() else found.st_atime_ns)
            for path, found in stats.items()
        }

    before = state()
    yield
    assert state() == before


def page(name: str, **query: str) -> AppTest:
    app = AppTest.from_string(f"from analysis.pages import {name}\n{name}.show()", default_timeout=TIMEOUT)
    for key, value in query.items():
        app.query_params[key] = value
    app.session_state["first_figure"] = "drawn"  # a browser says so, and is sent the rest
    app.run()
    assert not app.exception, [element.value for element in app.exception]
    return app


def elements(app: AppTest) -> list:
    found, blocks = [], [app._tree]
    while blocks:
        for child in blocks.pop().children.values():
            if hasattr(child, "children"):
                blocks.append(child)
                found.append(child)
            else:
                found.append(child)
    return found


def sent(app: AppTest) -> bytes:
    """Everything that goes to the browser."""
    return b"".join(element.proto.SerializeToString() for element in elements(app) if element.proto is not None)


def formatted(app: AppTest) -> str:
    """Every text that the browser reads as Markdown."""
    texts = []
    for element in elements(app):
        for field in ("body", "label", "help", "text"):
            value = getattr(element.proto, field, None)
            if isinstance(value, str) and element.type not in ("json", "code", "arrow_data_frame", "text_input"):
                texts.append(value)
    return "\n".join(texts)


def said(app: AppTest) -> str:
    kinds = (app.error, app.warning, app.info)
    return "\n".join(element.value for kind in kinds for element in kind).replace("\\", "")


def folder_of(case, root: Path) -> Path:
    """Where the case is now: some change their own name."""
    if case.name == "name-hostile":
        return root / malformed.HOSTILE.replace("/", "|")
    if case.name == "name-long":
        return root / ("long" * 63)
    if case.name == "name-not-utf8":
        return root / os.fsdecode(b"name-\xff\xfe")
    return root / case.name


def test_there_are_enough_cases_with_names_of_their_own():
    assert len({case.name for case in malformed.CASES}) == len(malformed.CASES) >= 60


@pytest.mark.parametrize("case", malformed.CASES, ids=lambda case: case.name)
def test_each_folder_is_listed_with_its_reason_or_as_a_run(case, root):
    runs, rejected = find_runs([root])
    folder = folder_of(case, root)
    reasons = {row.folder: row.reason for row in rejected}
    if case.where == "runs":
        assert re.search(case.reason, reasons[folder])
        assert malformed.CANARY not in reasons[folder]
        assert len(reasons[folder]) <= 600
    else:
        assert folder in [run.folder for run in runs]


def test_runs_page_lists_good_and_bad_ones(root):
    app = AppTest.from_file(str(APP), default_timeout=TIMEOUT)
    app.query_params["columns"] = [
        "task",
        "model",
        "parent",
        "device",
        "notes",
        "tags",
        "curve",
        "loss curve",
        "metric",
    ]
    app.run()
    assert not app.exception
    listed, bad = (table.value for table in app.dataframe)
    assert {"runs/good", "runs/good-too"} <= set(listed["run"])
    assert len(bad) == sum(case.where == "runs" for case in malformed.CASES)
    assert malformed.CANARY.encode() not in sent(app)
    assert [mark for mark in MARKUP if mark in formatted(app)] == []


@pytest.mark.parametrize("setting", ["task", "model", "virtual tokens", "seed", "training.epochs"])
def test_runs_page_groups_what_it_found(root, setting):
    app = page("runs", group=setting)
    assert sum(app.dataframe[0].value["runs"]) == len(find_runs([root]).runs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gates", "budget", "compare", "evidence", "errors"])
@pytest.mark.parametrize("case", OPENED, ids=lambda case: case.name)
def test_each_run_that_is_listed_opens_on_every_page(case, name, root):
    key = f"{root.name}/{folder_of(case, root).name}"
    panel = {"panel": "Loss and metric"} if case.name.startswith("metrics") and name == "gates" else {}
    app = page(name, run=key, **panel)
    assert app.selectbox(key="run").value == key
    if case.where == name:
        assert re.search(case.reason, said(app))
    assert malformed.CANARY.encode() not in sent(app)
    assert [mark for mark in MARKUP if mark in formatted(app)] == []


@pytest.mark.parametrize("name", ["gates", "budget", "compare", "evidence", "errors"])
def test_good_run_beside_them_opens(name, root):
    app = page(name, run="runs/good")
    assert app.selectbox(key="run").value == "runs/good"
    assert said(app).count("cannot be read") == 0


@pytest.mark.parametrize("name", ["gates", "budget", "compare", "evidence", "errors"])
def test_link_to_a_run_that_cannot_be_read_opens_another(name, root):
    assert page(name, run="runs/link-folder").selectbox(key="run").value != "runs/link-folder"


def test_memory_stays_bounded(root):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        find_runs([root])
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MAX_GROWTH_MIB
