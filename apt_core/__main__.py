"""The command line: ``python -m apt_core train | retrain | evaluate | export | jobs``."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apt_core.command_line import run_typer
from apt_core.config import AptConfig, TrainSettings, canonical_name, parse_prefix_lengths
from apt_core.errors import bad_value
from apt_core.jobs.commands import jobs_app
from apt_core.run_format import RunInfo, check_new_folder, next_run_folder
from apt_core.tasks import TASKS

if TYPE_CHECKING:
    from apt_core.train import TrainJob

app = typer.Typer(
    help="Adaptive prefix tuning of a frozen Hugging Face model, with every gate recorded.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(jobs_app, name="jobs")

RUNS_ROOT = Path("runs")

DataDir = Annotated[
    str | None,
    typer.Option(help="folder with the task's files, or with a folder of the task's name; built-in tasks need none"),
]
Epochs = Annotated[int | None, typer.Option(help="passes over the training split [default: the task's own]")]
LearningRate = Annotated[
    float | None, typer.Option("--lr", help="peak learning rate of prefix, gates and head [default: the task's own]")
]
BatchSize = Annotated[int | None, typer.Option(help="examples per step and device [default: the task's own]")]
Seed = Annotated[int | None, typer.Option(help="seed of initialisation, data order and dropout [default: 1]")]
Device = Annotated[str | None, typer.Option(help="auto (a GPU where there is one), cpu or cuda [default: auto]")]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as one JSON object on stdout")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]


@app.command("train")
def train_command(
    context: typer.Context,
    task: Annotated[str, typer.Option(help="one of: " + ", ".join(TASKS))] = "pydoc-topic",
    data_dir: DataDir = None,
    out: Annotated[
        Path | None, typer.Option(help="new folder for the run [default: runs/<task>-<method>-<number>]")
    ] = None,
    model: Annotated[
        str, typer.Option(help="backbone: a folder, a Hub name, or minilm, which needs no download")
    ] = "minilm",
    num_virtual_tokens: Annotated[int | None, typer.Option(help="virtual tokens in every layer [default: 16]")] = None,
    prefix_lengths: Annotated[
        str | None,
        typer.Option(help="virtual tokens per layer instead, such as 4,0,8,8,2,2; 0 leaves a layer as it is"),
    ] = None,
    shift_positions: Annotated[
        bool, typer.Option("--shift-positions", help="count virtual tokens as positions, which PEFT does: for export")
    ] = False,
    token_gate: Annotated[
        str, typer.Option(help="hidden (from the hidden state), static (one learned value per token) or none")
    ] = "hidden",
    layer_scale: Annotated[
        bool, typer.Option("--layer-scale/--no-layer-scale", help="a learned multiplier of each layer's prefix")
    ] = True,
    epochs: Epochs = None,
    lr: LearningRate = None,
    batch_size: BatchSize = None,
    max_length: Annotated[
        int | None, typer.Option(help="sub-words per text; longer ones are cut [default: the task's own]")
    ] = None,
    seed: Seed = None,
    shots: Annotated[
        int | None, typer.Option(help="training examples per class (in all where there are no classes) [default: all]")
    ] = None,
    device: Device = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the interrupted run in --out, with its own settings")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train prefixes and gates on a task and record the gates of every step."""
    given = {
        "epochs": epochs, "learning_rate": lr, "batch_size": batch_size, "max_length": max_length,
        "seed": seed, "shots": shots, "device": device,
    }  # fmt: skip
    if task not in TASKS:
        raise bad_value("task", task, ", ".join(TASKS))
    if num_virtual_tokens is not None and prefix_lengths is not None:
        raise bad_value("prefix-lengths", prefix_lengths, "either --num-virtual-tokens or --prefix-lengths")
    lengths = {"prefix_lengths": parse_prefix_lengths(prefix_lengths)} if prefix_lengths is not None else {}
    if num_virtual_tokens is not None:
        lengths["num_virtual_tokens"] = num_virtual_tokens
    apt = AptConfig(token_gate=token_gate, layer_scale=layer_scale, shift_positions=shift_positions, **lengths)
    settings = TrainSettings(
        **{**TASKS[task].training, **{name: value for name, value in given.items() if value is not None}}
    )
    if resume and out is None:
        raise bad_value("out", None, "the folder of the interrupted run", "Add --out with --resume.")
    out = out or next_run_folder(RUNS_ROOT, f"{task}-{method_slug(apt)}")

    from apt_core.train import TrainJob, check_output, train

    check_output(out, resume)
    job = TrainJob(
        task=task, out=out, model=model, apt=apt, training=settings, data_dir=data_dir, command=_command_line()
    )
    if resume:
        given_flags = {name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"}
        job = resumed_job(job, TrainJob.from_run(out), given_flags)
    report(train(job, resume=resume, say=_say), out, as_json)


@app.command("retrain")
def retrain_command(
    run: Annotated[Path, typer.Argument(help="run folder whose task, backbone and settings are taken")],
    prefix_lengths: Annotated[
        str, typer.Option(help="virtual tokens per layer, such as 4,0,8,8,2,2; 0 leaves a layer as it is")
    ],
    out: Annotated[Path | None, typer.Option(help="new folder for the run [default: <run>-pruned-<number>]")] = None,
    data_dir: DataDir = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the training split [default: as in RUN]")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="peak learning rate [default: as in RUN]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="examples per step and device [default: as in RUN]")] = None,
    seed: Annotated[int | None, typer.Option(help="seed [default: as in RUN]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda [default: as in RUN]")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train a run's task again with other prefix lengths."""
    lengths = parse_prefix_lengths(prefix_lengths)
    out = out or next_run_folder(run.resolve().parent, f"{run.resolve().name}-pruned")

    from apt_core.retrain import retrain
    from apt_core.train import check_output

    check_output(out, resume=False)
    info = retrain(
        run, out, lengths, data_dir=data_dir, command=_command_line(), say=_say,
        epochs=epochs, learning_rate=lr, batch_size=batch_size, seed=seed, device=device,
    )  # fmt: skip
    report(info, out, as_json)


@app.command("evaluate")
def evaluate_command(
    run: Annotated[Path, typer.Argument(help="folder of a finished run")],
    split: Annotated[str, typer.Option(help="validation or test")] = "test",
    data_dir: DataDir = None,
    device: Device = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure a finished run on a split and note the result in its run.json."""
    from apt_core.evaluate_run import evaluate_run

    metrics = evaluate_run(run, split, data_dir=data_dir, device=device)
    if as_json:
        print(json.dumps({"run": str(run), "split": split, "metrics": metrics}))
    else:
        for name, value in metrics.items():
            print(f"{split} {name}: {value:.4f}")


@app.command("export")
def export_command(
    run: Annotated[Path, typer.Argument(help="folder of a finished run with static gates, or none, and equal lengths")],
    out: Annotated[Path, typer.Option(help="new folder for the adapter")],
    format_name: Annotated[str, typer.Option("--format", help="peft: a stock PREFIX_TUNING adapter")] = "peft",
    debug: Debug = False,
) -> None:
    """Write a run's adapter in the format of another library, after checking that its outputs are equal there."""
    if format_name != "peft":
        raise bad_value("format", format_name, "peft")
    check_new_folder(out)

    from apt_core.evaluate_run import load_run
    from apt_core.peft_adapter import export_peft

    export_peft(load_run(run), out)
    print(f"{out}: load it with peft.PeftModel.from_pretrained(backbone, {str(out)!r})")


def resumed_job(asked: TrainJob, earlier: TrainJob, given_flags: set[str]) -> TrainJob:
    """The job of the interrupted run, if nothing that was typed contradicts it.

    Raises:
        AptValueError: naming the first flag whose value is not the run's.
    """
    names = {"lr": "learning_rate"}
    num_layers = len(earlier.apt.prefix_lengths)
    values = {
        **{name: (getattr(asked, name), getattr(earlier, name)) for name in ("task", "data_dir", "model")},
        "model": (canonical_name(asked.model), canonical_name(earlier.model)),
        "token_gate": (asked.apt.token_gate, earlier.apt.token_gate),
        "layer_scale": (asked.apt.layer_scale, earlier.apt.layer_scale),
        "shift_positions": (asked.apt.shift_positions, earlier.apt.shift_positions),
        "num_virtual_tokens": (asked.apt.lengths(num_layers), earlier.apt.prefix_lengths),
        "prefix_lengths": (asked.apt.lengths(num_layers), earlier.apt.prefix_lengths),
        **{
            flag: (getattr(asked.training, field), getattr(earlier.training, field))
            for flag, field in ((flag, names.get(flag, flag)) for flag in given_flags)
            if hasattr(asked.training, field)
        },
    }
    for flag in sorted(given_flags & values.keys()):
        typed, recorded = values[flag]
        if typed != recorded:
            raise bad_value(
                flag.replace("_", "-"), typed, f"{recorded!r}, as in the run that is resumed", "Leave the flag out."
            )
    return earlier


def method_slug(config: AptConfig) -> str:
    """The method's name in a folder name: apt, pt2 (no gates), or apt-... for an ablation."""
    if config.token_gate == "none" and not config.layer_scale:
        return "pt2"
    gate = {"hidden": "", "static": "-static", "none": "-no-gate"}[config.token_gate]
    return f"apt{gate}{'' if config.layer_scale else '-no-scale'}"


def report(info: RunInfo, out: Path, as_json: bool) -> None:
    """Prints the result of a training, and what to do next."""
    metrics = info.metrics["validation"]
    if as_json:
        result = {
            "run": str(out), "status": info.status, "metrics": info.metrics, "prefix_lengths": info.prefix_lengths,
            "total": info.total_tokens, "num_parameters": info.num_parameters, "steps": info.total_steps,
            "seconds": info.seconds, "parent": info.parent,
        }  # fmt: skip
        print(json.dumps(result))
        return
    half = info.total_tokens // 2
    print(
        f"\n{info.task}: validation {info.metric_name} {metrics[info.metric_name]:.3f}, "
        f"{info.total_tokens} virtual tokens, {info.num_trained_parameters:,} trained parameters, "
        f"{info.total_steps} steps in {info.seconds:.0f} s -> {out}"
    )
    print("next:")
    print(f"  streamlit run app.py -- --runs {shlex.quote(str(out.parent))}    # look at the gates")
    print(f"  python -m analysis budget {shlex.quote(str(out))} --total {half}    # how few tokens, and where")
    print(f"  python -m apt_core evaluate {shlex.quote(str(out))} --split test    # once you have chosen")


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _command_line() -> str:
    return shlex.join(
        ["python", "-m", "apt_core", *(word for word in sys.argv[1:] if word not in ("--json", "--debug"))]
    )


if __name__ == "__main__":
    run_typer(app)
