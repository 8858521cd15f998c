"""Every action of the Runs page in Streamlit's own test runner."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analysis.pages.runs import table_key
from analysis.run_edits import save_notes
from analysis.run_notes import read_notes
from apt_core.run_format import RunInfo, read_run_info
from apt_core.run_writer import RunWriter
from tests.app_pages import TIMEOUT, texts

APP = Path(__file__).parent.parent / "app.py"


@pytest.fixture
def folder(tmp_path, monkeypatch, record_run) -> Path:
    """Three runs: a (newest), b made from it, c of another task."""
    root = tmp_path / "runs"
    monkeypatch.setattr(sys, "argv", ["app.py", "--runs", str(root)])
    record_run(root / "a", steps=20, created_at="2026-03-03T00:00:00+00:00")
    record_run(root / "b", steps=20, created_at="2026-03-02T00:00:00+00:00", parent="a", training={"seed": 2})
    record_run(root / "c", steps=20, created_at="2026-03-01T00:00:00+00:00", task="copa")
    return root


def start(**query: str | list[str]) -> AppTest:
    app = AppTest.from_file(str(APP), default_timeout=TIMEOUT)
    for key, value in query.items():
        app.query_params[key] = value
    return done(app.run())


def done(app: AppTest) -> AppTest:
    assert not app.exception, [element.value for element in app.exception]
    return app


def listed(app: AppTest) -> list[str]:
    tables = [table.value for table in app.dataframe if "open" in table.value]
    return list(tables[0]["run"]) if tables else []


def select(app: AppTest, *rows: int) -> AppTest:
    """Ticks the boxes of rows of the table as it is now."""
    places = tuple(str(Path(sys.argv[2]).parent / key) for key in listed(app))
    app.session_state[table_key(places)] = {"selection": {"rows": list(rows), "columns": [], "cells": []}}
    return done(app.run())


def press(app: AppTest, label: str) -> AppTest:
    (button,) = (button for button in app.button if button.label == label)
    return done(button.click().run())


def test_table_has_the_columns_of_the_link_in_its_order(folder):
    (table,) = (table.value for table in start(columns=["training.seed", "device", "age"]).dataframe)
    assert list(table.columns) == ["open", "run", "training.seed", "device", "age"]
    assert list(table["training.seed"]) == [1, 2, 1]


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ({"q": "copa"}, ["runs/c"]),
        ({"q": "PYDOC"}, ["runs/a", "runs/b"]),
        ({"task": "copa"}, ["runs/c"]),
        ({"status": "finished"}, ["runs/a", "runs/b", "runs/c"]),
        ({"task": "no such task"}, ["runs/a", "runs/b", "runs/c"]),
        ({"group": "training.seed", "value": "2"}, ["runs/b"]),
    ],
)
def test_filter_of_the_link_leaves_what_fits(folder, query, left):
    assert listed(start(**query)) == left


def test_filter_that_fits_nothing_says_so_and_is_cleared_by_one_click(folder):
    app = start()
    app.text_input(key="q").set_value("nonsense").run()
    assert "No run fits these filters" in texts(done(app).info)
    assert listed(app) == []
    press(app, "Clear filters")
    assert listed(app) == ["runs/a", "runs/b", "runs/c"]
    assert app.text_input(key="q").value == ""


def test_page_without_a_row_is_drawn_anew_once_a_run_fits(folder, record_run):
    app = start(status="running")
    assert "No run fits these filters" in texts(app.info)
    writer = RunWriter(folder / "now", RunInfo(prefix_lengths=[2], num_layers=1, metric_name="accuracy"))
    try:
        assert listed(done(app.run())) == ["runs/now"]
    finally:
        writer.finish()


def test_groups_have_one_row_each_and_open_by_their_value(folder):
    app = start(group="task")
    (groups,) = (table.value for table in app.dataframe)
    assert list(groups["task"]) == ["copa", "pydoc-topic"]
    assert list(groups["runs"]) == [1, 2]
    assert list(groups["mean"]) == [0.5, 0.5]
    app.selectbox(key="value").set_value("pydoc-topic").run()
    assert listed(done(app)) == ["runs/a", "runs/b"]


def test_group_over_tasks_averages_nothing(folder):
    (groups,) = (table.value for table in start(group="training.seed").dataframe)
    assert list(groups["training.seed"]) == ["1", "2"]
    assert list(groups["metric"]) == ["several", "accuracy"]
    assert groups["mean"].isna().tolist() == [True, False]


def test_buttons_wait_for_a_selection(folder):
    app = start()
    states = {button.label: button.disabled for button in app.button}
    assert [states[name] for name in ("Gates", "Compare", "Edit", "Hide", "Delete")] == [True] * 5
    select(app, 0, 1)
    states = {button.label: button.disabled for button in app.button}
    assert [states[name] for name in ("Gates", "Compare", "Edit", "Hide", "Delete")] == [
        True,
        False,
        True,
        False,
        False,
    ]


def test_hidden_runs_are_gone_until_they_are_shown_again(folder):
    app = press(select(start(), 1), "Hide")
    assert listed(app) == ["runs/a", "runs/c"]
    assert "1 hidden" in texts(app.caption)
    assert read_notes(folder / "b").hidden
    app.toggle(key="hidden").set_value(True).run()
    assert listed(done(app)) == ["runs/a", "runs/b", "runs/c"]
    press(select(app, 1), "Show")
    assert not read_notes(folder / "b").hidden


def test_page_with_every_run_hidden_says_how_to_see_them(folder):
    for name in "abc":
        save_notes([folder], folder / name, hidden=True)
    assert "All runs are hidden" in texts(start().info)


def test_delete_asks_and_can_be_undone(folder):
    app = press(select(start(), 0, 2), "Delete")
    assert "runs/a" in texts(app.markdown)
    assert (folder / "a").is_dir()
    app.button(key="confirm").click().run()
    assert listed(done(app)) == ["runs/b"]
    assert "Deleted a, c." in texts(app.markdown)
    press(app, "Undo")
    assert listed(app) == ["runs/a", "runs/b", "runs/c"]
    assert not (folder / ".trash" / "a").exists()


def test_delete_that_is_cancelled_changes_nothing(folder):
    app = press(select(start(), 0), "Delete")
    app.button(key="cancel").click().run()
    assert listed(done(app)) == ["runs/a", "runs/b", "runs/c"]
    assert (folder / "a").is_dir()


def test_trash_puts_back_single_runs_and_is_emptied_after_a_question(folder):
    app = press(select(start(), 0, 2), "Delete")
    app.button(key="confirm").click().run()
    press(app, "Put back runs/a")
    assert listed(app) == ["runs/a", "runs/b"]
    press(app, "Empty trash")
    assert "Runs to be removed for good: 1." in texts(app.markdown)
    app.button(key="confirm").click().run()
    assert list((folder / ".trash").iterdir()) == []
    assert "Trash" not in texts(done(app).expander)


def test_running_run_is_not_deleted_and_the_reason_is_said(folder):
    writer = RunWriter(folder / "live", RunInfo(num_layers=1, prefix_lengths=[1], created_at="2026-04-01T00:00:00"))
    app = start()
    assert next(table.value for table in app.dataframe)["status"][0] == "running"
    app = press(select(app, 0), "Delete")
    assert "running, which is refused" in texts(app.markdown)
    app.button(key="confirm").click().run()
    assert "accepted: a run that is not running" in texts(done(app).error)
    assert (folder / "live").is_dir()
    writer.finish()


def test_edit_saves_tags_notes_and_the_name_and_tells_children(folder):
    app = press(select(start(), 0), "Edit")
    app.text_input[-1].set_value("renamed")
    app.text_area[0].set_value("the best so far")
    app.multiselect[-1].set_value(["paper"])
    press(app, "Save")
    assert listed(app) == ["runs/renamed", "runs/b", "runs/c"]
    notes = read_notes(folder / "renamed")
    assert (notes.tags, notes.notes) == (("paper",), "the best so far")
    assert read_run_info(folder / "b").parent == "renamed"
    assert listed(start(tag="paper")) == ["runs/renamed"]


def test_edit_to_a_name_that_exists_says_so_and_stays_open(folder):
    app = press(select(start(), 0), "Edit")
    app.text_input[-1].set_value("b")
    press(app, "Save")
    assert "which exists" in texts(app.error)
    assert (folder / "a").is_dir()
    press(app, "Cancel")
    assert len(app.text_area) == 0


def test_runs_of_the_same_name_in_folders_of_the_same_name_are_told_apart(folder, monkeypatch, record_run, tmp_path):
    other = tmp_path / "other" / "runs"
    record_run(other / "a", steps=2, created_at="2026-01-01T00:00:00+00:00")
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--runs", str(other)])
    app = start()
    assert listed(app) == [str(folder / "a"), "runs/b", "runs/c", str(other / "a")]
    places = (*(str(folder / name) for name in "abc"), str(other / "a"))
    app.session_state[table_key(places)] = {"selection": {"rows": [3], "columns": [], "cells": []}}
    press(done(app.run()), "Delete")
    app.button(key="confirm").click().run()
    assert (folder / "a").is_dir()
    assert not (other / "a").exists()


def test_read_only_page_offers_neither_edit_nor_delete(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--read-only"])
    app = start()
    labels = {button.label for button in app.button}
    assert {"Gates", "Compare"} <= labels
    assert not {"Edit", "Hide", "Delete"} & labels


def test_selection_does_not_pass_to_other_rows_when_the_filter_changes(folder):
    app = select(start(), 0)
    app.text_input(key="q").set_value("copa").run()
    assert next(button.disabled for button in done(app).button if button.label == "Delete")


def test_hostile_tags_names_and_settings_are_shown_as_text(folder, record_run):
    record_run(folder / "<b>x", steps=1, training={"<i>[a](b)": "$x$"}, created_at="2026-05-01T00:00:00")
    app = start(group="training.<i>[a](b)")
    assert "\\<b\\>x" in app.button[0].label
    assert "\\<i\\>\\[a\\]" in app.selectbox(key="value").label
    done(app)


def test_notes_file_is_small_and_beside_the_run(folder):
    save_notes([folder], folder / "a", tags=["x"])
    assert json.loads((folder / "a" / "notes.json").read_text())["tags"] == ["x"]
    assert "notes" not in json.loads((folder / "a" / "run.json").read_text())
