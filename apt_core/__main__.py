"""The command line: ``python -m apt_core train | retrain | evaluate | export | import | push | jobs``."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from apt_core import options
from apt_core.command_line import run_typer
from apt_core.config import AptConfig, TrainSettings, parse_prefix_lengths
from apt_core.errors import bad_value
from apt_core.jobs.commands import jobs_app
from apt_core.processes import num_ranks
from apt_core.resume import resumed_job
from apt_core.run_format import RunInfo, check_new_folder, next_run_folder
from apt_core.tasks import TASKS, infer_task
from apt_core.tasks.source import DataSource

app = typer.Typer(
    help="Adaptive prefix tuning of a frozen Hugging Face model, with every gate recorded.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(jobs_app, name="jobs")

RUNS_ROOT = Path("runs")
DEFAULT_TASK = "pydoc-topic"


@app.command("train")
def train_command(
    context: typer.Context,
    task: Annotated[
        str | None,
        typer.Option(help="one of: " + ", ".join(TASKS) + " [default: what the columns say, or pydoc-topic]"),
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
    out: Annotated[
        Path | None, typer.Option(help="new folder for the run [default: runs/<task>-<method>-<number>]")
    ] = None,
    model: Annotated[
        str, typer.Option(help="backbone: a folder, a Hub name, or minilm, which needs no download")
    ] = "minilm",
    num_virtual_tokens: options.NumVirtualTokens = None,
    prefix_lengths: options.PrefixLengths = None,
    init_adapter: Annotated[
        Path | None,
        typer.Option(help="start from this adapter: one of ours, or of PEFT's prefix tuning [default: random values]"),
    ] = None,
    token_gate: options.TokenGate = None,
    gate_pooling: options.GatePooling = None,
    layer_scale: options.LayerScale = None,
    attention: options.Attention = None,
    init_std: options.InitStd = None,
    gate_init: options.GateInit = None,
    gate_init_std: options.GateInitStd = None,
    prefix_projection: options.PrefixProjection = None,
    encoder_hidden_size: options.EncoderHiddenSize = None,
    prefix_dropout: options.PrefixDropout = None,
    shift_positions: options.ShiftPositions = None,
    epochs: options.Epochs = None,
    learning_rate: options.LearningRate = None,
    prefix_learning_rate: options.PrefixLearningRate = None,
    gate_learning_rate: options.GateLearningRate = None,
    head_learning_rate: options.HeadLearningRate = None,
    batch_size: options.BatchSize = None,
    gradient_accumulation_steps: options.GradientAccumulationSteps = None,
    optim: options.Optim = None,
    warmup_ratio: options.WarmupRatio = None,
    weight_decay: options.WeightDecay = None,
    backbone_dropout: options.BackboneDropout = None,
    max_length: options.MaxLength = None,
    seed: options.Seed = None,
    shots: options.Shots = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    bf16: options.Bf16 = None,
    gradient_checkpointing: options.GradientCheckpointing = None,
    torch_compile: options.TorchCompile = None,
    snapshot_steps: options.SnapshotSteps = None,
    record_every: options.RecordEvery = None,
    record_dtype: options.RecordDtype = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the interrupted run in --out, with its own settings")
    ] = False,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> None:
    """Train prefixes and gates on a task and record the gates of every step.

    Settings that are not given are the task's own, or else: 4 epochs, --lr 0.005, --batch-size 16, --max-length 128,
    --seed 1, AdamW, float32. Several processes: torchrun --nproc-per-node N -m apt_core train ...
    """
    if resume:
        if out is None:
            raise bad_value("out", None, "the folder of the interrupted run", "Add --out with --resume.")
        report(_resume(context, out), out, as_json)
        return
    data = options.given_settings(context, DataSource)
    task = task or infer_task(data) or (None if data.place else DEFAULT_TASK)
    if task not in TASKS:
        hint = "" if task else "Add --task for the data that was named."
        raise bad_value("task", task, ", ".join(TASKS), hint)
    options.check_lengths(context)
    apt = options.given_settings(context, AptConfig)
    settings = options.given_settings(context, TrainSettings, TASKS[task].training)
    out = out or next_run_folder(RUNS_ROOT, f"{task}-{method_slug(apt)}")

    from apt_core.start import AdapterStart, adapter_config
    from apt_core.train import TrainJob, check_output, train

    check_output(out, resume=False)
    start = None
    if init_adapter is not None:
        given = options.typed_names(context) & AptConfig.model_fields.keys()
        apt = adapter_config(init_adapter, apt, given)
        start = AdapterStart(init_adapter)
    job = TrainJob(
        task=task, out=out, model=model, apt=apt, training=settings, data=data, command=command_line(), start=start
    )
    report(train(job, say=_say), out, as_json)


def _resume(context: typer.Context, out: Path) -> RunInfo | None:
    """Goes on with an interrupted run; what was typed beside it must be what the run says, but for where data is."""
    from apt_core.train import TrainJob, check_output, train

    check_output(out, resume=True)
    options.check_lengths(context)
    typed = options.typed_names(context)
    job = TrainJob.from_run(out)
    job = replace(job, data=job.data.moved(**options.typed_place(context)))
    asked = replace(
        job,
        task=context.params["task"] or job.task,
        model=context.params["model"],
        apt=options.given_settings(context, AptConfig),
        training=options.given_settings(context, TrainSettings),
        data=options.given_settings(context, DataSource),
    )
    return train(resumed_job(asked, job, typed), resume=True, say=_say)


@app.command("retrain")
def retrain_command(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="run folder whose task, backbone and settings are taken")],
    prefix_lengths: Annotated[
        str, typer.Option(help="virtual tokens per layer, such as 4,0,8,8,2,2; 0 leaves a layer as it is")
    ],
    out: Annotated[Path | None, typer.Option(help="new folder for the run [default: <run>-pruned-<number>]")] = None,
    init: Annotated[
        str,
        typer.Option(
            help="what the kept tokens start from: scratch (random values), warm (their values at RUN's end) or "
            "rewind:STEP (at an early step that RUN kept)"
        ),
    ] = "scratch",
    data_dir: options.DataDir = None,
    dataset_name: options.DatasetName = None,
    dataset_config_name: options.DatasetConfigName = None,
    train_file: options.TrainFile = None,
    validation_file: options.ValidationFile = None,
    test_file: options.TestFile = None,
    epochs: options.Epochs = None,
    learning_rate: options.LearningRate = None,
    prefix_learning_rate: options.PrefixLearningRate = None,
    gate_learning_rate: options.GateLearningRate = None,
    head_learning_rate: options.HeadLearningRate = None,
    batch_size: options.BatchSize = None,
    gradient_accumulation_steps: options.GradientAccumulationSteps = None,
    seed: options.Seed = None,
    device: options.Device = None,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> None:
    """Train a run's task again with other prefix lengths. Settings that are not given are those of RUN."""
    lengths = parse_prefix_lengths(prefix_lengths)
    out = out or next_run_folder(run.resolve().parent, f"{run.resolve().name}-pruned")

    from apt_core.retrain import retrain
    from apt_core.train import TrainJob, check_output

    check_output(out, resume=False)
    training = {name: value for name, value in context.params.items() if name in TrainSettings.model_fields}
    info = retrain(
        run,
        out,
        lengths,
        init=init,
        data=TrainJob.from_run(run).data.moved(**options.typed_place(context)),
        command=command_line(),
        say=_say,
        **training,
    )
    report(info, out, as_json)


@app.command("evaluate")
def evaluate_command(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="folder of a finished run")],
    split: Annotated[str, typer.Option(help="validation or test")] = "test",
    data_dir: options.DataDir = None,
    dataset_name: options.DatasetName = None,
    dataset_config_name: options.DatasetConfigName = None,
    train_file: options.TrainFile = None,
    validation_file: options.ValidationFile = None,
    test_file: options.TestFile = None,
    device: options.Device = None,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> None:
    """Measure a finished run on a split and note the result in its run.json."""
    from apt_core.evaluate_run import evaluate_run
    from apt_core.train import TrainJob

    metrics = evaluate_run(
        run, split, data=TrainJob.from_run(run).data.moved(**options.typed_place(context)), device=device
    )
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
    debug: options.Debug = False,
) -> None:
    """Write a run's adapter in the format of another library, after checking that its outputs are equal there."""
    if format_name != "peft":
        raise bad_value("format", format_name, "peft")
    check_new_folder(out)

    from apt_core.evaluate_run import load_run
    from apt_core.peft_adapter import export_peft

    export_peft(load_run(run), out)
    print(f"{out}: load it with peft.PeftModel.from_pretrained(backbone, {str(out)!r})")


@app.command("import")
def import_command(
    adapter: Annotated[Path, typer.Argument(help="folder that PEFT's prefix tuning saved")],
    out: Annotated[Path, typer.Option(help="new folder for the adapter in this project's format")],
    model: Annotated[
        str | None, typer.Option(help="the backbone it was trained on [default: the one it names]")
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Turn a PEFT prefix tuning adapter into one of ours, after checking that its outputs are equal.

    To train on from one, with gates put on top: train --init-adapter ADAPTER.
    """
    check_new_folder(out)

    from apt_core.peft_adapter import import_adapter
    from apt_core.train import quiet_transformers

    quiet_transformers()
    import_adapter(adapter, out, model=model, say=_say)
    print(f"{out}: load it with apt_core.AptModel.from_pretrained({str(out)!r})")


@app.command("push")
def push_command(
    run: Annotated[Path, typer.Argument(help="folder of a finished run")],
    repo_id: Annotated[str, typer.Argument(help="user/name on the Hugging Face Hub; made if it does not exist")],
    private: Annotated[bool, typer.Option("--private", help="a repository that is made is for you only")] = False,
    debug: options.Debug = False,
) -> None:
    """Upload a run's adapter, with a model card that tells its results, to the Hugging Face Hub.

    Uses the token of 'hf auth login' or HF_TOKEN. Neither predictions nor text of the data are uploaded.
    """
    from apt_core.push_run import push_run

    print(push_run(run, repo_id, private=private))


def method_slug(config: AptConfig) -> str:
    """The method's name in a folder name: apt, pt2 (no gates), or apt-... for an ablation."""
    if config.token_gate == "none" and not config.layer_scale:
        return "pt2"
    gate = {"hidden": "", "static": "-static", "none": "-no-gate"}[config.token_gate]
    return f"apt{gate}{'' if config.layer_scale else '-no-scale'}"


def report(info: RunInfo | None, out: Path, as_json: bool) -> None:
    """Prints the result of a training, and what to do next; None in a process that does not speak."""
    if info is None:
        return
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
    print(line, file=sys.stderr, flush=True)


def command_line() -> str:
    """What was typed, such that typing it again makes the same run."""
    launcher = ["torchrun", "--nproc-per-node", str(num_ranks())] if num_ranks() > 1 else ["python"]
    return shlex.join(
        [*launcher, "-m", "apt_core", *(word for word in sys.argv[1:] if word not in ("--json", "--debug"))]
    )


if __name__ == "__main__":
    run_typer(app)
