"""Every control of the Tasks page in Streamlit's own test runner."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analysis.transfer_results import find_transfers
from apt_core.transfer_format import Transfer, TransferRun, write_transfer
from tests.app_pages import page, rerun, texts

TITLE = "Likeness of gate profiles (Spearman)"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The app looks at ``tmp_path/runs``."""
    monkeypatch.setattr(sys, "argv", ["app.py", "--runs", str(tmp_path / "runs")])
    return tmp_path / "runs"


@pytest.fixture
def two_tasks(folder, record_run) -> Path:
    """Three runs of each of two tasks, one pruned run and one of another depth."""
    for number in range(3):
        for task in ("copa", "rte"):
            record_run(folder / f"{task}-{number}", steps=3, seed=number, task=task)
    record_run(folder / "pruned", steps=3, lengths=(1, 2, 3, 4, 5, 6))
    record_run(folder / "deep", steps=3, lengths=(4,) * 12)
    return folder


def transfer(**changes) -> Transfer:
    values = {"source": (0.62, 0.70, 0.58), "uniform": (0.60, 0.66, 0.55), "own": (0.7, 0.6, 0.6)}
    runs = [
        TransferRun(arm=arm, seed=seed, folder=f"{arm}-seed{seed}", prefix_lengths=[4, 3], metric=value)
        for arm, column in values.items()
        for seed, value in enumerate(column, start=1)
    ]
    fields = {
        "updated_at": "2026-01-01T00:00:00+00:00", "source": "rte_1", "source_task": "rte", "source_basis": "gates",
        "own": "own-full", "own_basis": "gates", "task": "copa", "model": "m", "num_layers": 2, "total": 7,
        "seeds": [1, 2, 3], "arms": list(values), "metric_name": "accuracy", "greater_is_better": True, "runs": runs,
        "command": "python -m apt_core transfer rte_1",
    }  # fmt: skip
    return Transfer(**{**fields, **changes})


def figure(app: AppTest) -> dict:
    (chart,) = app.get("plotly_chart")
    return json.loads(chart.proto.spec)


def table(app: AppTest, *columns: str):
    """The one table with these columns first."""
    return next(each.value for each in app.dataframe if tuple(each.value.columns[: len(columns)]) == columns)


def test_without_runs_the_page_says_what_makes_one(folder):
    app = page("tasks")
    assert "python -m apt_core train" in texts(app.code)
    assert "python -m apt_core transfer RUN --task TASK" in texts(app.code)


def test_one_run_has_nothing_to_be_compared_with(folder, record_run):
    record_run(folder / "a", steps=2)
    app = page("tasks")
    assert "It takes two runs" in texts(app.info)
    assert not app.get("plotly_chart")


def test_profiles_of_the_same_depth_are_compared_and_others_listed(two_tasks):
    app = page("tasks")
    drawn = figure(app)
    assert drawn["layout"]["title"]["text"] == TITLE
    names = drawn["layout"]["xaxis"]["ticktext"]
    assert sorted(names) == sorted(f"{task}: {task}-{number}" for number in range(3) for task in ("copa", "rte"))
    assert [trace["type"] for trace in drawn["data"]] == ["heatmap", "scatter"]
    said = texts(app.markdown)
    assert "runs/deep: it has 12 layers, not 6" in said
    assert "runs/pruned: its layers have different lengths" in said
    assert "6 pairs of one task" in said
    assert "9 pairs of different tasks" in said
    shares = table(app, "run", "task", "layer 1")
    assert shares[[f"layer {layer}" for layer in range(1, 7)]].sum(axis=1).tolist() == [pytest.approx(1)] * 6


def test_link_restores_kind_order_and_runs(two_tasks):
    app = page("tasks", likeness="cosine", run_order="task", profiles=["runs/rte-1", "runs/copa-0", "runs/copa-2"])
    drawn = figure(app)
    assert drawn["layout"]["xaxis"]["ticktext"] == ["copa: copa-0", "copa: copa-2", "rte: rte-1"]
    assert len(drawn["data"]) == 1
    assert "(cosine)" in drawn["layout"]["title"]["text"]


def test_pruned_runs_can_be_added(two_tasks):
    app = page("tasks", with_lengths="true")
    assert "runs/pruned" in app.multiselect[0].value


def test_other_runs_are_chosen_once_another_depth_or_kind_is(two_tasks):
    app = rerun(page("tasks").selectbox(key="layers").set_value(12))
    assert app.multiselect[0].value == ["runs/deep"]
    app = rerun(app.selectbox(key="layers").set_value(6))
    assert len(app.multiselect[0].value) == 6
    app = rerun(app.toggle(key="with_lengths").set_value(True))
    assert "runs/pruned" in app.multiselect[0].value
    app = rerun(app.multiselect[0].set_value(["runs/pruned"]))
    assert "Choose at least two runs" in texts(app.info)


def test_another_depth_leaves_its_own_runs(two_tasks):
    app = page("tasks", layers="12")
    assert app.multiselect[0].value == ["runs/deep"]
    assert "It takes two runs" in texts(app.info)


def test_different_backbones_are_warned_about(two_tasks, record_run):
    record_run(two_tasks / "foreign", steps=3, model="other/**bert**")
    said = texts(page("tasks").warning)
    assert "2 backbones" in said
    assert "is not the layer of the other" in said


def test_damaged_gates_are_a_reason_and_the_others_stand(two_tasks):
    next((two_tasks / "rte-0" / "gates").iterdir()).write_bytes(b"damaged")
    app = page("tasks")
    assert len(figure(app)["layout"]["xaxis"]["ticktext"]) == 5
    assert "runs/rte-0: its gates cannot be read" in texts(app.markdown)


def test_transfer_is_shown_with_its_verdict(folder):
    (folder / "moved").mkdir(parents=True)
    write_transfer(folder / "moved", transfer())
    app = page("tasks")
    assert "The lengths of rte_1 (rte) carry over to copa: against uniform lengths, better than uniform" in texts(
        app.markdown
    )
    assert list(table(app, "lengths of", "mean")["lengths of"]) == ["source", "own", "uniform"]
    differences = table(app, "lengths of", "against")
    assert list(differences["difference"]) == [pytest.approx(0.03), pytest.approx(0.0)]
    assert differences["result"][1].startswith("undecided at 3 seeds")


def test_unfinished_transfer_says_so(folder):
    folder.mkdir()
    write_transfer(folder, transfer(seeds=[1, 2, 3, 4]))
    app = page("tasks")
    assert "Not all seeds are finished" in texts(app.markdown)
    assert "The same command goes on with it" in texts(app.info)


def test_latest_transfer_comes_first_and_a_link_restores_another(folder):
    for name, day in (("a", "02"), ("b", "03")):
        (folder / name).mkdir(parents=True)
        write_transfer(folder / name, transfer(updated_at=f"2026-01-{day}T00:00:00+00:00", task=name))
    app = page("tasks")
    assert "to b:" in texts(app.markdown)
    assert list(table(app, "folder", "source")["folder"]) == ["b", "a"]
    assert "to a:" in texts(page("tasks", transfer=(folder / "a").as_posix()).markdown)


def test_damaged_and_linked_transfers_are_listed_and_never_followed(folder, tmp_path):
    (folder / "bad").mkdir(parents=True)
    (folder / "bad" / "transfer.json").write_text("{")
    (tmp_path / "elsewhere").mkdir()
    write_transfer(tmp_path / "elsewhere", transfer())
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "filelink").mkdir()
    (folder / "filelink" / "transfer.json").symlink_to(tmp_path / "elsewhere" / "transfer.json")
    found = find_transfers([folder, tmp_path / "missing"])
    assert not found.transfers
    assert [rejected.folder.name for rejected in found.rejected] == ["bad", "filelink"]
    said = texts(page("tasks").warning)
    assert "damaged" in said
    assert "links in a run folder are not followed" in said


def test_text_of_a_report_is_not_read_as_formatting(folder):
    folder.mkdir()
    write_transfer(folder, transfer(source="**x**", task="[a](http://b)", metric_name="$y$"))
    said = "\n".join(str(element.value) for element in (*page("tasks").markdown, *page("tasks").caption))
    assert "\\*\\*x\\*\\*" in said
    assert "[a](" not in said
