"""Out of memory: recognised, said plainly, and the smaller batch that trains in the same steps. No torch."""

from __future__ import annotations

import contextlib
import errno
import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

from apt_core.config import TrainSettings
from apt_core.errors import AptError, AptValueError, bad_value
from apt_core.run_format import RUN_FILE
from apt_core.sizes import in_words

RAN_OUT = "out of memory at batch size"
"""in the line that a training which ran out of memory ends with"""
TOO_LARGE = "of memory are free"
"""in the line that refuses a batch before a training"""
LESS_MEMORY = "A smaller --max-length or model, or --gradient-checkpointing, needs less memory."
UNCHECKED = "--no-memory-check starts without this check."

_WORDS = (
    "out of memory",  # CUDA, HIP, XPU, MPS
    "can't allocate memory",  # torch on the processor
    "not enough memory",  # the same on Windows
    "ALLOC_FAILED",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED
    "bad_alloc",
    "bad allocation",
)


class AptMemoryError(AptError, MemoryError):
    """A training ran out of memory: exit code 1."""


class Batch(NamedTuple):
    """How the examples of an optimizer step are split into forward passes."""

    size: int
    """examples per forward pass and device"""
    accumulation: int
    """forward passes per optimizer step"""

    @classmethod
    def of(cls, settings: TrainSettings) -> Self:
        return cls(settings.batch_size, settings.gradient_accumulation_steps)

    @property
    def examples(self) -> int:
        """Per optimizer step and device."""
        return self.size * self.accumulation

    @property
    def flags(self) -> list[str]:
        """The words of a command line that ask for it."""
        return ["--batch-size", str(self.size), "--gradient-accumulation-steps", str(self.accumulation)]

    def at_most(self, size: int) -> Batch:
        """The largest batch of up to ``size`` examples (>= 1) whose optimizer steps have as many examples as now."""
        fitting = next(fewer for fewer in range(min(size, self.examples), 0, -1) if self.examples % fewer == 0)
        return Batch(fitting, self.examples // fitting)

    def halved(self) -> Batch:
        """Half the batch and twice the accumulation; of an odd batch the next smaller one that keeps the steps equal.

        Raises:
            AptValueError: if there is only one example to begin with.
        """
        if self.size == 1:
            raise bad_value("batch_size", 1, "2 or more, to be halved", LESS_MEMORY)
        return self.at_most(self.size // 2)


def is_out_of_memory(problem: BaseException | None) -> bool:
    """Whether an exception says that memory, of the machine or of a GPU, did not suffice; its causes count too."""
    while problem is not None:
        if isinstance(problem, MemoryError) or (isinstance(problem, OSError) and problem.errno == errno.ENOMEM):
            return True
        if isinstance(problem, RuntimeError) and any(words in str(problem) for words in _WORDS):
            return True
        problem = problem.__cause__
    return False


@contextlib.contextmanager
def plain_if_memory_runs_out() -> Iterator[None]:
    """For what comes before the first step, where the batch is not to blame.

    Raises:
        AptMemoryError: in place of what says in other words that memory ran out.
    """
    try:
        yield
    except Exception as problem:
        if isinstance(problem, AptError) or not is_out_of_memory(problem):
            raise
        raise AptMemoryError(
            "out of memory before the training began: model and data alone need more than is free. "
            "A smaller model, --dtype bfloat16 or less data needs less memory."
        ) from problem


def ran_out(settings: TrainSettings, out: Path, checkpoint_step: int | None) -> AptMemoryError:
    """The error of a training that ran out of memory, with what to type next.

    Args:
        settings: of the training.
        out: its run folder.
        checkpoint_step: of its last checkpoint; None if it has none.
    """
    start = f"{RAN_OUT} {settings.batch_size}"
    if settings.batch_size == 1:
        return AptMemoryError(f"{start}, the smallest. {LESS_MEMORY}")
    flags = Batch.of(settings).halved().flags
    advice = f"{start}; {shlex.join(flags)} needs about half for the same optimizer steps."
    if not (out / RUN_FILE).exists():
        return AptMemoryError(advice)
    place = "from the start" if checkpoint_step is None else f"after step {checkpoint_step}"
    resume = shlex.join(["train", "--out", str(out), "--resume", *flags])
    return AptMemoryError(f"{advice} To go on {place}: python -m apt_core {resume}")


def too_large(settings: TrainSettings, largest: int, need: float, room: float) -> AptValueError:
    """The error for a batch that would not fit, with the one that does.

    Args:
        settings: of the training.
        largest: examples of the largest batch that fits; 0 if none does.
        need: bytes that the batch asked for needs; infinite if that is not known.
        room: bytes that are left for it.
    """
    size = settings.batch_size
    needed = f"about {in_words(need)}" if math.isfinite(need) else "more"
    free = f"{size} {'needs' if size == 1 else 'need'} {needed}, {in_words(room)} {TOO_LARGE}"
    if largest == 0:
        accepted = f"none here, as even one example does not fit ({free})"
        return bad_value("batch_size", size, accepted, f"{LESS_MEMORY} {UNCHECKED}")
    flags = " ".join(Batch.of(settings).at_most(largest).flags)
    return bad_value(
        "batch_size", size, f"at most {largest} here ({free})", f"For the same optimizer steps: {flags}. {UNCHECKED}"
    )
