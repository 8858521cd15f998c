"""A book of jobs asks for as little as it can, and is right all the same."""

from __future__ import annotations

from collections import Counter

import pytest

from analysis import job_book
from analysis.job_book import FAILED_SECONDS, FIRST_IN_LINE, IN_TURN, JobBook
from apt_core.errors import AptFileNotFoundError, AptValueError
from apt_core.jobs import Job, JobReport


class CountedJobs:
    """Jobs whose reports are given, and who counts how often each was asked for."""

    def __init__(self, **reports: JobReport | None) -> None:
        self.reports = reports
        self.asked: Counter[str] = Counter()
        self.listed = 0

    def list(self) -> list[Job]:
        self.listed += 1
        return [Job(job_id, [], f"/{job_id}", "") for job_id in reversed(self.reports)]

    def report(self, job_id: str) -> JobReport:
        self.asked[job_id] += 1
        if self.reports[job_id] is None:
            raise AptFileNotFoundError(f"job: got {job_id!r}")
        return self.reports[job_id]


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Every look asks, unless a test holds the time."""
    now = [0.0]

    def tick() -> float:
        now[0] += 10
        return now[0]

    monkeypatch.setattr(job_book.time, "monotonic", tick)
    return now


def states(book: JobBook, jobs: CountedJobs) -> dict[str, str]:
    return {each.job.id: each.report.state for each in book.look(jobs)}


def test_ended_is_asked_once_and_running_at_every_look(clock):
    jobs, book = CountedJobs(done=JobReport("finished"), runs=JobReport("running")), JobBook()
    for _ in range(3):
        assert states(book, jobs) == {"runs": "running", "done": "finished"}
    assert jobs.asked == {"done": 1, "runs": 3}
    jobs.reports["runs"] = JobReport("lost")
    assert states(book, jobs)["runs"] == "lost"
    states(book, jobs)
    assert jobs.asked["runs"] == 4


def test_new_job_is_seen_and_one_that_is_gone_is_not(clock):
    jobs, book = CountedJobs(a=JobReport("finished")), JobBook()
    book.look(jobs)
    jobs.reports = {"b": JobReport("queued", 1)}
    assert states(book, jobs) == {"b": "queued"}


def test_job_that_is_removed_while_others_are_asked_is_passed_over(clock):
    jobs, book = CountedJobs(a=JobReport("running"), b=JobReport("finished")), JobBook()
    book.look(jobs)
    jobs.reports["a"] = None
    assert states(book, jobs) == {"b": "finished"}


def test_of_many_that_wait_the_first_are_always_asked_and_the_others_in_turn(clock):
    count = FIRST_IN_LINE + 3 * IN_TURN
    jobs = CountedJobs(**{f"q{place:03}": JobReport("queued", place) for place in range(1, count + 1)})
    book = JobBook()
    book.look(jobs)
    for _ in range(3):
        book.look(jobs)
    first, behind = sorted(jobs.asked)[:FIRST_IN_LINE], sorted(jobs.asked)[FIRST_IN_LINE:]
    assert {jobs.asked[job_id] for job_id in first} == {4}
    assert {jobs.asked[job_id] for job_id in behind} == {2}


def test_looks_within_a_second_are_one_until_something_was_done(monkeypatch):
    monkeypatch.setattr(job_book.time, "monotonic", lambda: 100.0)
    jobs, book = CountedJobs(a=JobReport("finished"), b=JobReport("running")), JobBook()
    for _ in range(3):
        book.look(jobs)
    assert (jobs.listed, jobs.asked["b"]) == (1, 1)
    jobs.reports["b"] = JobReport("cancelled")
    book.forget("b")
    assert states(book, jobs) == {"b": "cancelled", "a": "finished"}
    assert jobs.asked == {"a": 1, "b": 2}


def test_place_that_does_not_answer_is_asked_again_after_a_while_or_once_something_was_done(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(job_book.time, "monotonic", lambda: now[0])
    jobs, book = CountedJobs(a=JobReport("finished")), JobBook()
    asked = []

    def fail() -> list[Job]:
        asked.append(now[0])
        raise AptValueError("address: no answer.")

    with monkeypatch.context() as broken:
        broken.setattr(jobs, "list", fail)
        for _ in range(3):
            with pytest.raises(AptValueError, match="no answer"):
                book.look(jobs)
        assert len(asked) == 1
        book.forget()
        with pytest.raises(AptValueError, match="no answer"):
            book.look(jobs)
        assert len(asked) == 2
    now[0] += FAILED_SECONDS
    assert states(book, jobs) == {"a": "finished"}
