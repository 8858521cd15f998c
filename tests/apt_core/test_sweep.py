"""What a driver submits and what it leaves: each training once, whatever ended before it came."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from apt_core.budget_file import BudgetFile, budget_text, read_budget
from apt_core.errors import AptError, AptUnreachableError
from apt_core.jobs import JobReport
from apt_core.memory import RAN_OUT
from apt_core.run_format import read_run_info, update_finished_run
from apt_core.sweep import MOST_QUEUED, MOST_TRIES, Outcome, drive
from apt_core.sweep_format import Sweep, budget_path, read_recorded, read_sweep, write_sweep
from apt_core.sweep_look import counts_of, look
from apt_core.sweep_process import is_driven, only_driver, stop
from tests.apt_core.jobs.programs import until
from tests.apt_core.sweep_world import SPEC, TrainingJobs, begun, record

FULL, SHARE, UNIFORM = (f"pydoc-topic-lr0.01-s1-{end}" for end in ("full", "b6-share", "b6-uniform"))
ONE = SPEC.replace(', "pydoc-entities"', "").replace("seeds = 2", "seeds = 1")


@pytest.fixture
def world(tmp_path, record_run):
    """Makes a sweep and its jobs; budgets are written beforehand, as if suggested, so that nothing is started."""

    def make(text: str = SPEC, lengths: list[int] | None = None, slots: int = 2):
        recorded = begun(tmp_path / "sweep", text)
        for training in recorded.plan:
            if training.parent is not None and lengths is not None:
                path = budget_path(recorded.folder, training)
                path.parent.mkdir(exist_ok=True)
                path.write_text(budget_text(BudgetFile(prefix_lengths=lengths, total=sum(lengths))))
        return recorded, TrainingJobs(record_run, recorded, slots)

    return make


def driven(recorded, jobs, **options) -> Outcome:
    return drive(recorded.folder, jobs, say=lambda line: None, look_seconds=0, **options)


def states(outcome: Outcome) -> dict[str, str]:
    return {each.training.name: each.state for each in outcome.standings}


def test_every_training_is_submitted_once_and_children_after_their_parents(world):
    recorded, jobs = world(lengths=[1, 2, 3])
    outcome = driven(recorded, jobs)
    assert outcome.complete
    assert not outcome.stopped
    assert jobs.submitted() == {training.name: 1 for training in recorded.plan}
    assert counts_of(outcome.standings) == {"done": 12, "running": 0, "failed": 0, "left": 0}
    order = [Path(job.run_folder).name for job in reversed(jobs.jobs)]
    for training in recorded.plan:
        if training.parent is not None:
            assert order.index(training.parent) < order.index(training.name)
    assert order.index("pydoc-entities-lr0.01-s2-b6-uniform") < order.index(SHARE)  # uniform waits for nothing
    assert read_run_info(recorded.folder / SHARE).prefix_lengths == [1, 2, 3]


def test_second_driver_of_a_finished_sweep_submits_nothing(world):
    recorded, jobs = world(lengths=[1, 2, 3])
    driven(recorded, jobs)
    before = {path: path.stat().st_mtime_ns for path in recorded.folder.glob("*/run.json")}
    jobs.jobs.clear()  # not even the list of jobs is needed
    assert driven(recorded, jobs).complete
    assert jobs.jobs == []
    assert {path: path.stat().st_mtime_ns for path in recorded.folder.glob("*/run.json")} == before


def test_lengths_are_suggested_from_the_gates_of_the_parent(world):
    recorded, jobs = world(ONE)
    assert driven(recorded, jobs).complete
    budget = read_budget(budget_path(recorded.folder, recorded.plan[1]))
    assert (budget.total, budget.method, budget.source.name) == (6, "share", FULL)
    assert budget.prefix_lengths == read_run_info(recorded.folder / SHARE).prefix_lengths
    assert budget.prefix_lengths[0] < budget.prefix_lengths[2]  # gates of recorded runs rise with the layer


def test_what_cannot_be_suggested_is_said_and_tried_again_by_the_next_driver(world, record_run):
    recorded, jobs = world(ONE.replace('"share"', '"greedy"'))
    said: list[str] = []
    name = SHARE.replace("share", "greedy")
    record(record_run, recorded, recorded.plan[0])
    (recorded.folder / FULL / "measures.json").write_text("{}")
    outcome = drive(recorded.folder, jobs, say=said.append, look_seconds=0)
    assert states(outcome) == {FULL: "finished", name: "failed", UNIFORM: "finished"}
    assert not outcome.complete
    assert "measures.json" in next(each.reason for each in outcome.standings if each.training.name == name)
    assert said[0].startswith(f"{name}: ")
    assert read_sweep(recorded.folder).problems.keys() == {name}
    path = budget_path(recorded.folder, recorded.plan[1])
    path.write_text(budget_text(BudgetFile(prefix_lengths=[1, 2, 3], total=6)))
    assert driven(recorded, jobs).complete
    assert read_sweep(recorded.folder).problems == {}


def test_same_lengths_are_trained_once(world):
    recorded, jobs = world(lengths=[2, 2, 2])
    outcome = driven(recorded, jobs)
    assert outcome.complete
    assert jobs.submitted() == {training.name: 1 for training in recorded.plan if training.method != "share"}
    assert read_sweep(recorded.folder).same_lengths[SHARE] == UNIFORM
    by_name = {each.training.name: each for each in outcome.standings}
    assert by_name[SHARE].info == by_name[UNIFORM].info
    assert driven(recorded, jobs).complete
    assert len(jobs.jobs) == 8


def test_what_failed_is_reported_and_only_tried_again_if_asked_for(world):
    recorded, jobs = world(ONE, lengths=[1, 2, 3])
    jobs.ends[FULL] = [JobReport("failed", exit_code=1)]
    outcome = driven(recorded, jobs)
    assert not outcome.complete
    assert states(outcome) == {FULL: "failed", SHARE: "waiting", UNIFORM: "finished"}
    assert outcome.standings[0].reason == "log of 0001-a"
    assert driven(recorded, jobs).standings[0].state == "failed"
    assert jobs.submitted() == {FULL: 1, UNIFORM: 1}
    assert driven(recorded, jobs, retry_failed=True).complete
    assert jobs.submitted() == {FULL: 2, UNIFORM: 1, SHARE: 1}


def test_failure_under_a_drivers_eyes_is_tried_once(world):
    recorded, jobs = world(ONE, lengths=[1, 2, 3])
    jobs.ends[FULL] = [JobReport("failed", exit_code=1)] * 5
    assert not driven(recorded, jobs, retry_failed=True).complete
    assert jobs.submitted()[FULL] == 1
    assert not driven(recorded, jobs, retry_failed=True).complete
    assert jobs.submitted()[FULL] == 2


def test_lost_jobs_are_tried_again_a_few_times(world):
    recorded, jobs = world(ONE, lengths=[1, 2, 3])
    jobs.ends[FULL] = [JobReport("lost")]
    assert driven(recorded, jobs).complete
    assert jobs.submitted()[FULL] == 2
    jobs.ends[UNIFORM] = [JobReport("lost")] * 9
    for path in (recorded.folder / UNIFORM).rglob("*"):
        if path.is_file():
            path.unlink()
    assert not driven(recorded, jobs).complete
    assert jobs.submitted()[UNIFORM] == 1 + MOST_TRIES


def test_interrupted_run_is_resumed(world, record_run):
    recorded, jobs = world(ONE, lengths=[1, 2, 3])
    folder = record(record_run, recorded, recorded.plan[0])
    update_finished_run(folder, status="running", pid=1, process_started=0.0)
    assert look(recorded, jobs)[0].state == "interrupted"
    assert driven(recorded, jobs).complete
    assert jobs.of(FULL) == [["train", "--out", str(folder), "--resume", "--no-measure"]]  # as it had begun


def test_empty_checkpoint_folder_of_a_training_that_was_ended_early_is_no_hindrance(world):
    recorded, jobs = world(ONE, lengths=[1, 2, 3])
    (recorded.folder / FULL / "checkpoints").mkdir(parents=True)
    assert driven(recorded, jobs).complete
    assert not (recorded.folder / FULL / "checkpoints").exists()


def test_what_a_person_cancels_stays_so_until_the_next_driver(world):
    recorded, jobs = world(ONE, lengths=[1, 2, 3])
    jobs.ends[UNIFORM] = [JobReport("cancelled")]
    assert states(driven(recorded, jobs))[UNIFORM] == "cancelled"
    assert jobs.submitted()[UNIFORM] == 1
    assert driven(recorded, jobs).complete
    assert jobs.submitted()[UNIFORM] == 2


def test_machine_that_goes_down_is_no_failure(world):
    recorded, jobs = world(ONE, lengths=[1, 2, 3])
    jobs.ends[FULL] = [JobReport("failed", exit_code=-15)]
    assert states(driven(recorded, jobs))[FULL] == "interrupted"
    assert driven(recorded, jobs).complete


def test_jobs_of_an_earlier_driver_are_adopted(world):
    recorded, jobs = world(ONE, lengths=[1, 2, 3])
    jobs.submit(["train"], recorded.folder / FULL)
    jobs.submit(["train"], recorded.folder / UNIFORM)
    assert driven(recorded, jobs).complete
    assert jobs.submitted() == {FULL: 1, UNIFORM: 1, SHARE: 1}


def test_no_more_jobs_wait_than_a_machine_bears(world):
    text = ONE.replace("seeds = 1", "seeds = 40").replace('["share", "uniform"]', '["uniform"]')
    recorded, jobs = world(text, slots=3)
    assert driven(recorded, jobs).complete
    assert jobs.most_queued == MOST_QUEUED
    assert jobs.submitted() == {training.name: 1 for training in recorded.plan}


def test_another_run_in_the_way_is_left_alone(world, record_run):
    recorded, jobs = world(ONE, lengths=[1, 2, 3])
    record_run(recorded.folder / FULL, steps=2)
    (recorded.folder / UNIFORM).symlink_to(recorded.folder / FULL)
    outcome = driven(recorded, jobs, retry_failed=True)
    assert states(outcome) == {FULL: "another run", SHARE: "waiting", UNIFORM: "another run"}
    assert "virtual tokens 96 instead of 12" in outcome.standings[0].reason
    assert "link" in outcome.standings[2].reason
    assert jobs.jobs == []


def test_folder_that_takes_no_run_is_a_reason(world, monkeypatch):
    recorded, jobs = world(ONE, lengths=[1, 2, 3])

    def refuse(arguments, run_folder):
        raise AptError(f"out: got {Path(run_folder).name}")

    monkeypatch.setattr(jobs, "submit", refuse)
    outcome = driven(recorded, jobs)
    assert states(outcome) == {FULL: "failed", SHARE: "waiting", UNIFORM: "failed"}
    assert outcome.standings[0].reason == f"out: got {FULL}"


def test_test_split_is_measured_after_the_training(world):
    recorded, jobs = world("test = true\n" + ONE, lengths=[1, 2, 3])
    outcome = driven(recorded, jobs)
    assert outcome.complete
    for training in recorded.plan:
        commands = jobs.of(training.name)
        assert [words[0] for words in commands][1:] == ["evaluate"]
        assert commands[1][1:] == [str(recorded.folder / training.name), "--split", "test"]
        assert read_run_info(recorded.folder / training.name).metrics["test"] == {"accuracy": 0.4}


def test_failed_evaluation_does_not_hold_the_trainings_up(world):
    recorded, jobs = world("test = true\n" + ONE, lengths=[1, 2, 3])
    real = jobs._end

    def end(job):
        if job.arguments[0] == "evaluate":
            jobs.reports[job.id] = JobReport("failed", exit_code=2)
        else:
            real(job)

    jobs._end = end
    outcome = driven(recorded, jobs)
    assert set(states(outcome).values()) == {"failed"}
    assert all(each.trained and each.step == "evaluate" for each in outcome.standings)
    assert set(jobs.submitted().values()) == {2}


def test_full_runs_are_measured_where_a_method_rests_on_it(world):
    recorded, jobs = world(ONE.replace('"share"', '"greedy"'), lengths=[1, 2, 3])
    assert driven(recorded, jobs).complete
    assert jobs.of(FULL)[1] == ["measure", str(recorded.folder / FULL)]
    assert "--no-measure" not in jobs.of(FULL)[0]
    order = [(job.arguments[0], Path(job.run_folder).name) for job in reversed(jobs.jobs)]
    assert order.index(("measure", FULL)) < order.index(("retrain", SHARE.replace("share", "greedy")))


def test_stop_ends_driver_and_jobs_and_the_next_driver_goes_on(world):
    recorded, jobs = world(lengths=[1, 2, 3])
    jobs.frozen = True
    outcomes: list[Outcome] = []

    def run() -> None:
        with only_driver(recorded.folder):
            outcomes.append(driven(recorded, jobs))

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: len(jobs.jobs) == 8)
    assert is_driven(recorded.folder)
    stop(recorded, jobs)
    thread.join(60)
    assert outcomes[0].stopped
    assert set(states(outcomes[0]).values()) == {"cancelled", "waiting"}
    assert not is_driven(recorded.folder)
    assert not (recorded.folder / ".stop").exists()
    jobs.frozen = False
    assert driven(recorded, jobs).complete
    assert jobs.submitted()[FULL] == 2


def test_stop_before_the_first_look_is_heeded_and_one_of_an_earlier_driver_is_not(world):
    recorded, jobs = world(lengths=[1, 2, 3])
    (recorded.folder / ".stop").touch()
    with only_driver(recorded.folder):
        assert not (recorded.folder / ".stop").exists()
        stop(recorded, jobs)  # while the new one still checks
        assert driven(recorded, jobs).stopped
    assert jobs.jobs == []


def test_stop_without_a_driver_ends_the_jobs(world):
    recorded, jobs = world(lengths=[1, 2, 3])
    job = jobs.submit(["train"], recorded.folder / FULL)
    stop(recorded, jobs)
    assert jobs.status(job.id) == "cancelled"
    assert not (recorded.folder / ".stop").exists()


def test_only_one_driver_at_a_time(tmp_path):
    out = tmp_path / "new" / "sweep"
    with only_driver(out):
        assert is_driven(out)
        with pytest.raises(AptError, match="accepted: a folder that no other driver works on"), only_driver(out):
            pass
        assert is_driven(out)
    assert not out.parent.exists()  # nothing came of it
    assert not is_driven(out)
    out.mkdir(parents=True)
    (out / ".driver").symlink_to(tmp_path / "elsewhere")
    assert not is_driven(out)
    with pytest.raises(AptError, match="cannot be written to"), only_driver(out):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_lock_is_taken_over_only_from_whoever_holds_it(tmp_path, monkeypatch):
    """A number in the environment that is another file's descriptor holds nothing."""
    with (tmp_path / "other").open("w") as other, only_driver(tmp_path):
        for word in (str(other.fileno()), "9999", "x"):
            monkeypatch.setenv("APT_SWEEP_LOCK", word)
            with pytest.raises(AptError, match="no other driver"), only_driver(tmp_path):
                pass
            assert "APT_SWEEP_LOCK" not in os.environ


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(schema_version=9), "Update this program"),
        (lambda content: content.update(num_layers={"pydoc-topic": 0}), "num_layers.pydoc-topic: got 0"),
        (lambda content: content.update(num_layers={"pydoc-topic": 3}), "num_layers: lacks pydoc-entities"),
        (lambda content: content.update(num_layers=7), "num_layers"),
        (lambda content: content.update(slots=10**9), "slots"),
        (lambda content: content.update(executor="<b>"), "executor"),
        (lambda content: content.update(problems={"a": "x" * 2000}), "problems"),
    ],
)
def test_state_of_unknown_origin_is_checked(world, change, message):
    recorded, _ = world()
    path = recorded.folder / "sweep.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(AptError, match=message):
        read_recorded(recorded.folder)


def test_state_that_goes_round_in_circles_does_no_harm(world):
    recorded, jobs = world(lengths=[1, 2, 3])
    circle = {SHARE: UNIFORM, UNIFORM: SHARE, "other": "else"}
    write_sweep(recorded.folder, Sweep(num_layers=recorded.sweep.num_layers, same_lengths=circle))
    outcome = driven(read_recorded(recorded.folder), jobs)
    assert {name for name, state in states(outcome).items() if state != "finished"} == {SHARE, UNIFORM}


def test_files_of_a_sweep_are_not_read_through_links(world, tmp_path):
    recorded, _ = world()
    with pytest.raises(AptError, match=r"holds no sweep.json"):
        read_recorded(tmp_path)
    for name in ("sweep.json", "sweep.toml"):
        path = recorded.folder / name
        path.rename(tmp_path / name)
        path.symlink_to(tmp_path / name)
        with pytest.raises(AptError, match="link"):
            read_recorded(recorded.folder)
        path.unlink()
        (tmp_path / name).rename(path)
    read_recorded(recorded.folder)


def test_training_that_ran_out_of_memory_is_tried_again_with_half_the_batch(world):
    recorded, jobs = world(ONE, lengths=[1, 2, 3])
    jobs.ends[FULL] = [JobReport("failed", exit_code=1)]
    jobs.printed = f"error: {RAN_OUT} 16: half of it needs less."
    assert states(driven(recorded, jobs))[FULL] == "failed"
    assert driven(recorded, jobs, retry_failed=True).complete
    first, again = jobs.of(FULL)
    assert again == [*first, "--batch-size", "8", "--gradient-accumulation-steps", "2"]


def test_interrupted_training_is_gone_on_with_unmeasured_where_the_spec_says_so(world, record_run):
    recorded, jobs = world(ONE + "measure = false\nmemory-check = false\n", lengths=[1, 2, 3])
    update_finished_run(record(record_run, recorded, recorded.plan[0]), status="interrupted")
    assert driven(recorded, jobs).complete
    assert jobs.of(FULL) == [
        ["train", "--out", str(recorded.folder / FULL), "--resume", "--no-measure", "--no-memory-check"]
    ]


def test_jobs_are_known_through_a_link_to_the_folder_of_runs(world, tmp_path):
    recorded, jobs = world(ONE, lengths=[1, 2, 3])
    (tmp_path / "link").symlink_to(recorded.folder)
    jobs.frozen = True
    jobs.submit(["train"], tmp_path / "link" / FULL)
    assert next(each.state for each in look(recorded, jobs)) == "queued"


def test_complete_sweep_asks_no_cluster(world):
    recorded, jobs = world(ONE, lengths=[1, 2, 3])
    driven(recorded, jobs)
    assert drive(recorded.folder, None).complete


def test_cluster_that_does_not_answer_for_a_while_is_asked_again(world):
    recorded, jobs = world(lengths=[1, 2, 3])
    answers, said = jobs.list, []

    def unanswered():
        jobs.list = answers
        raise AptUnreachableError("address: got 'x'; accepted: one that answers.")

    def list_once_more():
        jobs.list = unanswered
        return answers()

    jobs.list = list_once_more  # the driver looks once before it begins
    assert drive(recorded.folder, jobs, say=said.append, look_seconds=0).complete
    assert [line for line in said if "Asking again" in line] == said


def test_cluster_that_never_answers_again_ends_the_driver(world, monkeypatch):
    monkeypatch.setattr("apt_core.sweep.PATIENCE_SECONDS", -1)
    recorded, jobs = world(lengths=[1, 2, 3])
    answers = jobs.list

    def unanswered():
        raise AptUnreachableError("address: got 'x'; accepted: one that answers.")

    def list_once_more():
        jobs.list = unanswered
        return answers()

    jobs.list = list_once_more
    with pytest.raises(AptUnreachableError):
        driven(recorded, jobs)
