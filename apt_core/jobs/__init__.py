"""Trainings in processes of their own: submit, status, cancel, logs. No torch."""

from apt_core.jobs.local import Job, JobState, LocalJobs

__all__ = ["Job", "JobState", "LocalJobs"]
