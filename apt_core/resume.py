"""Holds what was typed with ``--resume`` against the run that is resumed. Loads no torch.

Optimizer steps may be split into smaller batches than before: they stay of the same examples in the same order, so
that steps count on. What differs is rounding, the draws of dropout, and, with several processes, the last step of an
epoch, which they fill up to whole batches.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from apt_core.config import canonical_name
from apt_core.errors import bad_value
from apt_core.memory import Batch
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
    """The job of the interrupted run, if nothing that was typed contradicts it, with the batch that was typed.

    Args:
        asked: the job as typed.
        earlier: the interrupted run's.
        typed: names of what was typed; those that are no setting are passed over.

    Raises:
        AptValueError: naming the first flag whose value is not the run's.
    """
    split = _split(asked, earlier, typed)
    lengths = (asked.apt.lengths(len(earlier.apt.prefix_lengths)), earlier.apt.prefix_lengths)
    pairs = ((asked.apt, earlier.apt), (asked.training, earlier.training), (asked.data, earlier.data))
    values = {
        **{name: (getattr(now, name), getattr(then, name)) for now, then in pairs for name in type(now).model_fields},
        "num_virtual_tokens": lengths,
        "prefix_lengths": lengths,
        "task": (asked.task, earlier.task),
        "model": (canonical_name(asked.model), canonical_name(earlier.model)),
    }
    free = {*PLACES, *split}  # data may have moved; its hash tells if it is other data
    for name in sorted(typed & values.keys() - free):
        now, then = values[name]
        if now != then:
            flag = _FLAGS.get(name, name.replace("_", "-"))
            raise bad_value(flag, now, f"{then!r}, as in the run that is resumed", "Leave the flag out.")
    return replace(earlier, training=earlier.training.model_copy(update=split))


def _split(asked: TrainJob, earlier: TrainJob, typed: set[str]) -> dict[str, int]:
    """The settings that say how the examples of an optimizer step are split, as typed.

    Raises:
        AptValueError: if steps would be of more or fewer examples than the run's.
    """
    fields = ("batch_size", "gradient_accumulation_steps")
    new = Batch(*(getattr(asked.training if name in typed else earlier.training, name) for name in fields))
    old = Batch.of(earlier.training)
    if new.examples != old.examples:
        name = fields[0] if fields[0] in typed else fields[1]
        accepted = f"what makes {old.examples} examples per optimizer step, as in the run that is resumed"
        hint = f"Such as {' '.join(old.at_most(min(new.size, old.size)).flags)}."
        raise bad_value(name.replace("_", "-"), getattr(asked.training, name), accepted, hint)
    return dict(zip(fields, new, strict=True))
