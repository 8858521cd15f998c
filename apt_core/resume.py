"""Holds what was typed with ``--resume`` against the run that is resumed. Loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apt_core.config import canonical_name
from apt_core.errors import bad_value
from apt_core.tasks.source import PLACES

if TYPE_CHECKING:
    from apt_core.train import TrainJob

_FLAGS = {
    "learning_rate": "lr",
    "prefix_learning_rate": "prefix-lr",
    "gate_learning_rate": "gate-lr",
    "head_learning_rate": "head-lr",
}


def resumed_job(asked: TrainJob, earlier: TrainJob, typed: set[str]) -> TrainJob:
    """The job of the interrupted run, if nothing that was typed contradicts it.

    Args:
        asked: the job as typed.
        earlier: the interrupted run's.
        typed: names of what was typed; those that are no setting are passed over.

    Raises:
        AptValueError: naming the first flag whose value is not the run's.
    """
    lengths = (asked.apt.lengths(len(earlier.apt.prefix_lengths)), earlier.apt.prefix_lengths)
    pairs = ((asked.apt, earlier.apt), (asked.training, earlier.training), (asked.data, earlier.data))
    values = {
        **{name: (getattr(now, name), getattr(then, name)) for now, then in pairs for name in type(now).model_fields},
        "num_virtual_tokens": lengths,
        "prefix_lengths": lengths,
        "task": (asked.task, earlier.task),
        "model": (canonical_name(asked.model), canonical_name(earlier.model)),
    }
    for name in sorted(typed & values.keys() - set(PLACES)):  # data may have moved; its hash tells if it is other data
        now, then = values[name]
        if now != then:
            flag = _FLAGS.get(name, name.replace("_", "-"))
            raise bad_value(flag, now, f"{then!r}, as in the run that is resumed", "Leave the flag out.")
    return earlier
