"""From a sweep's spec to its trainings: which there are, what each is called, and its command. Pure, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from apt_core.config import canonical_name
from apt_core.errors import AptValueError, bad_value
from apt_core.run_format import RunInfo
from apt_core.shares import random_lengths, uniform_lengths
from apt_core.sweep_options import TaskOptions
from apt_core.sweep_spec import BLIND, MEASURED, SweepSpec, is_full

FULL = "full"
"""stands for a method where nothing is shared out"""
MAX_TRAININGS = 10_000
_BY_LENGTHS = ("num_virtual_tokens", "prefix_lengths", "kept_tokens", "modules_to_save")
"""fields of ``AptConfig`` that differ between the runs of a sweep"""
_FREE = ("device", "batch_size", "gradient_accumulation_steps")
"""fields of ``TrainSettings`` that a retry may change; of the last two, the product stays"""
_NO_RESULT, _BATCH = ("device", "memory-check"), ("batch-size", "gradient-accumulation-steps")
"""options of ``train`` that a sweep may be gone on with otherwise; of the second pair, the product stays"""


class Training(NamedTuple):
    """One run to be made; its folder has its name."""

    name: str
    task: str
    learning_rate: float
    seed: int
    total: int
    """virtual tokens over all layers"""
    method: str
    """``FULL``, or a key of ``METHODS``"""
    parent: str | None
    """name of the full run that the lengths follow from; None where they follow from none"""
    prefix_lengths: tuple[int, ...] | None
    """[L]; None where they follow from the parent"""

    @property
    def cell(self) -> tuple[str, float, int, str]:
        """What it has in common with the same training with other seeds."""
        return (self.task, self.learning_rate, self.total, self.method)


def expand(spec: SweepSpec, num_layers: Mapping[str, int]) -> list[Training]:
    """Every training of a sweep, each once: seed by seed, so that all cells fill at once; parents before children.

    Args:
        spec: the grid.
        num_layers: task -> layers of its backbone that get prefixes.

    Raises:
        AptValueError: if a total is more than the full run has, a method cannot work with the options, or there are
            more than ``MAX_TRAININGS``.
    """
    if most_trainings(spec) > MAX_TRAININGS:
        raise AptValueError(f"sweep: it has {most_trainings(spec):,} trainings; accepted: up to {MAX_TRAININGS:,}.")
    totals = {task: _totals(spec, task, num_layers[task]) for task in spec.tasks}
    trainings = []
    for seed in spec.seeds:
        for task in spec.tasks:
            layers = num_layers[task]
            length = spec.options(task).apt.num_virtual_tokens
            for rate in spec.rates(task):
                stem = f"{task}-lr{rate!r}-s{seed}"
                parent = f"{stem}-full"
                if spec.needs_full or length * layers in totals[task]:
                    lengths = (length,) * layers
                    trainings.append(Training(parent, task, rate, seed, length * layers, FULL, None, lengths))
                for total in totals[task]:
                    if total == length * layers:
                        continue
                    for method in spec.methods:
                        blind = method in BLIND
                        name, own = f"{stem}-b{total}-{method}", None if blind else parent
                        lengths = _blind_lengths(method, total, layers, seed) if blind else None
                        trainings.append(Training(name, task, rate, seed, total, method, own, lengths))
    return trainings


def most_trainings(spec: SweepSpec) -> int:
    """How many trainings a spec takes, as far as that can be told without its backbones: fewer if totals coincide."""
    budgets = sum(not is_full(budget) for budget in spec.budgets)
    each = int(spec.needs_full) + budgets * len(spec.methods)
    return sum(len(spec.rates(task)) for task in spec.tasks) * len(spec.seeds) * each


def _blind_lengths(method: str, total: int, num_layers: int, seed: int) -> tuple[int, ...]:
    """Lengths that look at no run."""
    if method == "random":
        return random_lengths(total, num_layers, [seed, total])
    return uniform_lengths(total, num_layers)


def arguments_of(training: Training, spec: SweepSpec, out: Path, budget: Path | None = None) -> list[str]:
    """The command that makes a run, after ``python -m apt_core``.

    Args:
        training: one of ``expand``.
        spec: the grid.
        out: the sweep's folder.
        budget: file with the lengths, where they follow from the parent.
    """
    options = spec.options(training.task)
    unmeasured = [] if options.measure or (spec.measures and training.method == FULL) else ["--no-measure"]
    end = ["--out", str(out / training.name), *unmeasured, *options.unchecked]
    if training.parent is not None:  # task, backbone, data, seed and all other settings are the parent's
        return ["retrain", str(out / training.parent), "--budget", str(budget), *end]
    words = ["train", "--task", training.task, *options.words()]
    words += ["--lr", repr(training.learning_rate), "--seed", str(training.seed)]
    if training.method != FULL:
        lengths = ",".join(map(str, training.prefix_lengths or ()))
        words = [*_without(words, "--num-virtual-tokens"), "--prefix-lengths", lengths]
    return [*words, *end]


def difference_from(training: Training, options: TaskOptions, info: RunInfo) -> str:
    """In what a run differs from the training that should have made it; empty where it does not."""
    asked = options.training.model_copy(update={"seed": training.seed, "learning_rate": training.learning_rate})
    settings = {name: value for name, value in asked.model_dump(mode="json").items() if name not in _FREE}
    method = {name: value for name, value in options.apt.model_dump(mode="json").items() if name not in _BY_LENGTHS}
    wanted = {
        "task": (info.task, training.task),
        "model": (info.model, canonical_name(options.model)),
        "virtual tokens": (info.total_tokens, training.total),
        "examples per step": (_per_step(info.training), _per_step(asked.model_dump())),
        **{name: (info.training.get(name, value), value) for name, value in settings.items()},
        **{name: (info.apt_config.get(name, value), value) for name, value in method.items()},
    }
    return "; ".join(f"{field} {got!r} instead of {then!r}" for field, (got, then) in wanted.items() if got != then)


def _per_step(settings: Mapping[str, Any]) -> object:
    """Examples of an optimizer step, however it is split."""
    batch, passes = (settings.get(name) for name in _FREE[1:])
    return batch * passes if isinstance(batch, int) and isinstance(passes, int) else (batch, passes)


def check_extends(old: SweepSpec, new: SweepSpec) -> None:
    """Refuses a spec that does more than add cells to an earlier one.

    Raises:
        AptValueError: naming the first key that differs.
    """
    hint = "Choose another --out."
    for key in ("tasks", "seeds", "budgets", "methods"):
        lacking = [value for value in getattr(old, key) if repr(value) not in map(repr, getattr(new, key))]
        if lacking:
            now, then = list(getattr(new, key)), list(getattr(old, key))
            raise bad_value(key, now, f"those that this sweep has already, {then}, and more", hint)
    if old.test and not new.test:
        raise bad_value("test", False, "true, as this sweep has it already", hint)
    for task in old.tasks:
        now, then = new.rates(task), old.rates(task)
        if not set(then) <= set(now):
            accepted = f"those that this sweep has already for {task}, {list(then)}, and more"
            raise bad_value("learning_rates", list(now), accepted, hint)
        before, after = ({**spec.options(task).given} for spec in (old, new))
        free = ["lr", *_NO_RESULT]
        if _per_step(old.options(task).training.model_dump()) == _per_step(new.options(task).training.model_dump()):
            free += _BATCH
        for flag in dict.fromkeys([*before, *after]):
            if flag not in free and before.get(flag) != after.get(flag):
                there = f"{before[flag]!r}, as this sweep has it already" if flag in before else "nothing, as before"
                raise bad_value(f"train.{flag} of {task}", after.get(flag), there, hint)


def _totals(spec: SweepSpec, task: str, num_layers: int) -> list[int]:
    """The totals of a task's budgets, each once.

    Raises:
        AptValueError: as ``expand``.
    """
    apt = spec.options(task).apt
    full = apt.num_virtual_tokens * num_layers
    totals: list[int] = []
    for budget in spec.budgets:
        total = max(1, round(budget * full)) if isinstance(budget, float) else budget
        if total > full:
            where = f"{apt.num_virtual_tokens} in each of {num_layers} layers"
            raise bad_value("budgets", budget, f"1 to {full} virtual tokens for {task}, which has {where}")
        if total not in totals:
            totals.append(total)
    fewer = [total for total in totals if total < full]
    if fewer and apt.token_gate == "none" and not apt.layer_scale and set(spec.methods) - {*BLIND, *MEASURED}:
        raise bad_value(
            "methods", list(spec.methods), f"{' and '.join(BLIND)}, because {task} is trained without gates"
        )
    if apt.shift_positions and any(spec.methods != ("uniform",) or total % num_layers for total in fewer):
        accepted = "false, or the method uniform alone with totals that all layers can share alike"
        raise bad_value("train.shift-positions", True, accepted, "Virtual tokens that count as positions need it.")
    return totals


def _without(words: Sequence[str], flag: str) -> list[str]:
    """``words`` without a flag and its value."""
    if flag not in words:
        return list(words)
    place = words.index(flag)
    return [*words[:place], *words[place + 2 :]]
