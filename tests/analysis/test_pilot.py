"""Pilot: its plan, and how run folders and jobs say that it stands."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.pilot import (
    ChosenBudget,
    Pilot,
    arguments_of,
    current_step,
    look,
    start,
    trainings,
)
from analysis.pilot_proposal import propose
from apt_core.errors import AptValueError
from apt_core.run_format import RUN_FILE
from tests.analysis.pilot_world import BUDGET, LENGTHS, PILOT, ListedJobs, record_trainings
from tests.analysis.simulated_measures import simulate

UNSETTLED = PILOT.model_copy(update={"budget": None})


@pytest.fixture
def jobs() -> ListedJobs:
    return ListedJobs()


def states(found) -> list[str]:
    return [each.state for each in found.trainings]


def edit(folder, **fields) -> None:
    path = folder / RUN_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_trainings_go_seed_by_seed_and_are_named_by_arm():
    assert [each.name for each in trainings("demo", PILOT)][:4] == [
        "demo-full-s1",
        "demo-pruned-s1",
        "demo-uniform-s1",
        "demo-full-s2",
    ]
    assert len(trainings("demo", PILOT)) == 9
    assert [each.name for each in trainings("demo", UNSETTLED)] == ["demo-full-s1", "demo-full-s2", "demo-full-s3"]


def test_budget_that_is_uniform_has_no_pruned_arm():
    pilot = PILOT.model_copy(update={"budget": ChosenBudget(weighed_by="uniform", prefix_lengths=(8,) * 6)})
    assert pilot.arms == ("full", "uniform")
    assert pilot.candidate == "uniform"
    assert len(trainings("demo", pilot)) == 6


def test_commands_say_what_was_chosen(tmp_path):
    pilot = Pilot(
        task="text-classification",
        data={"train_file": "my data.csv", "label_column": "class"},
        epochs=3,
        shots=4,
        max_length=32,
        model="some/model",
        num_virtual_tokens=8,
        device="cpu",
        seeds=(5, 6),
        budget=BUDGET,
    )
    full, pruned, uniform, other, *_ = trainings("p", pilot)
    words = arguments_of(full, "p", pilot, tmp_path)
    assert words[:3] == ["train", "--task", "text-classification"]
    flags = dict(zip(words[1::2], words[2::2], strict=True))
    assert flags == {
        "--task": "text-classification",
        "--train-file": "my data.csv",
        "--label-column": "class",
        "--model": "some/model",
        "--num-virtual-tokens": "8",
        "--shots": "4",
        "--epochs": "3",
        "--max-length": "32",
        "--device": "cpu",
        "--seed": "5",
        "--out": str(tmp_path / "p-full-s5"),
    }
    parent, out = str(tmp_path / "p-full-s5"), str(tmp_path / "p-pruned-s5")
    lengths = ",".join(map(str, LENGTHS))
    expected = ["retrain", parent, "--prefix-lengths", lengths, "--seed", "5", "--out", out, "--no-measure"]
    assert arguments_of(pruned, "p", pilot, tmp_path) == expected
    assert "8,8,8,8,8,8" in arguments_of(uniform, "p", pilot, tmp_path)
    assert arguments_of(other, "p", pilot, tmp_path)[-1] == "--no-measure"


def test_every_flag_of_a_command_is_known_to_the_command_line(tmp_path):
    typer = pytest.importorskip("typer")
    from apt_core.__main__ import app

    commands = typer.main.get_command(app).commands
    for training in trainings("demo", PILOT):
        command, *words = arguments_of(training, "demo", PILOT, tmp_path)
        known = {flag for option in commands[command].params for flag in (*option.opts, *option.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"task": "nonsense"}, "accepted: pydoc-topic"),
        ({"seeds": (1, 1)}, "accepted: different ones"),
        ({"seeds": (1,)}, "at least 2 items"),
        ({"epochs": 0}, "epochs"),
        ({"data": {"nonsense": "x"}}, "nonsense"),
        ({"surplus": 1}, "surplus"),
        ({"budget": {"weighed_by": "gate", "prefix_lengths": [0, 0]}}, "every layer has length 0"),
        ({"budget": {"weighed_by": "luck", "prefix_lengths": [1]}}, "weighed_by"),
    ],
)
def test_unusable_fields_are_refused(fields, said):
    with pytest.raises(AptValueError, match=said):
        Pilot(**{"task": "pydoc-topic", "epochs": 1, **fields})


def test_pilot_without_anything_is_at_its_first_training(tmp_path, jobs):
    found = look("demo", UNSETTLED, tmp_path, jobs)
    assert states(found) == ["to start"] * 3
    assert current_step(UNSETTLED, found, measured=False) == 2
    assert not found.waits
    job = start(found.first, "demo", UNSETTLED, tmp_path, jobs)
    assert job.arguments[0] == "train"
    assert look("demo", UNSETTLED, tmp_path, jobs).first.state == "queued"


def test_steps_follow_from_run_folders_alone(tmp_path, jobs, record_run):
    record_trainings(record_run, tmp_path, only=1)
    found = look("demo", UNSETTLED, tmp_path, jobs)
    assert current_step(UNSETTLED, found, measured=False) == 3
    assert current_step(UNSETTLED, found, measured=True) == 4
    found = look("demo", PILOT, tmp_path, jobs)
    assert states(found) == ["finished"] + ["to start"] * 8
    assert current_step(PILOT, found, measured=True) == 5
    for folder in tmp_path.iterdir():
        folder.rename(tmp_path / "aside")
    record_trainings(record_run, tmp_path)
    found = look("demo", PILOT, tmp_path, jobs)
    assert states(found) == ["finished"] * 9
    assert current_step(PILOT, found, measured=True) == 7
    assert [run.name for run in found.runs("uniform")] == [f"demo-uniform-s{seed}" for seed in (1, 2, 3)]


@pytest.mark.parametrize("ending", ["failed", "cancelled", "lost"])
def test_training_that_ended_before_its_first_step_is_started_again(tmp_path, jobs, ending):
    first = start(look("demo", PILOT, tmp_path, jobs).first, "demo", PILOT, tmp_path, jobs)
    jobs.states[first.id] = ending
    found = look("demo", PILOT, tmp_path, jobs)
    assert (found.first.state, found.first.can_start) == (ending, True)
    second = start(found.first, "demo", PILOT, tmp_path, jobs)
    assert "--resume" in second.arguments
    assert look("demo", PILOT, tmp_path, jobs).first.state == "queued"


def test_interrupted_run_without_a_job_is_gone_on_with(tmp_path, jobs, record_run):
    (folder,) = record_trainings(record_run, tmp_path, only=1)
    edit(folder, status="running", pid=2**22 + 1)
    found = look("demo", PILOT, tmp_path, jobs)
    assert found.first.state == "interrupted"
    assert start(found.first, "demo", PILOT, tmp_path, jobs).arguments == ["train", "--out", str(folder), "--resume"]


def test_deleted_run_whose_job_had_finished_is_trained_anew(tmp_path, jobs):
    job = start(look("demo", PILOT, tmp_path, jobs).first, "demo", PILOT, tmp_path, jobs)
    jobs.states[job.id] = "finished"
    found = look("demo", PILOT, tmp_path, jobs)
    assert found.first.state == "to start"
    assert "--task" in start(found.first, "demo", PILOT, tmp_path, jobs).arguments


def test_measuring_at_the_end_of_the_training_is_waited_for(tmp_path, jobs, record_run):
    job = start(look("demo", PILOT, tmp_path, jobs).first, "demo", PILOT, tmp_path, jobs)
    jobs.states[job.id] = "running"
    record_trainings(record_run, tmp_path, only=1)
    found = look("demo", PILOT, tmp_path, jobs)
    assert found.first.state == "finished"
    assert found.measuring is not None
    assert found.waits
    jobs.states[job.id] = "finished"
    assert look("demo", PILOT, tmp_path, jobs).measuring is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"seed": 7}, "seed 7 instead of 1"),
        ({"task": "copa"}, "task 'copa' instead of 'pydoc-topic'"),
        ({"prefix_lengths": [1, 1, 1, 1, 1, 1]}, "lengths"),
        ({"training": {"epochs": 9}}, "epochs 9 instead of 2"),
        ({"training": {"epochs": 2, "max_length": 64}}, "sub-words per text 64 instead of 128"),
    ],
)
def test_another_run_under_the_same_name_is_told_apart(tmp_path, jobs, record_run, fields, said):
    (folder,) = record_trainings(record_run, tmp_path, only=1)
    edit(folder, **fields)
    first = look("demo", PILOT, tmp_path, jobs).first
    assert (first.state, first.can_start) == ("another run", False)
    assert said in first.problem


def test_retraining_on_data_that_has_changed_is_told_apart(tmp_path, jobs, record_run):
    folders = {folder.name: folder for folder in record_trainings(record_run, tmp_path)}
    for name in ("demo-full-s2", "demo-pruned-s2", "demo-uniform-s2"):
        edit(folders[name], data_hash="few-shot examples of another seed")
    assert states(look("demo", PILOT, tmp_path, jobs)) == ["finished"] * 9
    edit(folders["demo-pruned-s1"], data_hash="edited since")
    found = look("demo", PILOT, tmp_path, jobs)
    (other,) = [each for each in found.trainings if each.state != "finished"]
    assert (other.training.name, other.state) == ("demo-pruned-s1", "another run")
    assert "the data has changed since" in other.problem


def test_training_with_lengths_that_were_changed_is_submitted_anew(tmp_path, jobs, record_run):
    record_trainings(record_run, tmp_path, only=1)
    pruned = look("demo", PILOT, tmp_path, jobs).trainings[1]
    job = start(pruned, "demo", PILOT, tmp_path, jobs)
    jobs.states[job.id] = "cancelled"
    changed = PILOT.model_copy(update={"budget": ChosenBudget(weighed_by="gate", prefix_lengths=(1, 2, 3, 5, 6, 7))})
    again = start(look("demo", changed, tmp_path, jobs).trainings[1], "demo", changed, tmp_path, jobs)
    assert again.arguments[again.arguments.index("--prefix-lengths") + 1] == "1,2,3,5,6,7"


def test_run_folder_that_is_a_link_is_no_training(tmp_path, jobs, record_run):
    (folder,) = record_trainings(record_run, tmp_path / "elsewhere", only=1)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / folder.name).symlink_to(folder)
    first = look("demo", PILOT, tmp_path / "runs", jobs).first
    assert (first.state, first.problem) == ("another run", "it is a link; links are not followed")


def test_damaged_run_folder_is_no_training(tmp_path, jobs):
    (tmp_path / "demo-full-s1").mkdir()
    (tmp_path / "demo-full-s1" / RUN_FILE).write_text("{")
    first = look("demo", PILOT, tmp_path, jobs).first
    assert first.state == "another run"
    assert "damaged" in first.problem


def test_proposal_follows_what_was_measured_and_sums_exactly():
    effects = [np.full(4, level) for level in (1.0, 2.0, 5.0)]
    measures = simulate(effects)
    gates = np.full((3, 4), 0.5)
    by_effect = propose(8, "effect", gates, measures)
    assert by_effect.budget.prefix_lengths == (1, 2, 5)
    assert propose(6, "gate", gates, None).budget.prefix_lengths == (2, 2, 2)
    assert propose(7, "uniform", gates, measures).budget.prefix_lengths == (3, 2, 2)
    with pytest.raises(AptValueError, match="was not measured"):
        propose(6, "effect", gates, None)
    with pytest.raises(AptValueError, match="total"):
        propose(0, "gate", gates, None)


@given(st.integers(1, 200), st.integers(1, 30), st.integers(0, 2**31))
def test_proposal_sums_to_its_total_for_any_weights(total, num_layers, seed):
    weights = np.random.default_rng(seed).uniform(0, 1, (num_layers, 5))
    budget = propose(total, "gate", weights, None).budget
    assert budget.total == total == sum(budget.baseline)
