"""What may be typed beside ``--resume``: the run's own settings, and batches that split the same optimizer steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from apt_core.config import AptConfig, TrainSettings
from apt_core.errors import AptError
from apt_core.resume import resumed_job
from apt_core.train import TrainJob

RUN = TrainJob(
    task="copa",
    out=Path("run"),
    model="minilm",
    apt=AptConfig(prefix_lengths=(2, 2)),
    training=TrainSettings(batch_size=32, gradient_accumulation_steps=2, epochs=7),
)


def resumed(**typed: int) -> TrainJob:
    return resumed_job(replace(RUN, training=TrainSettings(**typed)), RUN, set(typed))


@pytest.mark.parametrize(("size", "accumulation"), [(16, 4), (1, 64), (64, 1), (32, 2)])
def test_batch_may_be_split_otherwise(size, accumulation):
    job = resumed(batch_size=size, gradient_accumulation_steps=accumulation)
    changed = {"batch_size": size, "gradient_accumulation_steps": accumulation}
    assert job == replace(RUN, training=RUN.training.model_copy(update=changed))


def test_nothing_typed_leaves_the_run_as_it_is():
    assert resumed() == RUN
    assert resumed(batch_size=32) == resumed(gradient_accumulation_steps=2) == RUN


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"batch_size": 16}, "batch-size: got 16; accepted: what makes 64 examples per optimizer step, as in the run"),
        ({"batch_size": 16}, r"Such as --batch-size 16 --gradient-accumulation-steps 4\."),
        ({"batch_size": 24, "gradient_accumulation_steps": 3}, "Such as --batch-size 16 --gradient-accumulation-steps"),
        ({"batch_size": 48}, r"Such as --batch-size 32 --gradient-accumulation-steps 2\."),
        ({"gradient_accumulation_steps": 4}, "gradient-accumulation-steps: got 4; accepted: what makes 64"),
    ],
)
def test_steps_of_more_or_fewer_examples_are_refused(typed, message):
    with pytest.raises(AptError, match=message):
        resumed(**typed)


def test_other_settings_are_still_refused():
    with pytest.raises(AptError, match="epochs: got 9; accepted: 7, as in the run that is resumed"):
        resumed(batch_size=16, gradient_accumulation_steps=4, epochs=9)
