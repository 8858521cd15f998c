"""What lengths cost, and what fewer virtual tokens save at inference: parts of the Budget and Evidence pages."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from analysis.audit import measured_on_another, trained_by_command
from analysis.budgets import uniform
from analysis.costs import cost_of, costs_table
from analysis.figures.quality_latency import (
    REFERENCES,
    QualityAgainstLatency,
    quality_against_latency,
    quality_against_latency_figure,
)
from analysis.inference_table import conditions, inference_table
from analysis.pages import context
from analysis.pages.charts import show_downloads, show_figure
from analysis.runs import Run
from apt_core.errors import AptError, AptFileNotFoundError
from apt_core.inference_format import Inference, Variant, read_inference

FIELDS = {
    "parameters": "trained parameters and the adapter's size",
    "kv_cache_bytes": "the KV cache",
    "multiply_adds": "multiply-adds",
    "milliseconds": "milliseconds",
}


def show_costs(run: Run, lengths: Sequence[int]) -> None:
    """A table of what the run, these lengths, and uniform ones of the same total cost."""
    try:
        inference = read_inference(run.folder, run.info.prefix_lengths)
    except (AptError, OSError):
        inference = None  # without it there are no milliseconds, which is said
    try:
        chosen = {
            "this run": run.info.prefix_lengths,
            "uniform, same total": uniform(sum(lengths), len(lengths)).prefix_lengths,
            "this budget": lengths,
        }
        costs = {name: cost_of(run.info, each, inference) for name, each in chosen.items()}
    except AptError as problem:
        st.error(f"What these lengths cost cannot be counted: {context.plain(problem)}")
        return
    table = costs_table(costs)
    st.dataframe(
        table,
        hide_index=True,
        width="content",
        key="costs",
        column_config={
            "trained parameters": st.column_config.NumberColumn(
                format="localized",
                help="Prefix, gates, scales and head. They do not say how long a prediction takes.",
            ),
            "adapter (kB)": st.column_config.NumberColumn(
                format="localized", help="Thousands of bytes of the tensors in adapter_model.safetensors."
            ),
            "KV cache per sequence (kB)": st.column_config.NumberColumn(
                format="localized",
                help="Keys and values that attention sees beside the text's own, in the backbone's type, for each "
                "sequence.",
            ),
            "multiply-adds per query position": st.column_config.NumberColumn(
                format="localized",
                help="Added for every position of the text: scores and values of every query head; where gates are per "
                "position, those too. They do not say how long they take: a processor does many at once.",
            ),
            "multiply-adds per sequence": st.column_config.NumberColumn(
                format="localized", help="Added once for each text: its gates, and their product with keys and values."
            ),
            "added to a pass (ms)": st.column_config.NumberColumn(
                format="%.3f",
                help="From measured times of a forward pass (bench-inference), of its shape and on its device only.",
            ),
        },
    )
    reasons = costs["this budget"].reasons
    unknown = [f"{words}: {reasons[field]}" for field, words in FIELDS.items() if field in reasons]
    if unknown:
        st.caption(context.plain("Not known: " + "; ".join(unknown) + "."))
    show_downloads("costs", f"{run.name}-costs", lambda: table)


def show_inference(run: Run) -> None:
    """Quality against latency of a run as measured, or the command that measures it."""
    try:
        inference = read_inference(run.folder, run.info.prefix_lengths)
    except AptFileNotFoundError:
        if not trained_by_command(run.info):
            return
        st.info("How fast this run predicts with fewer virtual tokens has not been measured yet. This does it:")
        st.code(f"python -m apt_core bench-inference {shlex.quote(str(run.folder))}", language="bash")
        return
    except (AptError, OSError) as problem:
        st.error(f"The measurement of inference cannot be read: {context.plain(problem)}")
        return
    if measured_on_another(run.folder, inference.adapter_sha256):
        st.warning("The adapter has changed since this was measured: the numbers are about another one.")
    quality, reference = _choose(inference)
    table = inference_table(inference)
    show_figure(
        quality_against_latency_figure(_data(inference, quality, reference)),
        "inference",
        f"{run.name}-inference",
        lambda: table,
        "Left is faster. Where an interval reaches across 1 the difference may be noise. Nothing was retrained: a "
        "pruned model that is, is usually better than its point here. One shape on one device; it says nothing of "
        "others.",
    )
    st.caption(context.plain(conditions(inference)))
    _show_table(table)
    for note in inference.notes:
        st.caption(context.plain(note))


def _choose(inference: Inference) -> tuple[str, str]:
    left, right = st.columns(2)
    choices = ["loss", inference.metric_name] if inference.metric_name not in ("", "loss") else ["loss"]
    with left:
        quality = context.choose(
            "Quality",
            choices,
            "inference_quality",
            choices[-1],
            format_func=context.plain,
            help="loss: mean cross-entropy of the examples, nats, lower is better; it moves before a metric does. "
            "Both are of the examples drawn for this measurement, not of the whole split.",
        )
    with right:
        reference = context.choose(
            "Time compared with",
            list(REFERENCES),
            "inference_reference",
            "full run",
            help="The ratio is taken between passes over the same batch, timed one after the other; its interval is of "
            "the median ratio.",
        )
    return quality, reference


def _data(inference: Inference, quality: str, reference: str) -> QualityAgainstLatency:
    def value(variant: Variant) -> float | None:
        return variant.quality.loss if quality == "loss" else variant.quality.metric

    better = "lower" if quality == "loss" or not inference.greater_is_better else "higher"
    unit = f"{inference.split} {quality}{' (nats, ' if quality == 'loss' else ' ('}{better} is better)"
    return quality_against_latency(inference, reference, value, unit)


def _show_table(table: pd.DataFrame) -> None:
    ratios = [name for name in table.columns if name.startswith("x ")]
    st.dataframe(
        table,
        hide_index=True,
        width="stretch",
        key="inference table",
        column_config={
            "milliseconds": st.column_config.NumberColumn(
                format="%.2f", help="Median of one forward pass of one batch. Compare ratios, not these."
            ),
            "virtual tokens": st.column_config.NumberColumn(
                format="%.1f", help="Attended to, over all layers; of switched ones the mean over inputs."
            ),
            "layers": st.column_config.NumberColumn(format="%.1f", help="Layers with any."),
            **{name: st.column_config.NumberColumn(format="%.3f") for name in ratios},
            **{name: st.column_config.NumberColumn(format="%.3f") for name in ("metric", "loss")},
            "loss - full's": st.column_config.NumberColumn(
                format="%+.3f", help="Mean over examples of the difference from the full run's loss, nats."
            ),
            "± (95 %)": st.column_config.NumberColumn(
                format="%.3f",
                help="Half length of its interval over the examples. A difference no larger may be noise.",
            ),
        },
    )
