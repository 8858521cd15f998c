"""The command line: ``python -m apt_core train | retrain | evaluate | measure | ... | jobs``."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from apt_core import options
from apt_core.budget_file import chosen_lengths
from apt_core.command_line import command_line, run_typer, say
from apt_core.commands.adapters import export_command, import_command, push_command
from apt_core.commands.bench_inference import bench_inference_command
from apt_core.commands.measure import measure_command
from apt_core.commands.sweep import sweep_command
from apt_core.commands.transfer import transfer_command
from apt_core.config import AptConfig, TrainSettings, canonical_name
from apt_core.errors import bad_value
from apt_core.jobs.commands import jobs_app
from apt_core.model_name import check_model_name
from apt_core.resume import resumed_job
from apt_core.run_format import RunInfo, next_run_folder
from apt_core.tasks import TASKS, infer_task
from apt_core.tasks.source import DataSource

app = typer.Typer(
    help="Adaptive prefix tuning of a frozen Hugging Face model, with every gate recorded.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(jobs_app, name="jobs")
app.command("measure")(measure_command)
app.command("bench-inference")(bench_inference_command)
app.command("transfer")(transfer_command)
app.command("sweep")(sweep_command)
app.command("export")(export_command)
app.command("import")(import_command)
app.command("push")(push_command)

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
        bool,
        typer.Option(
            "--resume", help="go on with the interrupted run in --out, with its own settings; its batch may be split"
        ),
    ] = False,
    memory_check: options.MemoryCheck = True,
    measure: options.Measure = True,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> None:
    """Train prefixes and gates on a task and record the gates of every step.

    Settings that are not given are the task's own (docs/training.md), or else: --epochs 4, --lr 0.005, --batch-size 16,
    --gradient-accumulation-steps 1, --optim adamw_torch_fused, --warmup-ratio 0.06, --weight-decay 0, --max-length 128,
    --seed 1, --device auto, --dtype auto; --shots: all examples; --backbone-dropout: the checkpoint's.

    Several processes: torchrun --nproc-per-node N -m apt_core train ...
    """
    if resume:
        if out is None:
            raise bad_value("out", None, "the folder of the interrupted run", "Add --out with --resume.")
        _end(_resume(context, out), out, context)
        return
    data = options.given_settings(context, DataSource)
    task = task or infer_task(data) or (None if data.place else DEFAULT_TASK)
    if task not in TASKS:
        hint = "" if task else "Add --task for the data that was named."
        raise bad_value("task", task, ", ".join(TASKS), hint)
    check_model_name(canonical_name(model))
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
    _end(train(job, memory_check=memory_check, say=say), out, context)


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
    memory_check = context.params["memory_check"]
    return train(resumed_job(asked, job, typed), resume=True, memory_check=memory_check, say=say)


@app.command("retrain")
def retrain_command(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="run folder whose task, backbone and settings are taken")],
    prefix_lengths: Annotated[
        str | None, typer.Option(help="virtual tokens per layer, such as 4,0,8,8,2,2; 0 leaves a layer as it is")
    ] = None,
    budget: Annotated[
        Path | None, typer.Option(help="instead: a file that 'python -m analysis budget RUN --out FILE' wrote")
    ] = None,
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
    memory_check: options.MemoryCheck = True,
    measure: options.Measure = True,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> None:
    """Train a run's task again with other prefix lengths. Settings that are not given are those of RUN."""
    lengths = chosen_lengths(run, prefix_lengths, budget, say)
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
        memory_check=memory_check,
        say=say,
        **training,
    )
    _end(info, out, context)


@app.command("evaluate")
def evaluate_command(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="folder of a finished run")],
    split: Annotated[str, typer.Option(help="validation or test")] = "test",
    token_gates: Annotated[
        bool,
        typer.Option(
            "--token-gates",
            help="also write each example's token gates, for the Errors page: token-gates-SPLIT.safetensors in RUN, up "
            "to 128 MiB",
        ),
    ] = False,
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

    data = TrainJob.from_run(run).data.moved(**options.typed_place(context))
    metrics = evaluate_run(run, split, data=data, device=device, token_gates=token_gates)
    if as_json:
        print(json.dumps({"run": str(run), "split": split, "metrics": metrics}))
    else:
        for name, value in metrics.items():
            print(f"{split} {name}: {value:.4f}")


def _end(info: RunInfo | None, out: Path, context: typer.Context) -> None:
    """Measures and reports what was trained, in the one process that speaks."""
    if info is None:
        return
    if context.params["measure"]:
        from apt_core.measure import measure_after_training

        measure_after_training(out, data=options.typed_place(context), say=say)
    report(info, out, context.params["as_json"])


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
    print(f"  python -m analysis audit {shlex.quote(str(out))}    # whether to follow the gates")
    print(f"  python -m analysis budget {shlex.quote(str(out))} --total {half}    # how few tokens, and where")
    print(f"  python -m apt_core evaluate {shlex.quote(str(out))} --split test    # once you have chosen")


if __name__ == "__main__":
    run_typer(app)
