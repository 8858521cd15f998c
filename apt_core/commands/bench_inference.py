"""``python -m apt_core bench-inference``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from apt_core import options
from apt_core.errors import bad_value
from apt_core.inference_format import Inference, Quality, Spread, Variant

Number = TypeVar("Number", int, float)


def bench_inference_command(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="folder of a finished run")],
    split: Annotated[str, typer.Option(help="whose examples are predicted: train, validation or test")] = "validation",
    thresholds: Annotated[
        str | None,
        typer.Option(
            help="token gates, from 0 to over 1 (all), under which a token is switched off for an input, such as "
            "0.2,0.4 [default: those that switch off 1/4, 1/2 and 3/4 of all]"
        ),
    ] = None,
    totals: Annotated[
        str | None,
        typer.Option(help="virtual tokens that pruning leaves, such as 48,24 [default: 3/4, 1/2 and 1/4 of the run's]"),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="examples of a timed pass [default: that of training]")] = None,
    length: Annotated[
        int | None, typer.Option(help="sub-words per text, longer ones are cut [default: that of training]")
    ] = None,
    examples: Annotated[int, typer.Option(help="that quality is measured on, at most")] = 200,
    seconds: Annotated[float, typer.Option(help="spent on timing; quality takes a pass per variant beside it")] = 60.0,
    seed: Annotated[int, typer.Option(min=0, help="which examples are drawn, and the order of each repetition")] = 0,
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
    """Measure quality against latency: pruned, folded, and with tokens switched off by their gate for each input.

    All variants are timed in turn in one process; every number comes with the 95 % interval it is in. Writes
    inference.json into the run folder, which the dashboard reads.
    """
    levels = _numbers("thresholds", thresholds, float, "token gates separated by commas, such as 0.2,0.4")
    kept = _numbers("totals", totals, int, "virtual tokens over all layers, separated by commas, such as 48,24")

    from apt_core.bench_inference import bench_inference
    from apt_core.train import TrainJob

    inference = bench_inference(
        run,
        split=split,
        thresholds=levels,
        totals=kept,
        batch_size=batch_size,
        length=length,
        examples=examples,
        seconds=seconds,
        seed=seed,
        data=TrainJob.from_run(run).data.moved(**options.typed_place(context)),
        device=device,
    )
    if as_json:
        print(json.dumps({"run": str(run), **inference.model_dump(mode="json")}))
    else:
        _print(inference, run)


def _numbers(field: str, text: str | None, kind: Callable[[str], Number], accepted: str) -> tuple[Number, ...] | None:
    if text is None:
        return None
    try:
        return tuple(kind(part.strip()) for part in text.split(","))
    except ValueError:
        raise bad_value(field, text, accepted) from None


def _print(inference: Inference, run: Path) -> None:
    shape = " x ".join(map(str, inference.batch_shape))
    print(
        f"{inference.split}: {inference.num_examples} examples for quality; timed on {inference.device}, "
        f"{inference.num_threads} threads, {inference.attention}: {inference.batch_size} examples a pass ({shape} "
        f"sub-words), {inference.repetitions} repetitions in turn.\nMedian (95 % interval). = : the interval holds "
        "equality, so it may be noise.\n"
    )
    rows = [["", "tokens", "layers", "ms", "x backbone", "x full run", inference.metric_name, "loss", "loss - full's"]]
    rows += [_row(variant) for variant in inference.variants]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    token = inference.token_cost
    if inference.token_milliseconds is not None and token is not None:
        print(
            f"\nA virtual token adds {1e3 * token.median:.2f} ({1e3 * token.low:.2f} to {1e3 * token.high:.2f}) "
            f"microseconds to such a pass, a layer's first one {1e3 * (inference.layer_milliseconds or 0):.0f} more."
        )
    print()
    for note in inference.notes:
        print(f"- {note}")
    print("\nnext:")
    print(f"  streamlit run app.py -- --runs {shlex.quote(str(run.parent))}    # the Evidence page shows it")


def _row(variant: Variant) -> list[str]:
    return [
        variant.name,
        f"{variant.tokens:.1f}",
        f"{variant.layers:.1f}",
        f"{variant.milliseconds.median:.2f}",
        _ratio(variant.against_backbone),
        _ratio(variant.against_full),
        *_quality(variant.quality),
    ]


def _ratio(ratio: Spread) -> str:
    return f"{ratio.median:.3f} ({ratio.low:.3f}-{ratio.high:.3f})" + (" =" if ratio.holds(1.0) else "")


def _quality(quality: Quality | None) -> list[str]:
    if quality is None:
        return ["untrained", "", ""]
    numbers = ["-" if value is None else f"{value:.3f}" for value in (quality.metric, quality.loss)]
    if quality.loss_difference is None:
        return [*numbers, ""]
    half = "" if quality.loss_difference_half is None else f" ± {quality.loss_difference_half:.3f}"
    return [*numbers, f"{quality.loss_difference:+.3f}{half}" + (" =" if quality.within_noise else "")]
