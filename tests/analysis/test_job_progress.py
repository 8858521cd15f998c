"""Jobs in words and in order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from analysis.job_book import Standing
from analysis.job_progress import (
    FILTERS,
    Pace,
    ago,
    board,
    bytes_words,
    command_line,
    device_words,
    jobs_of_run,
    last_words,
    left_words,
    matching,
    notices,
    progress_of,
    seconds_left,
    span_words,
    standing_words,
    taken_over,
    times_words,
)
from apt_core.jobs import Job, JobReport
from apt_core.run_format import RunInfo

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RETRAIN = ["retrain", "runs/a", "--prefix-lengths", "1,2"]


def at(minutes: float) -> str:
    """So many minutes before now."""
    return (NOW - timedelta(minutes=minutes)).isoformat(timespec="milliseconds")


def standing(
    job_id: str = "0001-a", arguments=RETRAIN, state="running", run_folder="/w/runs/b", submitted=60.0, **report
) -> Standing:
    return Standing(Job(job_id, list(arguments), run_folder, at(submitted), "/w"), JobReport(state, **report))


def info(step: int, total_steps: int = 100) -> RunInfo:
    return RunInfo(step=step, total_steps=total_steps)


def test_board_orders_each_kind_as_a_person_reads_it():
    given = [
        standing("6", state="failed", submitted=1, ended_at=at(0.5)),
        standing("5", state="queued", submitted=2, position=2),
        standing("4", state="queued", submitted=3, position=1),
        standing("3", state="running", submitted=4, started_at=at(1)),
        standing("2", state="running", submitted=5, started_at=at(4)),
        standing("1", state="finished", submitted=6, ended_at=at(0.2)),
        standing("0", state="lost", submitted=7),
    ]
    now = board(given)
    assert [[each.job.id for each in kind] for kind in now] == [["3", "2"], ["4", "5"], ["1", "6", "0"]]
    assert now.words == "2 running, 2 waiting, 3 ended"
    assert board([]).words == ""


def test_every_filter_leaves_its_states_and_together_they_leave_all():
    states = ("queued", "running", "finished", "failed", "lost", "cancelled")
    given = [standing(state, state=state) for state in states]
    assert matching(given, "all") == given
    left = [each.job.id for choice in FILTERS[1:] for each in matching(given, choice)]
    assert sorted(left) == sorted(states)
    assert [each.job.id for each in matching(given, "failed or lost")] == ["failed", "lost"]


def test_job_that_a_newer_one_did_again_is_known():
    retried = standing("1", run_folder="/w/runs/b").job
    measured = standing("2", ["measure", "runs/b"], run_folder="/w/runs/b").job
    resumed = standing("3", ["train", "--out", "runs/b", "--resume"], run_folder="/w/runs/b").job
    other = standing("4", run_folder="/w/runs/c").job
    assert taken_over([other, resumed, measured, retried]) == {"1": "3"}


def test_jobs_of_a_run_write_it_or_retrain_it_or_go_on_with_such_a_retraining(tmp_path):
    run, child = tmp_path / "a", tmp_path / "b"
    jobs = [
        Job("own", ["measure", "a"], str(run), "", str(tmp_path)),
        Job("child", ["retrain", "a", "--out", "b"], str(child), "", str(tmp_path)),
        Job("resumed", ["train", "--out", "b", "--resume"], str(child), "", str(tmp_path)),
        Job("absolute", ["retrain", str(run), "--out", "c"], str(tmp_path / "c"), "", "/"),
        Job("other", ["retrain", "b", "--out", "d"], str(tmp_path / "d"), "", str(tmp_path)),
        Job("odd", ["retrain"], str(tmp_path / "e"), "", str(tmp_path)),
        Job("empty", [], str(tmp_path / "f"), "", str(tmp_path)),
    ]
    assert jobs_of_run(jobs, run) == ["own", "child", "resumed", "absolute"]


def test_command_line_can_be_pasted_into_a_shell():
    job = Job("1", ["train", "--data-dir", "my data"], "/x", "", "/")
    assert command_line(job) == "python -m apt_core train --data-dir 'my data'"


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (JobReport("queued", position=3), "retrain: queued, number 3 in line"),
        (JobReport("queued"), "retrain: queued"),
        (JobReport("running", device="cpu-0"), "retrain: running on cpu-0"),
        (JobReport("running", device="GPU-12345678-aaaa-bbbb"), "retrain: running on GPU-12345678"),
        (JobReport("running"), "retrain: running"),
        (JobReport("lost", device="cpu-0"), "retrain: lost"),
    ],
)
def test_standing_says_place_and_device(report, words):
    assert standing_words(Job("1", RETRAIN, "/x", ""), report) == words


def test_device_of_a_cluster_keeps_its_name():
    assert device_words("cuda@10.0.0.5") == "cuda@10.0.0.5"


@pytest.mark.parametrize(
    ("pace", "seconds"),
    [
        (None, None),
        (Pace(4, 40), None),  # too few steps
        (Pace(5, 50), 10 * 80),
        (Pace(10, 20), 2 * 80),
        (Pace(10, 0), None),
        (Pace(101, 50), None),  # another training's
    ],
)
def test_time_left_is_that_of_the_steps_to_come_at_the_pace_so_far(pace, seconds):
    assert seconds_left(info(20), pace) == seconds


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a minute left"),
        (44, "less than a minute left"),
        (46, "about 1 min left"),
        (170, "about 3 min left"),
        (59 * 60, "about 59 min left"),
        (59.7 * 60, "about 1 h left"),
        (80 * 60, "about 1 h 20 min left"),
        (47.9 * 3600, "about 47 h 50 min left"),
        (72 * 3600, "about 3 days left"),
    ],
)
def test_time_left_is_as_exact_as_an_estimate(seconds, words):
    assert left_words(seconds) == words


@pytest.mark.parametrize(
    ("given", "run", "pace", "done", "words"),
    [
        ({"state": "queued"}, None, None, None, "waits for a slot"),
        ({}, None, None, None, "prepares data and model"),
        ({}, info(0, 0), None, None, "prepares data and model"),
        ({}, info(2), None, 0.02, "step 2 of 100"),
        ({}, info(40), Pace(40, 80), 0.4, "step 40 of 100 · about 2 min left"),
        ({}, info(100), Pace(100, 80), 1.0, "step 100 of 100: trained; what follows is evaluated and measured"),
        ({}, info(900), None, 1.0, "step 900 of 100: trained; what follows is evaluated and measured"),
        ({"state": "cancelled"}, info(40), Pace(40, 80), 0.4, "stopped at step 40 of 100"),
        ({"state": "failed"}, None, None, None, "no step was trained"),
        ({"arguments": ["measure", "x"]}, info(100), Pace(100, 80), None, "the log says how far it is"),
        ({"arguments": ["measure", "x"], "state": "failed"}, info(100), None, None, ""),
        ({"arguments": ["transfer", "x"]}, None, None, None, "makes several runs; the log says how far it is"),
    ],
)
def test_progress_says_only_what_is_known(given, run, pace, done, words):
    assert progress_of(standing(**given), run, pace) == (done, words)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        ("\n \n", ""),
        ("step 1\nout of luck\n", "out of luck"),
        ("error: first\nerror: second\nChildFailedError", "error: second"),
    ],
)
def test_last_words_of_a_log_are_its_error(log, words):
    assert last_words(log) == words


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (-5, "just now"),
        (0.9, "just now"),
        (1, "1 min ago"),
        (59.9, "59 min ago"),
        (60, "1 h ago"),
        (24 * 60, "1 d ago"),
        (40 * 24 * 60, "on 2026-01-20"),
    ],
)
def test_moment_is_told_by_how_long_ago_it_was(minutes, words):
    assert ago(at(minutes), NOW) == words


@pytest.mark.parametrize("text", [None, "", "yesterday", "9999-01-01T00:00:00+00:00"])
def test_moment_that_is_none_is_not_told(text):
    assert ago(text, NOW) == ""


def test_times_are_told_as_how_long_ago_and_exactly():
    ended = standing(state="finished", submitted=90, started_at=at(65), ended_at=at(2.5))
    assert times_words(ended, NOW) == (
        "submitted 1 h ago · started 1 h ago · ended 2 min ago · took 1 h 2 min",
        "submitted 2026-03-01 10:30:00 UTC; started 2026-03-01 10:55:00 UTC; ended 2026-03-01 11:57:30 UTC",
    )
    damaged = Standing(Job("1", [], "/x", "never"), JobReport("finished", started_at="?", ended_at=at(1)))
    assert times_words(damaged, NOW) == ("ended 1 min ago", "ended 2026-03-01 11:59:00 UTC")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")]
)
def test_span_is_in_two_units(seconds, words):
    assert span_words(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(0, "0 MiB"), (92 * 2**20, "92 MiB"), (3 * 2**29, "1.5 GiB")])
def test_memory_is_in_a_unit_that_fits(count, words):
    assert bytes_words(count) == words


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"state": "finished"}, "b: retrain has finished. Compare shows it"),
        ({"state": "finished", "arguments": ["measure", "x"]}, "b: measure has finished. The Evidence page"),
        ({"state": "finished", "arguments": []}, "b:  has finished. The Jobs page has its log."),
        ({"state": "failed"}, "b: retrain has failed. The Jobs page shows why, and has Retry."),
        ({"state": "lost"}, "b: retrain is lost: what watched over it is gone. On the Jobs page, Retry goes on"),
        ({"state": "cancelled"}, "b: retrain was cancelled elsewhere. On the Jobs page, Retry goes on"),
    ],
)
def test_notice_says_what_next(given, words):
    ((state, said),) = notices([standing(**given)])
    assert state == given["state"]
    assert said.startswith(words)


def test_many_that_end_at_once_are_one_notice_as_bad_as_the_worst():
    given = [standing(state=state) for state in ("finished", "finished", "failed", "cancelled")]
    assert notices(given) == [
        ("failed", "4 jobs have ended: 1 failed, 1 cancelled, 2 finished. The Jobs page has their logs.")
    ]
    assert len(notices(given[:3])) == 3
    assert notices([]) == []
