"""What Ray keeps of a job, read as ours."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from apt_core.jobs import Job
from apt_core.jobs.ray_records import Record, may_be_marked, metadata_of, record_of, report_of

JOB = Job(
    "0002-abc", ["train", "--model", "$(x) é", "--out", "run"], "/runs/run", "2026-01-01T00:00:00.000+00:00", "/here"
)
RECORD = Record(JOB, "cuda", "s3://bucket/runs", "0002-abc-1f")


def details(status: str = "RUNNING", **fields):
    """A job's details as Ray's client gives them."""
    known = {
        "submission_id": JOB.id,
        "status": SimpleNamespace(value=status),
        "metadata": metadata_of(RECORD),
        "error_type": None,
        "start_time": 1_767_225_600_000,
        "end_time": None,
        "driver_agent_http_address": None,
        "driver_node_id": None,
        "driver_exit_code": None,
    }
    return SimpleNamespace(**{**known, **fields})


STARTED = {"driver_agent_http_address": "http://10.0.0.5:52365", "driver_node_id": "f00"}


def test_request_comes_back_from_the_metadata():
    assert record_of(details()) == RECORD


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"apt_job": "{"},
        {"apt_job": "[]"},
        {"apt_job": "null"},
        {"apt_job": "[" * 100_000},
        {"other": json.dumps({"arguments": []})},
        {"apt_job": json.dumps({"arguments": []})},
        {"apt_job": json.dumps({**json.loads(metadata_of(RECORD)["apt_job"]), "arguments": "train"})},
        {"apt_job": json.dumps({**json.loads(metadata_of(RECORD)["apt_job"]), "arguments": ["train", 1]})},
        {"apt_job": json.dumps({**json.loads(metadata_of(RECORD)["apt_job"]), "run_folder": None})},
    ],
)
def test_jobs_of_others_and_damaged_ones_are_none_of_ours(metadata):
    assert record_of(details(metadata=metadata)) is None


@pytest.mark.parametrize(
    ("status", "fields", "state"),
    [
        ("PENDING", {}, "queued"),
        ("RUNNING", STARTED, "running"),
        ("SUCCEEDED", STARTED, "finished"),
        ("STOPPED", STARTED, "cancelled"),
        ("FAILED", {**STARTED, "error_type": "JOB_ENTRYPOINT_COMMAND_ERROR"}, "failed"),
        ("FAILED", {"error_type": "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"}, "failed"),
        ("FAILED", {"error_type": "RUNTIME_ENV_SETUP_FAILURE"}, "failed"),
        ("FAILED", {"error_type": "JOB_SUPERVISOR_ACTOR_START_FAILURE"}, "failed"),
        ("FAILED", {**STARTED, "error_type": "JOB_SUPERVISOR_ACTOR_START_FAILURE"}, "lost"),
        ("FAILED", {**STARTED, "error_type": "JOB_SUPERVISOR_ACTOR_DIED"}, "lost"),
        ("FAILED", {**STARTED, "error_type": "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE"}, "lost"),
    ],
)
def test_states(status, fields, state):
    assert report_of(details(status, **fields), None).state == state


def test_times_device_and_exit_code():
    ended = details("FAILED", **STARTED, end_time=1_767_225_661_500, driver_exit_code=-9)
    report = report_of(ended, None)
    assert (report.device, report.exit_code, report.started_at, report.position) == ("cuda@10.0.0.5", -9, None, None)
    assert report.ended_at == "2026-01-01T00:01:01.500+00:00"


def test_mark_tells_of_a_job_that_never_started_and_of_no_other():
    mark = details("SUCCEEDED", metadata={})
    waiting, given_up = details("PENDING"), details("FAILED", error_type="JOB_SUPERVISOR_ACTOR_START_TIMEOUT")
    for job in (waiting, given_up):
        assert may_be_marked(job)
        assert report_of(job, mark).state == "cancelled"
        assert report_of(job, mark).ended_at == "2026-01-01T00:00:00.000+00:00"
    for status, state in (("RUNNING", "running"), ("SUCCEEDED", "finished"), ("FAILED", "failed")):
        assert not may_be_marked(details(status, **STARTED))
        assert report_of(details(status, **STARTED), mark).state == state
