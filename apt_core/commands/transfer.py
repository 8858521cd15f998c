"""``python -m apt_core transfer``."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apt_core import options
from apt_core.command_line import command_line
from apt_core.config import AptConfig, TrainSettings
from apt_core.errors import bad_value
from apt_core.tasks import TASKS
from apt_core.tasks.source import DataSource
from apt_core.transfer_format import ARMS, Transfer

if TYPE_CHECKING:
    from apt_core.transfer_summary import Summary

MAX_SEEDS = 100


def transfer_command(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(help="folder of a finished run: its lengths (or, if all are equal, its gates) are tried"),
    ],
    task: Annotated[str, typer.Option(help="target, one of: " + ", ".join(TASKS))],
    total: Annotated[int, typer.Option(help="virtual tokens over all layers, in every training")],
    seeds: Annotated[int, typer.Option(help="trainings of each kind of lengths, with the seeds 1, 2, ...")] = 3,
    own: Annotated[
        Path | None,
        typer.Option(
            help="folder of a finished run of the target that gives its own lengths, and its data and training "
            "settings where they are not typed [default: one is trained first, with --num-virtual-tokens in every "
            "layer]"
        ),
    ] = None,
    warm: Annotated[
        bool, typer.Option("--warm", help="also start from SOURCE's prefix values, cut to its lengths")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="folder for the runs and transfer.json; the same one goes on with it "
            "[default: transfer/<source>-to-<task>-<total>]"
        ),
    ] = None,
    data_dir: options.DataDir = None,
    dataset_name: options.DatasetName = None,
    dataset_config_name: options.DatasetConfigName = None,
    train_file: options.TrainFile = None,
    validation_file: options.ValidationFile = None,
    test_file: options.TestFile = None,
    text_column: options.TextColumn = None,
    text_pair_column: options.TextPairColumn = None,
    label_column: options.LabelColumn = None,
    tokens_column: options.TokensColumn = None,
    tags_column: options.TagsColumn = None,
    tag_scheme: options.TagScheme = None,
    prompt_column: options.PromptColumn = None,
    target_column: options.TargetColumn = None,
    validation_fraction: options.ValidationFraction = None,
    num_virtual_tokens: options.NumVirtualTokens = None,
    epochs: options.Epochs = None,
    learning_rate: options.LearningRate = None,
    prefix_learning_rate: options.PrefixLearningRate = None,
    gate_learning_rate: options.GateLearningRate = None,
    head_learning_rate: options.HeadLearningRate = None,
    batch_size: options.BatchSize = None,
    gradient_accumulation_steps: options.GradientAccumulationSteps = None,
    max_length: options.MaxLength = None,
    shots: options.Shots = None,
    device: options.Device = None,
    bf16: options.Bf16 = None,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> None:
    """Train a task with the prefix lengths of another one's run, and say whether they carry over.

    Four kinds of lengths of the same total are trained with each seed: SOURCE's, the target's own, uniform and random.
    Backbone and method are SOURCE's; training settings that are not given are those of --own, or the task's own.
    """
    if task not in TASKS:
        raise bad_value("task", task, ", ".join(TASKS))
    if not 1 <= seeds <= MAX_SEEDS:
        raise bad_value("seeds", seeds, f"1 to {MAX_SEEDS}")

    from apt_core.train import TrainJob
    from apt_core.transfer import transfer
    from apt_core.transfer_plan import TransferJob, finished_run
    from apt_core.transfer_summary import summary

    finished_run(source, "source")
    training, place = dict(TASKS[task].training), {}
    if own is not None:
        finished_run(own, "own")
        given = TrainJob.from_run(own)
        training = given.training.model_dump()
        place = given.data.moved(**options.typed_place(context)).given()
    job = TransferJob(
        source=source,
        task=task,
        out=out or Path("transfer") / f"{source.resolve().name}-to-{task}-{total}",
        total=total,
        seeds=tuple(range(1, seeds + 1)),
        data=options.given_settings(context, DataSource, place),
        training=options.given_settings(context, TrainSettings, training),
        own=own,
        full_length=options.given_settings(context, AptConfig).num_virtual_tokens,
        warm=warm,
        command=command_line(),
    )
    done = transfer(job, say=_say)
    _print(done, summary(done), job.out, as_json)


def _print(done: Transfer, found: Summary, out: Path, as_json: bool) -> None:
    if as_json:
        differences = [
            {
                "arm": each.arm, "other": each.other, "words": each.words,
                **({} if each.difference is None else {
                    "mean": each.difference.mean, "low": each.difference.low, "high": each.difference.high,
                    "pairs": each.difference.count,
                }),
            }
            for each in found.compared
        ]  # fmt: skip
        arms = {result.arm: {**result.metric._asdict(), "prefix_lengths": result.lengths} for result in found.arms}
        result = {"out": str(out), "verdict": found.verdict, "arms": arms, "differences": differences}
        print(json.dumps({**result, "transfer": done.model_dump(mode="json")}))
        return
    print(f"\n{done.task}, {done.total} virtual tokens: validation {done.metric_name}, mean and interval over seeds\n")
    for arm, metric, lengths in found.arms:
        number = "not measured" if metric.mean is None else f"{metric.mean:.3f}"
        half = f" ± {metric.half:.3f}" if metric.half else ""
        shown = " ".join(map(str, lengths[0])) if len(lengths) == 1 else "another draw for each seed"
        print(f"{arm:>8}  {number + half:<16} n = {metric.count}  {shown:<28} {ARMS[arm]}")
    print()
    for each in found.compared:
        print(f"{each.arm} against {each.other}: {each.words}")
    print(f"\n{found.verdict}\n\nnext:")
    print(f"  streamlit run app.py -- --runs {shlex.quote(str(out))}    # the Tasks page shows it")


def _say(line: str) -> None:
    from tqdm.auto import tqdm

    tqdm.write(line, file=sys.stderr)
