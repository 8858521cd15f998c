"""Every control of the Sweeps page in Streamlit's own test runner, on recorded runs and with jobs that run nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analysis.figures.sweep import sweep_figure, sweep_lines
from analysis.sweep_results import find_sweeps, trainings_table
from apt_core.errors import AptValueError
from apt_core.jobs import JobReport
from apt_core.run_format import update_finished_run
from apt_core.sweep_format import budget_path, read_sweep, write_sweep
from apt_core.sweep_look import look, runs_of
from apt_core.sweep_process import only_driver
from apt_core.sweep_summary import summarise
from tests.app_pages import TIMEOUT, field, labels, rerun, texts
from tests.apt_core.sweep_world import SPEC, TrainingJobs, begun, record

PROJECT = Path(__file__).parents[1]
ONE = SPEC.replace(', "pydoc-entities"', "")
FULL, SHARE, UNIFORM = (f"pydoc-topic-lr0.01-s1-{end}" for end in ("full", "b6-share", "b6-uniform"))
ACCURACY = {"full": 0.62, "share": 0.61, "uniform": 0.58}
NAVIGATION = """
import streamlit as st
from analysis.pages import sweeps

def other():
    st.text(str({key: st.query_params.get_all(key) for key in st.query_params}))

pages = {"sweeps": st.Page(sweeps.show, url_path="sweeps", default=True)}
pages |= {name: st.Page(other, url_path=name, title=name) for name in ("gates", "compare")}
st.session_state["pages"] = pages
st.navigation(list(pages.values())).run()
"""


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """The app looks at ``tmp_path/runs``."""
    monkeypatch.setattr(sys, "argv", ["app.py", "--runs", str(tmp_path / "runs")])
    return tmp_path / "runs"


@pytest.fixture
def started(monkeypatch) -> list[tuple[Path, bool]]:
    """Drivers that the page would have started: folder, and whether what failed is tried again."""
    calls: list[tuple[Path, bool]] = []

    def start(out, sweep, *, retry_failed=False):
        calls.append((out, retry_failed))

    monkeypatch.setattr("analysis.pages.sweeps.start_driver", start)
    monkeypatch.setattr("analysis.pages.sweeps_form.start_driver", start)
    return calls


@pytest.fixture
def sweep(root, record_run, monkeypatch):
    """Makes a sweep with its first so many runs, and the jobs that the page sees."""

    def make(name: str = "grid", text: str = ONE, finished: int = 100):
        recorded = begun(root / name, text)
        for number, training in enumerate(recorded.plan[:finished]):
            lengths = [training.total - 5, 2, 3] if training.method == "share" else None
            accuracy = ACCURACY[training.method] + 0.01 * number
            record(record_run, recorded, training, lengths, accuracy, created_at="2026-03-01T00:00:00+00:00")
        jobs = TrainingJobs(record_run, recorded)
        jobs.frozen = True
        monkeypatch.setattr("analysis.pages.sweeps.jobs_of", lambda out, state: jobs)
        return recorded, jobs

    return make


def sweeps(script: str = "from analysis.pages import sweeps\nsweeps.show()", **query: str) -> AppTest:
    app = AppTest.from_string(script, default_timeout=TIMEOUT)
    for key, value in query.items():
        app.query_params[key] = value
    return rerun(app)


def spec_shown(app: AppTest) -> dict:
    return tomllib.loads(next(each.value for each in app.code if each.language == "toml"))


def test_page_never_loads_torch():
    script = (
        "import sys\nfrom analysis.pages import sweeps\nprint([n for n in sys.modules if n in ('torch', 'datasets')])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert result.stdout == "[]\n"


def test_empty_folder_says_what_makes_a_sweep_and_shows_the_form(root, started):
    app = sweeps()
    assert "There is no sweep" in texts(app.info)
    assert "python -m apt_core sweep SPEC.toml" in texts(app.code)
    assert "**15 trainings**" in texts(app.markdown)
    assert spec_shown(app) == {
        "tasks": ["pydoc-topic"], "seeds": 3, "budgets": [1.0, 0.5, 0.25], "methods": ["share", "uniform"],
        "train": {"num-virtual-tokens": 16},
    }  # fmt: skip
    assert f"python -m apt_core sweep {root}/sweep-1/sweep.toml --out {root}/sweep-1" in texts(app.code)
    assert started == []
    assert not root.exists()


def test_form_writes_the_spec_that_it_shows_and_starts_the_driver(root, started):
    app = sweeps()
    field(app.text_input, "Name").set_value("mine")
    field(app.multiselect, "Tasks").set_value(["pydoc-topic", "pydoc-entities"])
    field(app.number_input, "Seeds").set_value(2)
    field(app.text_input, "Budgets").set_value("1.0, 48")
    field(app.multiselect, "Lengths by").set_value(["share"])
    field(app.text_input, "Learning rates").set_value("0.01, 1e-3")
    field(app.toggle, "Measure test").set_value(True)
    field(app.number_input, "Epochs").set_value(1)
    field(app.number_input, "Examples per class").set_value(4)
    field(app.selectbox, "Device").set_value("cpu")
    app = rerun(field(app.text_input, "Backbone").set_value("gpt2"))
    assert "Up to **16 trainings**" in texts(app.markdown)
    expected = {
        "tasks": ["pydoc-topic", "pydoc-entities"], "seeds": 2, "budgets": [1.0, 48], "methods": ["share"],
        "learning_rates": [0.01, 0.001], "test": True,
        "train": {"epochs": 1, "num-virtual-tokens": 16, "shots": 4, "model": "gpt2", "device": "cpu"},
    }  # fmt: skip
    assert spec_shown(app) == expected
    app = rerun(field(app.button, "Check the data and start").click())
    assert started == [(root / "mine", False)]
    assert tomllib.loads((root / "mine" / "sweep.toml").read_text()) == expected
    assert "Here is the spec of a sweep that has not begun" in texts(app.info)
    assert app.selectbox(key="sweep").value == (root / "mine").as_posix()
    rerun(field(app.button, "Begin").click())
    assert started == [(root / "mine", False)] * 2
    field(app.text_input, "Name").set_value("mine")
    app = rerun(field(app.button, "Check the data and start").click())
    assert "There is a folder of this name" in texts(app.error)


@pytest.mark.parametrize(
    ("label", "value", "said"),
    [
        ("Budgets", "1.0, half", "budgets: got"),
        ("Budgets", "1.0, 1.5", "budgets: got"),
        ("Budgets", "", "budgets: got []"),
        ("Learning rates", "0", "learning_rates: got [0]"),
        ("Name", "../up", "name: got"),
        ("Backbone", " ", "train.model: got"),
    ],
)
def test_form_says_what_is_wrong_and_offers_no_start(root, started, label, value, said):
    app = sweeps()
    app = rerun(field(app.text_input, label).set_value(value))
    assert said in texts(app.warning)
    assert "Check the data and start" not in labels(app)


def test_own_data_is_checked_before_anything_is_kept(root, started, tmp_path):
    (tmp_path / "mine.csv").write_text("words,kind\n" + "a b,x\nc d,y\n" * 20)
    app = sweeps()
    app = rerun(field(app.multiselect, "Tasks").set_value(["text-classification"]))
    app = rerun(field(app.button, "Check the data and start").click())
    assert "data-dir: task text-classification reads your own data" in texts(app.error)
    place = field(app.text_input, "text-classification: data folder or training file")
    app = rerun(place.set_value(str(tmp_path / "mine.csv")))
    app = rerun(field(app.button, "Check the data and start").click())
    assert "no column 'label'" in texts(app.error)
    assert started == []
    assert not root.exists()
    field(app.text_input, "Text column").set_value("words")
    app = rerun(field(app.text_input, "Label column").set_value("kind"))
    own = {"train-file": str(tmp_path / "mine.csv"), "text-column": "words", "label-column": "kind"}
    assert spec_shown(app)["train"]["text-classification"] == own
    rerun(field(app.button, "Check the data and start").click())
    assert started == [(root / "sweep-1", False)]


def test_folder_with_a_dot_in_its_name_is_a_folder(root, started, tmp_path):
    (tmp_path / "data.v1").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "data.v1" / f"{split}.csv").write_text("text,label\n" + "a b,x\nc d,y\n" * 20)
    app = rerun(field(sweeps().multiselect, "Tasks").set_value(["text-classification"]))
    place = field(app.text_input, "text-classification: data folder or training file")
    app = rerun(place.set_value(str(tmp_path / "data.v1")))
    assert spec_shown(app)["train"]["text-classification"] == {"data-dir": str(tmp_path / "data.v1")}
    rerun(field(app.button, "Check the data and start").click())
    assert started == [(root / "sweep-1", False)]


def test_what_is_typed_is_looked_up_only_for_those_who_may_start(root, started, tmp_path, monkeypatch):
    """In an app that is open to others, data and backbones are taken from named folders alone."""
    monkeypatch.setattr("analysis.pages.context.allowed_data", lambda: [tmp_path / "data"])
    (tmp_path / "data").mkdir()
    for folder in (tmp_path / "data", tmp_path):
        (folder / "mine.csv").write_text("text,label\n" + "a b,x\nc d,y\n" * 20)
    app = sweeps()
    app = rerun(field(app.multiselect, "Tasks").set_value(["text-classification"]))
    place = field(app.text_input, "text-classification: data folder or training file")
    app = rerun(place.set_value(str(tmp_path / "mine.csv")))
    app = rerun(field(app.button, "Check the data and start").click())
    assert "It is, or a link leads, elsewhere" in texts(app.error)
    place = field(app.text_input, "text-classification: data folder or training file")
    app = rerun(place.set_value("mine.csv"))
    field(app.text_input, "Backbone").set_value(str(tmp_path))
    app = rerun(field(app.button, "Check the data and start").click())
    assert "model: got" in texts(app.error)
    field(app.text_input, "Backbone").set_value("minilm")
    rerun(field(app.button, "Check the data and start").click())
    assert started == [(root / "sweep-1", False)]
    train = tomllib.loads((root / "sweep-1" / "sweep.toml").read_text())["train"]
    assert train["text-classification"] == {"train-file": str(tmp_path / "data" / "mine.csv")}


def test_read_only_dashboard_shows_the_command_and_starts_nothing(root, sweep, monkeypatch):
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--read-only"])
    sweep(finished=2)
    app = sweeps()
    assert not {"Check the data and start", "Go on", "Stop", "Begin"} & set(labels(app))
    assert "python -m apt_core sweep" in texts(app.code)
    assert "Nobody submits the rest" in texts(app.warning)


def test_finished_sweep_shows_its_table(root, sweep, started):
    sweep()
    app = sweeps()
    assert "Complete" in texts(app.success)
    table = app.dataframe[0].value
    assert list(table["lengths"]) == ["full", "share", "uniform"]
    assert list(table["seeds"]) == ["2 of 2"] * 3
    assert list(table["validation"]) == pytest.approx([0.635, 0.635, 0.615])
    assert table["validation ±"][0] == pytest.approx(12.706 * 0.015, rel=1e-3)
    assert table["minus uniform (validation)"][1].startswith("+2.00")
    assert "test" not in table
    assert not {"Go on", "Stop"} & set(labels(app))
    assert [each.proto.text for each in app.get("progress")] == ["6 of 6 done"]
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    assert [trace["name"] for trace in figure["data"]] == ["full", "share", "uniform"]


def test_test_split_can_be_chosen_once_it_is_measured(root, sweep):
    recorded, _ = sweep(text="test = true\n" + ONE)
    for training in recorded.plan:
        metrics = {"validation": {"accuracy": 0.6}, "test": {"accuracy": 0.5 + 0.01 * training.seed}}
        update_finished_run(recorded.folder / training.name, metrics=metrics)
    app = sweeps(sweep_split="test")
    assert list(app.dataframe[0].value["test"]) == pytest.approx([0.515] * 3)
    assert app.segmented_control(key="sweep_split").value == "test"


def test_running_sweep_shows_how_far_it_is_and_can_be_stopped(root, sweep, started):
    recorded, jobs = sweep(finished=1)
    job = jobs.submit(["retrain"], recorded.folder / SHARE)
    jobs.reports[job.id] = JobReport("running")
    waiting = jobs.submit(["train"], recorded.folder / UNIFORM)
    with only_driver(recorded.folder):
        app = sweeps()
        assert f"{SHARE} · train, preparing" in texts(app.markdown)
        assert "Go on" not in labels(app)
        assert list(app.dataframe[0].value["seeds"]) == ["1 of 2", "0 of 2", "0 of 2"]
        app = rerun(field(app.button, "Stop").click())
    assert (recorded.folder / ".stop").exists()  # for the driver
    assert jobs.status(job.id) == "running"
    app = rerun(field(sweeps().button, "Stop").click())
    assert {jobs.status(each.id) for each in (job, waiting)} == {"cancelled"}
    assert "Go on" in labels(app)
    rerun(field(app.button, "Go on").click())
    assert started == [(recorded.folder, False)]


def test_failed_training_is_shown_with_its_reason(root, sweep, started):
    recorded, jobs = sweep(finished=0)
    job = jobs.submit(["train"], recorded.folder / FULL)
    jobs.reports[job.id] = JobReport("failed", exit_code=1)
    app = sweeps()
    assert f"{FULL} · failed: log of {job.id}" in texts(app.markdown)
    rerun(field(app.button, "Go on, failed ones too").click())
    assert started == [(recorded.folder, True)]


def test_sweep_runs_where_the_trainings_of_this_dashboard_run(root, monkeypatch):
    started = []
    monkeypatch.setattr("analysis.pages.sweeps_form.start_driver", lambda out, sweep: started.append(sweep))
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--executor", "ray", "--address", "http://10.0.0.4:8265"])
    app = sweeps()
    app = rerun(field(app.text_input, "Name").set_value("far"))
    assert "--executor ray --address http://10.0.0.4:8265" in texts(app.code)
    rerun(field(app.button, "Check the data and start").click())
    assert [(sweep.executor, sweep.address) for sweep in started] == [("ray", "http://10.0.0.4:8265")]


def test_start_that_is_refused_is_said(root, sweep, monkeypatch):
    recorded, _ = sweep(finished=1)
    app = sweeps()
    monkeypatch.setattr("analysis.pages.sweeps.is_driven", lambda folder: False)
    with only_driver(recorded.folder):  # somebody else was quicker
        app = rerun(field(app.button, "Go on").click())
    assert "no other driver" in texts(app.error)


def test_driver_that_refused_its_spec_says_why(root, started):
    folder = root / "bad"
    folder.mkdir(parents=True)
    (folder / "sweep.toml").write_text(ONE)
    (folder / "sweep.log").write_text("error: model: got 'x', which transformers cannot load <b>.\n")
    app = sweeps()
    assert "It has not begun" in texts(app.error)
    assert "which transformers cannot load" in texts(app.code)
    rerun(field(app.button, "Begin").click())
    assert started == [(folder, False)]


def test_sweep_is_chosen_in_the_address_and_the_latest_first(root, sweep):
    recorded, _ = sweep("older")
    write_sweep(recorded.folder, read_sweep(recorded.folder).model_copy(update={"created_at": "2025"}))
    sweep("newer", text=ONE.replace("seeds = 2", "seeds = 1"))
    app = sweeps()
    assert [Path(folder).name for folder in app.selectbox(key="sweep").options] == ["newer", "older"]
    assert list(app.dataframe[0].value["seeds"]) == ["1 of 1"] * 3
    app = sweeps(sweep=recorded.folder.as_posix())
    assert list(app.dataframe[0].value["seeds"]) == ["2 of 2"] * 3


def test_figure_has_a_line_per_method_and_intervals_beside_each_other(root, sweep):
    recorded, jobs = sweep(text=ONE.replace("[1.0, 0.5]", "[1.0, 0.5, 9]"))
    cells = summarise(recorded.plan, runs_of(look(recorded, jobs)))
    lines = sweep_lines(cells, "validation")
    assert {method: [point.total for point in points] for method, points in lines.lines.items()} == {
        "full": [12], "share": [6, 9], "uniform": [6, 9],
    }  # fmt: skip
    assert lines.lines["full"][0].mean == pytest.approx(0.645)
    figure = sweep_figure(lines)
    full, share, uniform = figure.data
    assert (full.x[0], full.marker.symbol) == (12, "diamond")
    assert [x < total for x, total in zip(share.x, (6, 9), strict=True)] == [True, True]
    assert share.x[1] + uniform.x[1] == pytest.approx(18)
    assert share.error_y.array[0] > 0
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == (
        "virtual tokens over all layers",
        "validation accuracy",
    )
    empty = sweep_figure(sweep_lines(cells, "test"))
    assert empty.layout.annotations[0].text == "no training has finished yet"
    assert empty.layout.title.text == "Test accuracy"


def test_task_and_learning_rate_choose_the_figure(root, sweep):
    sweep(text=SPEC.replace("[0.01]", "[0.01, 0.02]"), finished=0)
    app = sweeps()
    app = rerun(app.selectbox(key="sweep_task").set_value("pydoc-entities"))
    app = rerun(app.selectbox(key="sweep_rate").set_value("0.02"))
    assert len(app.dataframe[0].value) == 12


def test_runs_open_on_other_pages(root, sweep):
    sweep()
    app = sweeps(NAVIGATION)
    assert [label for label in labels(app) if label.startswith("Gates")] == ["Gates, seed 1", "Gates, seed 2"]
    app = rerun(app.selectbox(key="sweep_cell").set_value("6 virtual tokens, share"))
    app = rerun(field(app.button, "Compare").click())
    second = SHARE.replace("s1", "s2")
    assert app.text[0].value == str({"run": [f"grid/{SHARE}"], "compared": [f"grid/{SHARE}", f"grid/{second}"]})


def test_hostile_sweeps_are_text_or_refused(root, sweep, tmp_path):
    recorded, _ = sweep(finished=0)
    bad = "<img src=x onerror=alert(1)> [a](b) **c**"
    write_sweep(recorded.folder, read_sweep(recorded.folder).model_copy(update={"problems": {FULL: bad}}))
    app = sweeps()
    said = "\n".join(each.value for each in app.markdown)
    assert r"\<img" in said
    assert r"\[a\]\(b\)" in said
    for name, content in (("broken", "{"), ("newer", json.dumps({"schema_version": 99})), ("link", None)):
        folder = root / name
        folder.mkdir()
        (folder / "sweep.toml").write_text(ONE)
        if content is None:
            (folder / "sweep.json").symlink_to(recorded.folder / "sweep.json")
        else:
            (folder / "sweep.json").write_text(content)
    (root / "linked").symlink_to(recorded.folder)
    app = sweeps()
    assert len(app.warning) == 3 + 1  # and the sweep that is shown has no driver
    found = find_sweeps([root])
    assert list(found.sweeps) == [recorded.folder.as_posix()]
    assert [rejected.folder.name for rejected in found.rejected] == ["broken", "link", "newer"]


def test_lost_run_folder_of_a_sweep_is_shown_as_what_it_is(root, sweep):
    recorded, _ = sweep(finished=1)
    (recorded.folder / FULL / "run.json").write_text("{")
    app = sweeps()
    assert f"{FULL} · another run" in texts(app.markdown)


def test_download_has_every_training(root, sweep):
    recorded, jobs = sweep(finished=2)
    table = trainings_table(look(recorded, jobs))
    assert list(table["run"]) == [training.name for training in recorded.plan]
    assert list(table["state"]) == ["finished", "finished", *["waiting"] * 4]
    assert list(table["prefix_lengths"])[:2] == ["4 x 3", "1 2 3"]
    assert table["validation"][0] == pytest.approx(0.62)
    assert budget_path(recorded.folder, recorded.plan[1]).parent.name == ".budgets"


def test_name_of_a_folder_below_another_is_refused_as_pages_would_not_find_it(root, started):
    app = sweeps()
    field(app.text_input, "Name").set_value("a/b")
    app = rerun(app)
    assert "name: got 'a/b'" in texts(app.warning)
    assert started == []


def test_sweep_on_another_cluster_is_shown_from_its_runs_and_the_cluster_is_not_asked(root, sweep, monkeypatch):
    recorded, _ = sweep(finished=3)
    write_sweep(recorded.folder, recorded.sweep.model_copy(update={"executor": "ray", "address": "http://10.9.9.9:1"}))

    def ask(out, state):
        raise AssertionError("it was asked")

    monkeypatch.setattr("analysis.pages.sweeps.jobs_of", ask)
    app = sweeps()
    assert "Its jobs are on http://10.9.9.9:1, which this dashboard does not ask" in texts(app.info)
    assert "streamlit run app.py -- --executor ray --address http://10.9.9.9:1" in texts(app.code)
    assert not {"Stop", "Go on"} & {each.label for each in app.button}
    assert len(app.dataframe) > 0


def test_sweep_whose_jobs_cannot_be_asked_is_shown_from_its_runs(root, sweep, monkeypatch):
    sweep(finished=3)

    def fail(out, state):
        raise AptValueError("the cluster does not answer")

    monkeypatch.setattr("analysis.pages.sweeps.jobs_of", fail)
    app = sweeps()
    assert "Its jobs cannot be asked; what follows is from run folders. the cluster does not answer" in texts(
        app.warning
    )
    assert len(app.dataframe) > 0
