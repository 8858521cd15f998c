"""From a finished run and another task to the trainings that show whether its lengths carry over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedModel

from apt_core.arguments import count_steps
from apt_core.config import MAX_TOKENS_PER_LAYER, AptConfig, Settings, TrainSettings, canonical_name
from apt_core.errors import AptFileExistsError, AptValueError, bad_value
from apt_core.gate_log import GateLog
from apt_core.model import AptModel, get_apt_model
from apt_core.run_format import GATES_FOLDER, RUN_FILE, RunInfo, check_new_folder, read_run_info, status_of
from apt_core.settled import settled_mass
from apt_core.shares import random_lengths, share, uniform_lengths
from apt_core.start import PrunedStart, pruned_start
from apt_core.tasks.source import DataSource
from apt_core.train import TrainJob, load_job_data
from apt_core.transfer_format import TRANSFER_FILE, Arm, Basis

OWN_FULL = "own-full"
"""folder of the run that gives the target's own lengths, where none is named"""


@dataclass(frozen=True)
class TransferJob:
    """What is asked for."""

    source: Path
    """folder of a finished run: its backbone, method and lengths are taken"""
    task: str
    """the target"""
    out: Path
    total: int
    """virtual tokens over all layers"""
    seeds: tuple[int, ...]
    data: DataSource = field(default_factory=DataSource)
    """of the target"""
    training: TrainSettings = field(default_factory=TrainSettings)
    """of the target; the seed is that of each run"""
    own: Path | None = None
    """folder of a finished run of the target; None: one is trained"""
    full_length: int = 16
    """virtual tokens in every layer of the run that is trained then"""
    warm: bool = False
    command: str = ""


class Lengths(NamedTuple):
    """Where a run puts a total of virtual tokens."""

    prefix_lengths: tuple[int, ...]
    basis: Basis


class Training(NamedTuple):
    """One run to be made."""

    job: TrainJob
    arms: tuple[Arm, ...]
    """that it belongs to"""


@dataclass(frozen=True)
class PrefixStart:
    """Another task's prefix, cut to the tokens with the largest gates; its head is taken only where it fits."""

    pruned: PrunedStart
    name: str = "warm"

    def build(self, backbone: PreTrainedModel, config: AptConfig, say: Callable[[str], None]) -> AptModel:
        apt = self.pruned.apt.model_copy(update={"modules_to_save": config.modules_to_save})
        model = get_apt_model(backbone, apt)
        for name in model.load_prefix(self.pruned.weights):
            say(f"note: {name} of the source's head does not fit this task; the head starts anew")
        model.prune(config.prefix_lengths, self.pruned.token_gate)
        return model


def lengths_of(folder: Path, total: int, field_name: str) -> Lengths:
    """Where a finished run puts ``total`` virtual tokens: in proportion to its lengths, or to its gate mass.

    Args:
        folder: of the run.
        total: virtual tokens over all layers.
        field_name: what the user called it.

    Raises:
        AptError: if it is no finished run, or says nothing about its layers.
    """
    info = finished_run(folder, field_name)
    if not info.total_tokens:
        raise bad_value(field_name, str(folder), "a run with virtual tokens", "This one has none to learn from.")
    if len(set(info.prefix_lengths)) > 1:
        return Lengths(tuple(share(info.prefix_lengths, total).tolist()), "lengths")
    config = AptConfig(**info.apt_config)
    if config.token_gate == "none" and not config.layer_scale:
        raise bad_value(
            field_name,
            str(folder),
            "a run with gates, or with different lengths per layer",
            "This one has neither, so it says nothing about its layers.",
        )
    return Lengths(tuple(share(settled_mass(GateLog(folder / GATES_FOLDER)), total).tolist()), "gates")


def finished_run(folder: Path, field_name: str) -> RunInfo:
    """What a finished run says.

    Raises:
        AptError: if it is no run, or not finished.
    """
    info = read_run_info(folder)
    if info.status != "finished":
        raise bad_value(field_name, str(folder), f"a finished run; this one is {status_of(info)}")
    return info


def check_transfer(job: TransferJob) -> None:
    """Refuses what cannot be trained, before anything is.

    Raises:
        AptError: naming what does not fit.
    """
    source = finished_run(job.source, "source")
    num_layers = source.num_layers
    if not 1 <= job.total <= num_layers * MAX_TOKENS_PER_LAYER:
        raise bad_value("total", job.total, f"1 to {num_layers * MAX_TOKENS_PER_LAYER} for {num_layers} layers")
    if not job.seeds:
        raise bad_value("seeds", 0, "1 or more")
    if AptConfig(**source.apt_config).shift_positions:
        raise bad_value(
            "source",
            str(job.source),
            "a run that does not count virtual tokens as positions (--shift-positions)",
            "Such prefixes need the same length in every layer.",
        )
    if job.own is not None:
        own = finished_run(job.own, "own")
        for what, now, then in (
            ("backbone", canonical_name(own.model), canonical_name(source.model)),
            ("layers", own.num_layers, num_layers),
        ):
            if now != then:
                raise bad_value("source", str(job.source), f"a run with the {what} of {job.own}, {now}; it has {then}")
        if own.task != job.task:
            raise bad_value("own", str(job.own), f"a run of task {job.task}; this one is of {own.task}")
        lengths_of(job.own, job.total, "own")
    lengths = lengths_of(job.source, job.total, "source").prefix_lengths
    if job.warm:
        _warm_start(job, lengths)
    if (job.out / RUN_FILE).exists() or not (job.out / TRANSFER_FILE).exists():
        check_new_folder(job.out)


def _warm_start(job: TransferJob, lengths: tuple[int, ...]) -> PrefixStart:
    """The source's prefix cut to ``lengths``.

    Raises:
        AptError: if the source has too few virtual tokens in a layer, or no adapter.
    """
    there = read_run_info(job.source).prefix_lengths
    for layer, (new, old) in enumerate(zip(lengths, there, strict=True), start=1):
        if new > old:
            raise bad_value(
                "warm",
                f"{new} virtual tokens in layer {layer}, its share of the total of {job.total}",
                f"at most {old}, as many as {job.source} has there to start from",
                "Lower --total, or leave out --warm.",
            )
    return PrefixStart(pruned_start(job.source, "warm", lengths))


def full_training(job: TransferJob) -> Training | None:
    """The training that gives the target's own lengths; None where ``job.own`` does."""
    if job.own is not None:
        return None
    num_layers = read_run_info(job.source).num_layers
    lengths = (job.full_length,) * num_layers
    return Training(_training(job, OWN_FULL, lengths, job.seeds[0], None), ())


def arm_trainings(job: TransferJob, own: tuple[int, ...] | None) -> list[Training]:
    """The trainings of all arms, seed by seed; arms with the same lengths share one.

    Args:
        job: what is asked for.
        own: the target's own lengths [L]; None while they are not known: that arm is then trained in any case.
    """
    num_layers = read_run_info(job.source).num_layers
    source = lengths_of(job.source, job.total, "source").prefix_lengths
    own_name = job.own.resolve().name if job.own is not None else OWN_FULL
    trainings = []
    for seed in job.seeds:
        arms: dict[Arm, tuple[int, ...]] = {
            "source": source,
            "uniform": uniform_lengths(job.total, num_layers),
            "random": random_lengths(job.total, num_layers, seed),
            **({"own": own} if own is not None else {}),
        }
        parents: dict[Arm, str] = {"source": job.source.resolve().name, "own": own_name}
        for lengths in dict.fromkeys(arms.values()):
            same = tuple(arm for arm, each in arms.items() if each == lengths)
            first = same[0]
            made = _training(job, f"{first}-seed{seed}", lengths, seed, parents.get(first))
            trainings.append(Training(made, same))
        if job.warm:
            warm = _training(job, f"warm-seed{seed}", source, seed, parents["source"])
            trainings.append(Training(replace(warm, start=_warm_start(job, source)), ("warm",)))
    return trainings


def _training(job: TransferJob, name: str, lengths: tuple[int, ...], seed: int, parent: str | None) -> TrainJob:
    source = read_run_info(job.source)
    apt = AptConfig(**{**source.apt_config, "prefix_lengths": lengths, "kept_tokens": None, "modules_to_save": None})
    return TrainJob(
        task=job.task,
        out=job.out / name,
        model=source.model,
        apt=apt,
        training=TrainSettings(**{**job.training.model_dump(), "seed": seed}),
        data=job.data,
        parent=parent,
        command=job.command,
    )


def is_done(training: Training) -> bool:
    """Whether the run is there and finished.

    Raises:
        AptError: if its folder holds a run with other settings or of other data, or a run that is still going on.
    """
    asked, folder = training.job, training.job.out
    if not (folder / RUN_FILE).exists():
        check_new_folder(folder)
        return False
    made, info = TrainJob.from_run(folder), read_run_info(folder)
    not_asked = {"num_virtual_tokens", "kept_tokens", "modules_to_save"}
    if asked.start is not None:  # it starts from the outcome of the source's projection, without one of its own
        not_asked |= {"prefix_projection", "encoder_hidden_size"}
    if status_of(info) == "running":
        raise AptValueError(f"out: {folder} is being trained by another process; wait for it, or choose another --out.")
    for what, now, then in (
        ("task", asked.task, made.task),
        ("model", canonical_name(asked.model), made.model),
        ("init", asked.start.name if asked.start else "scratch", info.init),
        *_settings(asked.apt, made.apt, not_asked),
        *_settings(asked.training, made.training, {"device"}),
        ("data", load_job_data(asked).fingerprint()[:12], info.data_hash[:12]),
    ):
        if now != then:
            raise AptFileExistsError(
                f"out: {folder} was trained with {what} {then!r}, now {now!r}; accepted: the settings of the first "
                "call, which this one then goes on with. Choose another --out."
            )
    return info.status == "finished"


def _settings(asked: Settings, made: Settings, but: set[str]) -> list[tuple[str, object, object]]:
    names = [name for name in type(asked).model_fields if name not in but]
    return [(name, getattr(asked, name), getattr(made, name)) for name in names]


def steps_of(training: Training) -> int:
    """Optimizer steps that a training takes.

    Raises:
        AptError: if its data cannot be read.
    """
    settings = training.job.training
    return settings.epochs * count_steps(settings, len(load_job_data(training.job).splits["train"]))
