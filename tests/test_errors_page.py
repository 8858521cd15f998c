"""Every control of the Errors page in Streamlit's own test runner."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from analysis.pages import error_examples
from apt_core.example_gates_format import write_example_gates
from apt_core.run_format import write_predictions
from tests.app_pages import field, page, rerun, texts

LAYERS = 3


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The app looks at ``tmp_path/runs``."""
    monkeypatch.setattr(sys, "argv", ["app.py", "--runs", str(tmp_path / "runs")])
    return tmp_path / "runs"


@pytest.fixture
def make(folder, record_run):
    """A finished run with predictions: the gate of layer 2 is ``effect`` standard deviations larger where wrong."""

    def make_run(name: str = "a", kind: str = "class", count: int = 60, effect: float = 3.0, **fields) -> Path:
        labels = {"class": ["red", "green"], "tags": ["O", "B-x", "I-x"]}.get(kind, [])
        lengths = fields.pop("lengths", (4,) * LAYERS)
        run = record_run(folder / name, steps=3, lengths=lengths, labels=fields.pop("labels", labels), **fields)
        draw = np.random.default_rng(0)
        rows = []
        for place in range(count):
            wrong = place % 3 == 0
            gold = place % 2
            answer = {
                "class": {"gold": gold, "predicted": 1 - gold if wrong else gold},
                "choice": {"gold": gold, "predicted": 1 - gold if wrong else gold},
                "tags": {"gold": ["B-x", "O"], "predicted": ["O", "O"] if wrong else ["B-x", "O"]},
                "target": {"tokens": 10, "right": 4 if wrong else 8},
            }[kind]
            gates = draw.normal(0.5, 0.01, len(lengths))
            gates[1 % len(lengths)] += 0.01 * effect * wrong
            gates = [float(gate) if length else None for gate, length in zip(gates, lengths, strict=True)]
            rows.append({"id": f"v-{place}", **answer, "loss": float(draw.exponential()), "layer_gates": gates})
        write_predictions(run, rows)
        return run

    return make_run


def figures(app: AppTest) -> list[str]:
    return [json.loads(chart.proto.spec)["layout"]["title"]["text"] for chart in app.get("plotly_chart")]


def ids(app: AppTest) -> list[str]:
    return next(list(table.value["id"]) for table in app.dataframe if "id" in table.value)


def test_no_run_and_no_predictions_name_the_command(folder, record_run):
    assert "python -m apt_core train" in texts(page("errors").code)
    record_run(folder / "a", steps=3)
    app = page("errors")
    assert "has no predictions. This makes them" in texts(app.info)
    assert f"python -m apt_core evaluate {folder / 'a'} --split validation" in texts(app.code)


def test_damaged_predictions_are_said(make):
    run = make()
    (run / "predictions.jsonl").write_text('{"id": "x", "layer_gates": [2, 2, 2]}\n')
    app = page("errors")
    assert "cannot be read" in texts(app.error)
    assert "row 1: layer_gates" in texts(app.error)


def test_facts_verdict_and_planted_layer(make):
    make()
    app = page("errors")
    facts = {metric.label: metric.value for metric in app.metric}
    assert facts == {"Validation examples": "60", "Right": "40", "Wrong": "20", "Share right": "0.667"}
    assert "Gates tell errors: well (ROC AUC 0.9" in texts(app.markdown)
    assert "layer 2 differs. The clearest is layer 2: +0.0" in texts(app.caption)
    assert figures(app)[0] == "Token gates: wrong minus right examples"


def test_gates_that_tell_nothing_are_said_to(make):
    make(effect=0.0, count=90)
    app = page("errors")
    assert "Gates tell errors: not at all (ROC AUC" in texts(app.markdown)
    assert "No layer differs" in texts(app.caption)


@pytest.mark.parametrize(
    ("view", "title"),
    [
        ("gold", "Token gates: examples that are green minus all others"),
        ("predicted", "Token gates: examples predicted as green minus all others"),
        ("confusion", "Token gates: green → green (gold → predicted) minus the mean of all examples"),
        ("loss", "Token gates and loss"),
    ],
)
def test_link_opens_each_view_of_classes(make, view, title):
    make()
    app = page("errors", class_gates=view)
    assert figures(app)[0] == title
    if view != "loss":
        column = {"confusion": "gold → predicted"}.get(view, f"{view} class")
        assert column in app.dataframe[0].value.columns


def test_link_opens_the_chosen_confusion(make):
    make()
    app = page("errors", class_gates="confusion", confusion_group="red → green")
    assert "red → green" in figures(app)[0]


def test_entities_are_tabled_by_type(make):
    make(kind="tags")
    app = page("errors", tags_gates="entity type")
    entities = next(table.value for table in app.dataframe if "missed" in table.value)
    assert entities.iloc[0][["entity type", "entities", "right", "missed"]].tolist() == ["x", 60, 40, 20]
    assert figures(app)[0] == "Token gates: examples with a mistake in x minus those with all of x right"
    assert "Wrong if" not in texts(app.markdown)


def test_language_model_has_correlations_only(make):
    make(kind="target", labels=[])
    app = page("errors", target_gates="sub-words")
    assert "no right or wrong example here" in texts(app.markdown)
    assert figures(app)[0] == "Token gates and the share of sub-words not ranked first"
    assert "layer 2 differs" in texts(app.caption)
    assert not [box for box in app.selectbox if box.label == "Outcome"]
    assert len(ids(app)) == 60


def test_choices_have_names_of_their_own(make):
    make(kind="choice")
    assert "gold choice" in texts(page("errors").markdown)


@pytest.mark.parametrize("lengths", [(4,), (0, 0), (4, 0, 4)])
def test_runs_of_any_shape_are_shown(make, lengths):
    make(lengths=lengths, effect=0.0)
    app = page("errors")
    if not any(lengths):
        assert "They are the same for every example" in texts(app.markdown)
        assert "gates that differ" in texts(app.info)


def test_too_few_wrong_examples_give_a_reason_and_no_number(make):
    make(count=12)
    app = page("errors")
    assert "There are 4 wrong and 8 right examples" in texts(app.markdown)
    assert "There are 4 wrong and 8 right examples" in texts(app.info)
    assert [title for title in figures(app) if "wrong" in title] == []


def test_list_is_filtered_sorted_and_paged_by_the_link(make):
    make(count=400)
    app = page("errors", outcome="wrong", gold="red", by="gate of layer 2", page="1")
    table = next(table.value for table in app.dataframe if "id" in table.value)
    assert set(table["outcome"]) == {"wrong"}
    assert set(table["gold"]) == {"red"}
    assert (np.diff(table["layer 2"]) <= 0).all()
    app = page("errors", outcome="all", page="4")
    assert len(ids(app)) == 100
    assert "400 of 400 examples" in texts(app.caption)
    rerun(field(app.selectbox, "Outcome").set_value("wrong"))
    assert field(app.number_input, "Page (of 2)").value == 2  # page 4 is gone
    assert len(ids(app)) == 34


def test_link_opens_an_example_and_another_run_keeps_it_only_if_it_has_it(make):
    make("a")
    make("b", count=30)
    app = page("errors", run="runs/a", example="v-45")
    assert "**v-45**: wrong, gold green, predicted red, loss" in texts(app.markdown)
    assert "v-45: gates against the mean of all examples" in figures(app)
    rerun(app.selectbox[0].set_value("runs/b"))
    assert "There is no example v-45 in this run" in texts(app.warning)


def test_marked_row_becomes_the_example(make, monkeypatch):
    class Marked:
        def __init__(self, *rows: int) -> None:
            self.selection = self
            self.rows = rows

    state = {"list": Marked(1)}
    monkeypatch.setattr(error_examples.st, "session_state", state)
    error_examples._take_selected("list", ["v-1", "v-2"])
    assert state["example"] == "v-2"
    for rows in ((), (7,)):
        state["list"] = Marked(*rows)
        error_examples._take_selected("list", ["v-1", "v-2"])
    assert state["example"] == "v-2"


def test_other_examples_do_not_inherit_the_mark():
    first, second = (error_examples.list_key(np.arange(start, start + 5)) for start in (0, 5))
    assert first != second
    assert first == error_examples.list_key(np.arange(5))


def test_token_gates_are_asked_for_and_shown_when_there(make):
    run = make()
    app = page("errors", example="v-3")
    assert f"python -m apt_core evaluate {run} --split validation --token-gates" in texts(app.code)
    gates = np.random.default_rng(0).random((10, LAYERS, 4)).astype(np.float32)
    write_example_gates(run, "validation", [f"v-{place}" for place in range(10)], gates)
    app = page("errors", example="v-3")
    assert figures(app)[2:] == ["Token gates of this example", "Token gates: this example - mean of all"]
    assert "only the first examples that fit" in texts(page("errors", example="v-30").info)
    (run / "token-gates-validation.safetensors").write_bytes(b"damaged")
    assert "The token gates cannot be read" in texts(page("errors", example="v-3").error)


def test_differences_by_virtual_token_are_asked_for_and_shown_when_there(make):
    run = make()
    app = page("errors", by_token="true")
    assert texts(app.code).count("--token-gates") == 2  # here, and below at the example
    gates = np.random.default_rng(0).normal(0.5, 0.01, (60, LAYERS, 4)).astype(np.float32)
    gates[::3, 0, 2] += 0.05
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    write_predictions(
        run, [{**row, "layer_gates": means} for row, means in zip(rows, gates.mean(2).tolist(), strict=True)]
    )
    write_example_gates(run, "validation", [f"v-{place}" for place in range(60)], gates)
    app = page("errors", by_token="true")
    assert "Of 12 virtual tokens tested, 1 differs (dots), in layer 1." in texts(app.caption)
    assert "virtual token 3 of layer 1" in texts(app.caption)
    assert figures(app)[1] == "Token gates: wrong minus right examples"
    app = page("errors", by_token="true", class_gates="confusion")
    assert "(gold → predicted) minus the mean of all" in figures(app)[1]
    write_example_gates(run, "validation", ["v-0", "v-6"], gates[[0, 6]])  # both red
    app = page("errors", by_token="true", class_gates="gold", gold_group="green")
    assert "None of the 2 examples whose token gates were written is of this group." in texts(app.info)
    write_example_gates(run, "validation", ["v-0", "v-6"], gates[[1, 7]])
    app = page("errors", by_token="true")
    assert "the token gates are not of these predictions" in texts(app.error)
    write_example_gates(run, "validation", ["other-0", "other-1"], gates[[1, 7]])
    assert "None of the 0 examples" in texts(page("errors", by_token="true", class_gates="gold").info)


def own_data(folder: Path) -> dict:
    folder.mkdir()
    for split in ("train", "validation"):
        lines = [json.dumps({"text": f"{split} text {place}", "label": "red"}) for place in range(60)]
        lines[0] = json.dumps({"text": "first", "label": "green"})
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return {"data_dir": str(folder), "task": "text-classification"}


def test_texts_are_read_only_when_asked_for(make, tmp_path):
    run = make(**own_data(tmp_path / "data"))
    names = [f"validation-{place}" for place in range(1, 61)]
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    write_predictions(run, [{**row, "id": name} for row, name in zip(rows, names, strict=True)])
    assert "text" not in next(table.value for table in page("errors").dataframe if "id" in table.value)
    app = page("errors", texts="true", search="text 3", outcome="all", by="order of the data")
    table = next(table.value for table in app.dataframe if "id" in table.value)
    assert list(table["text"])[:2] == ["validation text 3", "validation text 30"]
    assert "validation text 3" in texts(app.code)
    assert "not the data that the run was trained on" in texts(app.warning)  # the run has another hash


def test_texts_that_are_gone_are_found_in_the_folder_given(make, tmp_path):
    make(**own_data(tmp_path / "data"))
    (tmp_path / "data").rename(tmp_path / "moved")
    app = page("errors", texts="true")
    assert "The texts are not available" in texts(app.warning)
    assert "give the folder where it is now" in texts(app.warning)
    rerun(field(app.text_input, "Data folder").set_value(str(tmp_path / "moved")))
    assert "not available" not in texts(app.warning)
    assert field(app.text_input, "Search the texts")


def test_read_only_page_takes_no_folder_of_the_visitor(make, tmp_path, monkeypatch):
    make(**own_data(tmp_path / "data"))
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--read-only"])
    app = page("errors", texts="true")
    assert not [box for box in app.text_input if box.label == "Data folder"]


def test_dashboard_that_others_reach_reads_no_file_that_only_a_run_names(make, tmp_path, monkeypatch):
    make(**own_data(tmp_path / "data"))
    monkeypatch.setattr("analysis.pages.context.allowed_data", lambda: [tmp_path / "allowed"])
    app = page("errors", texts="true")
    assert "text" not in next(table.value for table in app.dataframe if "id" in table.value)
    app = rerun(field(app.toggle, "Show the texts").set_value(True))
    assert "the run's data: got" in texts(app.warning)
    monkeypatch.setattr("analysis.pages.context.allowed_data", lambda: [tmp_path / "data"])
    app = rerun(field(page("errors").toggle, "Show the texts").set_value(True))
    assert "not available" not in texts(app.warning)


def test_dashboard_that_others_reach_reads_the_place_that_it_has_checked(make, tmp_path, monkeypatch):
    """A run says where its data was as it was typed; the app is started in the same folder."""
    monkeypatch.chdir(tmp_path)
    make(**own_data(tmp_path / "data") | {"data_dir": "data"})
    monkeypatch.setattr("analysis.pages.context.allowed_data", lambda: [tmp_path / "data"])
    app = rerun(field(page("errors").toggle, "Show the texts").set_value(True))
    assert "not available" not in texts(app.warning)
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere" / "data")
    monkeypatch.setattr("analysis.pages.context.allowed_data", lambda: [tmp_path / "elsewhere"])
    app = rerun(field(page("errors").toggle, "Show the texts").set_value(True))
    assert "the run's data: got" in texts(app.warning)


def test_run_of_an_unknown_task_says_that_there_are_no_texts(make):
    make(task="mine")
    assert "Texts are known for these only" in texts(page("errors", texts="true").warning)


def test_names_from_files_are_shown_as_text(make):
    run = make(labels=["<img src=x>", "**b**"])
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    write_predictions(run, [{**row, "id": f"<b>{row['id']}</b>"} for row in rows])
    app = page("errors", class_gates="gold")
    shown = "\n".join(element.value for kind in (app.markdown, app.caption) for element in kind)
    assert r"\<b\>v\-" in shown
    assert not re.search(r"(?<!\\)<", shown)
    assert [title for title in figures(app) if "<" in title] == []
