"""Measured inference of a run as a table and in words."""

from __future__ import annotations

import pandas as pd

from apt_core.inference_format import KINDS, Inference


def inference_table(inference: Inference) -> pd.DataFrame:
    """One row per variant: what it attends to, its times with their intervals, its quality."""
    rows = []
    for variant in inference.variants:
        quality = variant.quality
        rows.append(
            {
                "variant": variant.name,
                "virtual tokens": variant.tokens,
                "layers": variant.layers,
                "milliseconds": variant.milliseconds.median,
                "x backbone": variant.against_backbone.median,
                "x backbone, low": variant.against_backbone.low,
                "x backbone, high": variant.against_backbone.high,
                "x full run": variant.against_full.median,
                "x full run, low": variant.against_full.low,
                "x full run, high": variant.against_full.high,
                "time differs from full run": not variant.against_full.holds(1.0),
                "metric": quality and quality.metric,
                "loss": quality and quality.loss,
                "loss - full's": quality and quality.loss_difference,
                "± (95 %)": quality and quality.loss_difference_half,
                "what it is": KINDS[variant.kind],
            }
        )
    table = pd.DataFrame(rows)
    numbers = ["metric", "loss", "loss - full's", "± (95 %)"]
    return table.astype(dict.fromkeys(numbers, float))


def conditions(inference: Inference) -> str:
    """What was timed where, and what quality rests on, in one sentence each."""
    shape = " x ".join(map(str, inference.batch_shape))
    device = inference.device + (
        f" with {inference.num_threads} thread{'s' * (inference.num_threads != 1)}" if inference.device == "cpu" else ""
    )
    text = (
        f"Timed on {device}, {inference.attention} attention, {inference.batch_size} examples a pass ({shape} "
        f"sub-words), {inference.repetitions} repetitions of all in turn. Quality of {inference.num_examples} "
        f"{inference.split} examples."
    )
    token = inference.token_cost
    if inference.token_milliseconds is None or token is None:
        return text
    return (
        f"{text} A virtual token adds {1e3 * token.median:.2f} ({1e3 * token.low:.2f} to {1e3 * token.high:.2f}) "
        f"microseconds to such a pass, a layer's first one {1e3 * (inference.layer_milliseconds or 0.0):.0f} more."
    )
