"""Every step of the Pilot page in Streamlit's own test runner, on recorded runs and with jobs that run nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from analysis.pilot import Pilot
from analysis.pilot_files import create_pilot, find_pilots, pilot_path
from apt_core.measure_format import write_measures
from apt_core.run_format import update_finished_run
from tests.analysis.pilot_world import BUDGET, PILOT, ListedJobs, record_trainings
from tests.analysis.simulated_measures import layered_effects, simulate
from tests.app_pages import button, field, labels, page, rerun, texts

PROJECT = Path(__file__).parents[1]
UNSETTLED = PILOT.model_copy(update={"budget": None})


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """The app looks at ``tmp_path/runs``."""
    monkeypatch.setattr(sys, "argv", ["app.py", "--runs", str(tmp_path / "runs")])
    return tmp_path / "runs"


@pytest.fixture
def jobs(root, monkeypatch) -> ListedJobs:
    """What the page submits to."""
    listed = ListedJobs()
    monkeypatch.setattr("analysis.pages.context.jobs", lambda: listed)
    return listed


@pytest.fixture
def own_data(tmp_path) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text("text,label\n" + "".join(f"text {number},{'ab'[number % 2]}\n" for number in range(40)))
    return path


def steps(app: AppTest) -> list[str]:
    return [each.label for each in app.expander if each.label[:1].isdigit()]


def fill(app: AppTest, place: str) -> AppTest:
    rerun(field(app.selectbox, "Task").set_value("text-classification"))
    field(app.text_area, "Question").set_value("Will half do?")
    field(app.text_input, "Name").set_value("mine")
    field(app.number_input, "Seeds").set_value(2)
    return rerun(field(app.text_input, "Data folder or training file").set_value(place))


def test_empty_folder_starts_with_the_question(root, jobs, own_data):
    app = fill(page("pilot"), str(own_data))
    assert "6 trainings" in texts(app.markdown)
    app = rerun(button(app, "Check the data and make the pilot").click())
    (pilot,) = find_pilots(root).pilots.values()
    assert pilot.split_sizes == {"train": 36, "validation": 4}
    assert (pilot.seeds, pilot.shots, pilot.data) == ((1, 2), None, {"train_file": str(own_data)})
    assert steps(app) == ["1 · Question and data · done", "2 · Train · now"]
    assert "Will half do?" in texts(app.markdown)
    assert "5 · Retrain · to come · up to 5 trainings, time not known before the first training" in texts(app.markdown)
    assert jobs.jobs == []


@pytest.mark.parametrize(("place", "said"), [("", "data-dir"), ("/not/here.csv", "not/here")])
def test_data_is_checked_before_anything_is_kept(root, jobs, place, said):
    app = rerun(button(fill(page("pilot"), place), "Check the data and make the pilot").click())
    assert said in texts(app.error)
    assert find_pilots(root).pilots == {}


@pytest.mark.parametrize("taken", ["mine-full-s2", "mine-uniform-s1"])
def test_names_that_are_taken_are_refused(root, jobs, own_data, taken):
    (root / taken).mkdir(parents=True)
    app = rerun(button(fill(page("pilot"), str(own_data)), "Check the data and make the pilot").click())
    assert f"There is a folder {taken}" in texts(app.error)
    assert find_pilots(root).pilots == {}


def test_first_training_is_started_cancelled_and_started_again(root, jobs):
    create_pilot(root, "demo", UNSETTLED)
    app = rerun(button(page("pilot"), "Start the training").click())
    (job,) = jobs.jobs
    assert job.arguments[-2:] == ["--out", str(root / "demo-full-s1")]
    assert "demo-full-s1 · queued" in texts(app.markdown)
    assert "Start the training" not in labels(app)
    jobs.states[job.id] = "running"
    app = rerun(button(page("pilot"), "Cancel").click())
    assert "demo-full-s1 · cancelled" in texts(app.markdown)
    rerun(button(app, "Start again").click())
    assert [each.arguments[-1] for each in jobs.jobs] == ["--resume", str(root / "demo-full-s1")]


def test_failed_training_shows_its_log(root, jobs):
    create_pilot(root, "demo", UNSETTLED)
    rerun(button(page("pilot"), "Start the training").click())
    jobs.states[jobs.jobs[0].id] = "failed"
    app = page("pilot")
    assert f"log of {jobs.jobs[0].id}" in texts(app.code)
    assert "Start again" in labels(app)


def test_unmeasured_run_is_measured_by_a_click_or_passed_over_with_a_warning(root, jobs, record_run):
    create_pilot(root, "demo", UNSETTLED)
    record_trainings(record_run, root, pilot=UNSETTLED, only=1)
    app = page("pilot")
    assert steps(app)[-2:] == ["3 · Audit · now", "4 · Budget · now"]
    assert f"python -m apt_core measure {root / 'demo-full-s1'}" in texts(app.code)
    assert "Without an audit" in texts(app.warning)
    app = rerun(button(app, "Measure now").click())
    assert jobs.jobs[0].arguments == ["measure", str(root / "demo-full-s1")]
    assert "Measure now" not in labels(app)
    rerun(button(app, "Use these lengths").click())
    pilot = find_pilots(root).pilots["demo"]
    assert pilot.budget.weighed_by == "gate"
    assert pilot.budget.total == 48
    assert list(pilot.budget.prefix_lengths) == sorted(
        pilot.budget.prefix_lengths
    )  # recorded gates rise with the layer
    assert "3 · Audit · skipped" in steps(page("pilot"))


def test_audit_is_shown_and_its_advice_is_the_start_of_the_budget(root, jobs, record_run):
    create_pilot(root, "demo", UNSETTLED)
    (folder,) = record_trainings(record_run, root, pilot=UNSETTLED, only=1)
    write_measures(folder, simulate(layered_effects(1, num_tokens=16)))
    app = page("pilot")
    assert steps(app)[2:] == ["3 · Audit · done", "4 · Budget · now"]
    assert "Do not follow the gates" in texts(app.error)  # its adapter is gone
    by = field(app.selectbox, "Share out by")
    assert by.value == "uniform"
    assert "there is no pruned arm" in texts(app.info)
    app = rerun(by.set_value("effect"))
    assert "there is no pruned arm" not in texts(app.info)
    rerun(field(app.number_input, "Virtual tokens to keep").set_value(24))
    rerun(button(app, "Use these lengths").click())
    assert find_pilots(root).pilots["demo"].budget.total == 24


def test_budget_can_be_changed_until_something_was_trained_with_it(root, jobs, record_run):
    create_pilot(root, "demo", PILOT)
    record_trainings(record_run, root, only=1)
    rerun(button(page("pilot"), "Change the budget").click())
    assert find_pilots(root).pilots["demo"].budget is None
    pilot_path(root, "demo").write_text(PILOT.model_dump_json())
    record_trainings(record_run, root / "aside")
    (root / "aside" / "demo-pruned-s1").rename(root / "demo-pruned-s1")
    app = page("pilot")
    assert "Change the budget" not in labels(app)
    assert "so they stay" in texts(app.caption)


def test_budget_can_still_be_changed_when_all_trainings_with_it_were_cancelled_in_the_queue(root, jobs, record_run):
    create_pilot(root, "demo", PILOT)
    record_trainings(record_run, root, only=1)
    app = rerun(button(page("pilot"), "Start all 8 trainings").click())
    assert "Change the budget" not in labels(app)
    rerun(button(app, "Cancel all").click())
    assert "Change the budget" in labels(page("pilot"))


def test_training_that_keeps_failing_does_not_hide_the_answer(root, jobs, record_run):
    create_pilot(root, "demo", PILOT)
    record_trainings(record_run, root)
    (root / "demo-uniform-s3").rename(root / "aside")
    app = page("pilot")
    assert steps(app)[-3:] == ["5 · Retrain · now", "6 · Decision · provisional", "7 · Report · provisional"]
    assert "the answer is provisional" in texts(app.markdown)
    assert "Download the report" in [each.proto.label for each in app.get("download_button")]


def test_cost_of_a_language_model_is_asked_for_in_its_own_unit(root, jobs):
    app = page("pilot")
    assert field(app.number_input, "Accepted cost (points)").value == 2.0
    app = rerun(field(app.selectbox, "Task").set_value("causal-lm"))
    assert field(app.number_input, "Accepted cost (perplexity)").value == 0.1


def test_one_click_starts_all_other_trainings(root, jobs, record_run):
    create_pilot(root, "demo", PILOT)
    record_trainings(record_run, root, only=1)
    app = rerun(button(page("pilot"), "Start all 8 trainings").click())
    assert len(jobs.jobs) == 8
    assert len({job.run_folder for job in jobs.jobs}) == 8
    assert not [label for label in labels(app) if label.startswith("Start")]
    jobs.states[jobs.jobs[0].id] = "failed"
    app = rerun(button(page("pilot"), "Start what is left (1)").click())
    assert len(jobs.jobs) == 9
    rerun(button(app, "Cancel all").click())
    waiting = [job for job in jobs.jobs if jobs.status(job.id) == "queued"]
    assert waiting == []


def test_run_of_something_else_under_a_name_of_the_pilot_is_said(root, jobs, record_run):
    create_pilot(root, "demo", PILOT)
    record_trainings(record_run, root, only=1)
    record_run(root / "demo-uniform-s2", steps=3, lengths=(1,) * 6)
    app = page("pilot")
    assert "demo-uniform-s2 is not a training of this pilot" in texts(app.error)
    assert "Start what is left (7)" in labels(app)


def test_finished_pilot_decides_and_offers_the_report(root, jobs, record_run):
    create_pilot(root, "demo", PILOT)
    record_trainings(record_run, root)
    app = page("pilot")
    assert steps(app)[-2:] == ["6 · Decision · done", "7 · Report · now"]
    assert "Prune: 48 instead of 96 virtual tokens cost at most 1.4 points" in texts(app.success)
    arms = next(table.value for table in app.dataframe if "arm" in table.value)
    assert list(arms["arm"]) == ["full", "pruned", "uniform"]
    assert list(arms["trained parameters"]) == [1152 * 96 + 100, 1152 * 48 + 100, 1152 * 48 + 100]
    assert "flatter every arm" in texts(app.markdown)
    assert "python -m analysis report" in texts(app.code)
    assert "Download the report" in [each.proto.label for each in app.get("download_button")]
    figure = next(json.loads(chart.proto.spec) for chart in app.get("plotly_chart"))
    assert figure["layout"]["title"]["text"] == "Validation accuracy"


def test_test_split_is_measured_by_one_click_and_then_decides(root, jobs, record_run):
    create_pilot(root, "demo", PILOT)
    folders = record_trainings(record_run, root)
    app = rerun(button(page("pilot"), "Measure the test split once").click())
    assert sorted(job.run_folder for job in jobs.jobs) == sorted(map(str, folders))
    assert {tuple(job.arguments[2:]) for job in jobs.jobs} == {("--split", "test")}
    assert "Measure the test split once" not in labels(app)
    for folder, job in zip(folders, reversed(jobs.jobs), strict=True):
        jobs.states[job.id] = "finished"
        value = 0.6 if "full" in folder.name else 0.5 + 0.001 * int(folder.name[-1])
        update_finished_run(folder, metrics={"validation": {"accuracy": 0.6}, "test": {"accuracy": value}})
    app = page("pilot")
    assert "Keep the full length" in texts(app.error)
    assert "Measure the test split once" not in labels(app)


def test_read_only_dashboard_shows_everything_and_starts_nothing(root, jobs, record_run, monkeypatch):
    create_pilot(root, "demo", PILOT)
    create_pilot(root, "fresh", Pilot(task="pydoc-topic", epochs=1))
    record_trainings(record_run, root)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--read-only"])
    app = page("pilot", pilot="demo")
    assert "Prune:" in texts(app.success)
    assert labels(app) == []
    assert "Download the report" in [each.proto.label for each in app.get("download_button")]
    assert labels(page("pilot", pilot="fresh")) == []
    assert "python -m apt_core train" in texts(page("pilot", pilot="fresh").code)


def test_read_only_dashboard_without_a_pilot_offers_none(root, jobs, monkeypatch):
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--read-only"])
    assert "read-only" in texts(page("pilot").info)


def test_deleted_pilot_keeps_its_runs_and_comes_back(root, jobs, record_run):
    create_pilot(root, "demo", PILOT)
    record_trainings(record_run, root, only=1)
    app = rerun(button(page("pilot"), "Delete pilot").click())
    app = rerun(button(app, "Delete").click())
    assert find_pilots(root).pilots == {}
    assert (root / "demo-full-s1").is_dir()
    rerun(button(app, "Undo").click())
    assert list(find_pilots(root).pilots) == ["demo"]


def test_link_opens_a_pilot_and_a_new_one_can_be_begun_and_left(root, jobs):
    create_pilot(root, "a", PILOT)
    create_pilot(root, "b", PILOT.model_copy(update={"created_at": "2026-04-01T00:00:00+00:00", "question": "Other?"}))
    assert "Other?" in texts(page("pilot").markdown)
    app = page("pilot", pilot="a")
    assert "Will half do?" in texts(app.markdown)
    app = rerun(button(app, "New pilot").click())
    assert steps(app) == []
    app = rerun(button(app, "Cancel").click())
    assert steps(app)[0].startswith("1 ·")


def test_damaged_pilot_is_listed_and_hostile_texts_are_text(root, jobs):
    create_pilot(root, "demo", PILOT.model_copy(update={"question": "<img src=x> **bold** [a](b)"}))
    pilot_path(root, "bad").write_text("{")
    app = page("pilot")
    assert "Not readable (1)" in [each.label for each in app.expander]
    assert "\\<img src=x\\> \\*\\*bold" in "\n".join(each.value for each in app.markdown)


def test_pilot_pages_never_load_torch():
    script = (
        "import sys\n"
        "from analysis.pages import pilot\n"
        "import analysis.commands.report, analysis.report\n"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert result.stdout == "[]\n"


def test_budget_of_the_world_is_what_the_page_shows(root, jobs, record_run):
    create_pilot(root, "demo", PILOT)
    record_trainings(record_run, root, only=1)
    table = next(each.value for each in page("pilot").dataframe if "budget" in each.value)
    assert tuple(table["budget"]) == BUDGET.prefix_lengths
    assert tuple(table["uniform"]) == BUDGET.baseline
