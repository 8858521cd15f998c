"""Out of memory: recognised whoever says so, said in one line, and done again with smaller batches."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apt_core.config import TrainSettings
from apt_core.errors import AptError, AptWriteError
from apt_core.gate_log import GateLog
from apt_core.jobs import LocalJobs
from apt_core.jobs.retry import ran_out_of_memory
from apt_core.memory import AptMemoryError, Batch, is_out_of_memory, ran_out, too_large
from apt_core.run_format import read_run_info
from apt_core.train import TrainJob, train
from tests.apt_core.jobs.programs import until
from tests.apt_core.limited_memory import EXAMPLES, LARGE, ROOM, long_texts

LIMITED = [sys.executable, "-m", "tests.apt_core.limited_memory"]
REPOSITORY = Path(__file__).resolve().parents[2]
needs_limits = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited through ulimit -v, kept by Linux")


def raised(work) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011  (any is looked at)
        work()
    return caught.value


@pytest.mark.parametrize(
    "problem",
    [
        pytest.param(lambda: torch.empty(2**60, dtype=torch.uint8), id="torch on the processor"),
        pytest.param(lambda: np.empty(2**60, dtype=np.uint8), id="numpy"),
        pytest.param(lambda: bytearray(2**60), id="python"),
    ],
)
def test_real_want_of_memory_is_recognised(problem):
    assert is_out_of_memory(raised(problem))


@pytest.mark.parametrize(
    "problem",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: not enough memory: you tried ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        AptMemoryError("x"),
    ],
)
def test_words_for_want_of_memory_are_recognised(problem):
    assert is_out_of_memory(problem)
    later = AptWriteError("gates cannot be written")
    later.__cause__ = problem
    assert is_out_of_memory(later)


@pytest.mark.parametrize(
    "problem",
    [
        None,
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("out of memory"),
        KeyboardInterrupt(),
    ],
)
def test_other_problems_are_not(problem):
    assert not is_out_of_memory(problem)


@given(size=st.integers(2, 3000), accumulation=st.integers(1, 50), at_most=st.integers(1, 4000))
def test_smaller_batches_keep_the_examples_of_a_step(size, accumulation, at_most):
    batch = Batch(size, accumulation)
    fitting, halved = batch.at_most(at_most), batch.halved()
    assert fitting.examples == halved.examples == batch.examples
    assert 1 <= fitting.size <= at_most
    assert 1 <= halved.size <= size // 2
    if size % 2 == 0:
        assert halved == (size // 2, 2 * accumulation)


def test_one_example_cannot_be_halved():
    with pytest.raises(AptError, match=r"batch_size: got 1; accepted: 2 or more, to be halved\. .*--max-length"):
        Batch(1, 8).halved()


def test_error_says_what_to_type_and_where_it_goes_on(tmp_path):
    settings = TrainSettings(batch_size=32)
    flags = "--batch-size 16 --gradient-accumulation-steps 2"
    start = f"out of memory at batch size 32; {flags} needs about half for the same optimizer steps."
    assert str(ran_out(settings, tmp_path, None)) == start
    (tmp_path / "run.json").write_text("{}")
    assert str(ran_out(settings, tmp_path, 40)) == (
        f"{start} To go on after step 40: python -m apt_core train --out {tmp_path} --resume {flags}"
    )
    assert "from the start" in str(ran_out(settings, tmp_path, None))
    assert "the smallest. A smaller --max-length" in str(ran_out(TrainSettings(batch_size=1), tmp_path, None))


def test_batch_that_does_not_fit_is_refused_with_the_one_that_does():
    settings = TrainSettings(batch_size=64)
    assert str(too_large(settings, 19, 9.1e9, 4.2e9)) == (
        "batch_size: got 64; accepted: at most 19 here (64 need about 9.1 GB, 4.2 GB of memory are free). For the same "
        "optimizer steps: --batch-size 16 --gradient-accumulation-steps 4. --no-memory-check starts without this check."
    )
    nothing = str(too_large(TrainSettings(batch_size=1), 0, float("inf"), 1e6))
    assert "accepted: none here, as even one example does not fit (1 needs more, 1.0 MB of memory are free)" in nothing


def test_failed_run_says_so_keeps_what_it_recorded_and_goes_on_with_half_the_batch(job, monkeypatch):
    """Out of memory in the second epoch; ends like a run that never was interrupted."""
    from apt_core import callback

    settings = job.training.model_copy(update={"backbone_dropout": 0.0, "epochs": 3})  # its draws differ with the batch
    job = replace(job, training=settings)
    record = callback.GateRecorder.record

    def run_out(self: callback.GateRecorder, step: int) -> None:
        record(self, step)
        if step == 8:
            torch.empty(2**60, dtype=torch.uint8)

    with monkeypatch.context() as patch:
        patch.setattr(callback.GateRecorder, "record", run_out)
        with pytest.raises(AptMemoryError, match="after step 5") as caught:
            train(job, say=lambda line: None)
    info = read_run_info(job.out)
    assert (info.status, info.error) == ("failed", str(caught.value))
    assert GateLog(job.out / "gates").steps.tolist() == list(range(1, 9))
    split = settings.model_copy(update={"batch_size": 4, "gradient_accumulation_steps": 2})
    info = train(replace(TrainJob.from_run(job.out), training=split), resume=True, say=lambda line: None)
    assert (info.status, info.error, info.step, info.total_steps) == ("finished", None, 15, 15)
    assert (info.training["batch_size"], info.training["gradient_accumulation_steps"]) == (4, 2)
    whole = train(replace(job, out=job.out.with_name("whole")), say=lambda line: None)
    assert info.metrics["validation"] == pytest.approx(whole.metrics["validation"], abs=1e-3)
    gates, expected = (GateLog(out / "gates").read() for out in (job.out, job.out.with_name("whole")))
    for name, column in expected.items():  # means over the examples of each step: they are the same
        np.testing.assert_allclose(gates[name], column, atol=1e-4)


def test_want_of_memory_before_the_first_step_is_not_blamed_on_the_batch(job, monkeypatch):
    from apt_core import train as training

    monkeypatch.setattr(training, "build_model", lambda *_: torch.empty(2**60, dtype=torch.uint8))
    with pytest.raises(AptMemoryError, match="before the training began: model and data alone"):
        train(job, say=lambda line: None)
    assert not job.out.exists()


def limited(*words: str, room: int = ROOM) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*LIMITED, str(room), *words], capture_output=True, text=True, timeout=400, cwd=REPOSITORY, check=False
    )


@needs_limits
@pytest.mark.slow
def test_batch_is_refused_before_anything_is_written_and_the_proposed_one_fits(backbone_folder, tmp_path):
    out = tmp_path / "runs" / "run"
    words = ["train", *long_texts(tmp_path), "--model", str(backbone_folder), "--epochs", "1", "--out", str(out)]
    refused = limited(*words, "--batch-size", str(LARGE))
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not out.parent.exists()
    found = re.search(
        r"at most (\d+) here .*: (--batch-size (\d+) --gradient-accumulation-steps (\d+))\.", refused.stderr
    )
    most, flags, size, accumulation = found[1], found[2], int(found[3]), int(found[4])
    assert size <= int(most) < LARGE
    assert size * accumulation == LARGE
    trained = limited(*words, *flags.split(), "--no-memory-check")
    assert trained.returncode == 0, trained.stderr
    assert read_run_info(out).total_steps == EXAMPLES // LARGE


@needs_limits
@pytest.mark.slow
def test_job_that_runs_out_of_memory_is_retried_with_half_the_batch_until_it_fits(
    backbone_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    out = tmp_path / "run"
    words = ["train", *long_texts(tmp_path), "--model", str(backbone_folder), "--epochs", "2", "--out", str(out)]
    jobs = LocalJobs(tmp_path / ".jobs", program=[*LIMITED, str(ROOM)], slots=1)
    job = jobs.submit([*words, "--batch-size", str(LARGE), "--no-memory-check"], out)
    for halvings in range(4):
        until(lambda job=job: jobs.status(job.id) in ("finished", "failed"))
        if jobs.status(job.id) == "finished":
            break
        log = jobs.logs(job.id)
        assert ran_out_of_memory(log), log
        size = LARGE // 2**halvings
        info = read_run_info(out)
        if info.training["batch_size"] == size:  # else refused, with words, before the run was touched
            assert (jobs.report(job.id).exit_code, info.status) == (1, "failed")
            assert f"out of memory at batch size {size}; --batch-size {size // 2} " in info.error
            assert f"error: {info.error}" in log.splitlines()
        job = jobs.retry(job.id, halve_batch=True)
        assert job.arguments[-4:] == [
            "--batch-size",
            str(size // 2),
            "--gradient-accumulation-steps",
            str(2 ** (halvings + 1)),
        ]
    info = read_run_info(out)
    assert halvings > 0
    assert (info.status, info.step, info.total_steps) == ("finished", 2, 2)
    assert info.training["batch_size"] * info.training["gradient_accumulation_steps"] == LARGE
    assert GateLog(out / "gates").steps.tolist() == [1, 2]


@needs_limits
@pytest.mark.slow
def test_all_processes_of_a_training_refuse_a_batch_that_does_not_fit_one_of_them(backbone_folder, tmp_path):
    words = ["train", *long_texts(tmp_path), "--model", str(backbone_folder), "--out", str(tmp_path / "run")]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    result = subprocess.run(
        [*launcher, "--rdzv-endpoint", "127.0.0.1:0", *LIMITED[1:], str(ROOM), *words, "--batch-size", str(LARGE // 2)],
        capture_output=True,
        text=True,
        timeout=500,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.count("error: batch_size: got 400; accepted: at most ") == 1, result.stderr
    assert not (tmp_path / "run").exists()
