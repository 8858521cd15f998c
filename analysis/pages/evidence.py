"""Evidence: whether the gates of a run may be followed, and all that says so."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from analysis.audit import Audit, command_for_more
from analysis.curves import curves_by_order
from analysis.evidence_tables import (
    agreement_table,
    checks_table,
    curves_table,
    layers_table,
    scores_table,
    thresholds_table,
)
from analysis.figures.deletion_curves import deletion_curves, deletion_curves_figure, order_name
from analysis.figures.importance_agreement import importance_agreement, importance_agreement_figure
from analysis.pages import context, cost_panel
from analysis.pages.audit_data import Audited, audited
from analysis.pages.charts import choose_image_format, show_downloads, show_figure
from analysis.runs import Run
from analysis.side_by_side import CONFIDENCE
from analysis.verdict import CARE, FOLLOW
from apt_core.measure_format import IMPORTANCES, REVERSED

LEVELS = {
    "good": ":material/check_circle: good",
    "weak": ":material/help: weak",
    "bad": ":material/cancel: bad",
}
INTERVAL = f"{CONFIDENCE:.0%} interval by resampling the examples; it knows nothing of other seeds, data or retraining."
WHAT_IT_SAYS_NOT = (
    "The verdict is about this run, this data and removal without retraining. It does not say how good a model "
    "retrained with fewer tokens will be: only retraining does. The first-order effect, and the effect of leaving out, "
    "were measured on the same examples as the curves."
)


def show() -> None:
    st.title("Evidence")
    run = context.choose_run("Run")
    if run is None:
        return
    choose_image_format()
    found = audited(run)
    if found is not None:
        _verdict(found.audit)
        _curves(found)
        _layers(found)
        _agreement(found.audit)
        _stability(found.audit)
        _not_measured(run, found.audit)
    st.subheader("Cheaper inference")
    cost_panel.show_inference(run)


def _verdict(audit: Audit) -> None:
    shown, icon = {
        FOLLOW: (st.success, ":material/check_circle:"),
        CARE: (st.warning, ":material/warning:"),
    }.get(audit.verdict, (st.error, ":material/block:"))
    shown(f"**{context.plain(audit.headline)}**", icon=icon)
    for check in audit.checks:
        st.markdown(f"{LEVELS[check.level]} · **{context.plain(check.name)}** · {context.plain(check.text)}")
    st.caption(WHAT_IT_SAYS_NOT)
    with st.expander("Thresholds"):
        st.caption(
            "*Follow the gates* takes every check good. One bad check, no clear gain over the reverse order, or "
            "neither a clear gain over random nor a clear agreement with the measured effect: *do not follow*. All "
            "else: *follow with care*. A check that lacks its numbers counts as weak."
        )
        st.dataframe(thresholds_table(), hide_index=True, width="stretch", key="thresholds")
    show_downloads("checks", "audit-checks", lambda: checks_table(audit))


def _curves(found: Audited) -> None:
    st.subheader("Taking virtual tokens away")
    named, _ = curves_by_order(found.measures)
    measured = [order for name in IMPORTANCES for order in (name, name + REVERSED) if order in named]
    left, right = st.columns([1, 2])
    with left:
        quantity = context.choose(
            "Shown",
            ["loss", "metric"],
            "shown",
            "loss",
            help="loss: mean cross-entropy; the verdict rests on it, since it moves with every example. metric: the "
            "run's metric, which is what you want in the end but jumps where few examples are measured.",
        )
    with right:
        orders = st.multiselect(
            "Orders",
            measured,
            default=[order for order in ("gate", "gate" + REVERSED) if order in measured],
            format_func=order_name,
            key="orders",
            bind="query-params",
            help="Which tokens go first. A good order keeps the loss low for long, and its reverse lets it rise at "
            "once. Random orders are always shown.",
        )
    show_figure(
        deletion_curves_figure(deletion_curves(found.measures, orders, quantity)),
        "curves",
        "deletion-curves",
        lambda: curves_table(found.measures),
        "No point was retrained: the other tokens were trained in the company of those taken away, so a retrained "
        "model of the same size is often better. The band is the range of the random orders, no interval.",
    )
    table = scores_table(found.audit)
    if not len(table):
        return
    columns = st.column_config
    st.dataframe(
        _with_intervals(table, {"over_random": ".3f", "over_reverse": ".3f", "over_gates": ".3f"}),
        hide_index=True,
        width="stretch",
        key="scores",
        column_config={
            "over_random": columns.TextColumn(
                "over random (nats)",
                help="Area between the curve and the mean of the random ones: how much lower the loss is, averaged "
                f"over all sizes. {INTERVAL} It does not know that other random orders would differ: see the bound.",
            ),
            "over_reverse": columns.TextColumn(
                "over reverse (nats)",
                help=f"The same against the most important tokens first. {INTERVAL} Half of all meaningless orders "
                "beat their reverse, so that alone it proves nothing.",
            ),
            "over_gates": columns.TextColumn(
                "over the gates (nats)",
                help=f"The same against the order of the gates: above 0, this importance does better. {INTERVAL}",
            ),
            "share_of_gain": columns.NumberColumn(
                "of the gain",
                format="percent",
                help="Over random, as a part of what the whole prefix lowers the loss by. 0 %: no better than chance. "
                "It can hardly reach 50 %, and a small one may be all there is to gain where tokens are alike.",
            ),
            "random_bound": columns.NumberColumn(
                "chance bound (nats)",
                format="%.3f",
                help="One more random order would save less than this (95 % for the gates, 98.3 % for each of the "
                "others, of which the best is taken). It is wide where few random orders were measured.",
            ),
            "random_orders_beaten": columns.NumberColumn(
                "random orders beaten", help=f"Of {found.audit.numbers['random_orders']} measured."
            ),
            "metric_over_random": columns.NumberColumn(
                "over random (metric)",
                format="%.3f",
                help="The same area for the run's metric, positive is better; without an interval, so that a small "
                "one says nothing.",
            ),
        },
    )
    show_downloads("scores", "curve-scores", lambda: table)


def _layers(found: Audited) -> None:
    st.subheader("Importance of layers, and their measured effect")
    measures = found.measures
    show_figure(
        importance_agreement_figure(
            importance_agreement(measures.importance, found.effects, len(measures.prefix_lengths))
        ),
        "layers",
        "layer-importance",
        lambda: layers_table(measures, found.effects),
        f"Above: what leaving one layer's tokens out costs, with all other layers in place; {CONFIDENCE:.0%} intervals "
        "over examples. Effects do not add up: two layers may stand in for each other. Below: each measure's share of "
        "the layer; a layer with more tokens has more of it.",
    )


def _agreement(audit: Audit) -> None:
    st.subheader("Agreement with the measured effect")
    table = agreement_table(audit)
    if not len(table):
        st.info("No agreement can be computed: the effect of layers was not measured, or it is the same for all.")
        return
    columns = st.column_config
    st.dataframe(
        _with_intervals(table, {"spearman": ".2f"}),
        hide_index=True,
        width="stretch",
        key="agreement",
        column_config={
            "count": columns.NumberColumn(help="Layers or virtual tokens compared. Few layers say little."),
            "spearman": columns.TextColumn(
                "Spearman",
                help="Rank correlation of the importance with the loss that leaving out costs: 1 the same order, 0 "
                f"none, -1 the reverse. {INTERVAL} Resampling adds noise to the effects, so intervals lean towards 0.",
            ),
            "kendall": columns.NumberColumn(
                "Kendall",
                format="%.2f",
                help="Kendall's tau-b: pairs in the same order minus pairs in the other, as a part of all. It says the "
                "same in other units, and is nearer to 0 than Spearman's.",
            ),
            "chance": columns.NumberColumn(
                format="%.3g",
                help="Probability of a rank correlation at least this high if the importance had nothing to do with "
                "the effect, by permutation; tokens change places only inside their layers. It is not the "
                "probability that the gates are wrong.",
            ),
        },
    )
    show_downloads("agreement", "agreement", lambda: table)


def _stability(audit: Audit) -> None:
    st.subheader("Stability")
    found, seeds = audit.numbers["stability"], audit.numbers["seeds"]
    if found is None:
        st.info("This run has no recorded gates, so whether their order holds is not known.")
    else:
        st.caption(f"Rank correlations of gate mass between parts of the training, {context.plain(found['basis'])}.")
        late = "It says that the order has come to rest, not that it is right."
        cells = st.columns(4)
        for cell, name, label, text in (
            (cells[0], "layers", "layers, late", "Layers in the third against the last quarter of the steps."),
            (cells[1], "tokens", "tokens, late", "The same for single virtual tokens."),
            (cells[2], "layers_within", "layers, at the end", "Layers in the two halves of the last quarter."),
            (cells[3], "tokens_within", "tokens, at the end", "Tokens in the two halves of the last quarter."),
        ):
            cell.metric(label, _number(found[name]), help=f"{text} {late}")
    cells = st.columns(4)
    cells[0].metric(
        "layers, over seeds",
        _number(seeds and seeds["mean"]),
        help="Mean rank correlation of the layers' gate mass over all pairs of runs that differ only by seed. Tokens "
        "of different seeds cannot be compared: they start at random places. Whether the metric is the same, the "
        "Compare page shows.",
    )
    cells[1].metric("seeds", seeds["runs"] if seeds else 1, help="Runs in this folder that differ only by seed.")
    cells[2].metric(
        "measured against recorded",
        _number(audit.numbers["recorded_gates"]),
        help="Rank correlation of the gate mass on the measured examples with that recorded at the end of training, "
        "whose stability is judged. It is lower where an earlier checkpoint was kept.",
    )
    cells[3].metric(
        "weights moved by",
        "not known" if not found or found["moved"] is None else f"{found['moved']:.0%}",
        help="Mean relative change from the first recorded step to the last quarter. Near 0: the gates are where they "
        "started. How far is no measure of how good.",
    )


def _not_measured(run: Run, audit: Audit) -> None:
    st.subheader("What was not measured")
    for sentence in audit.not_measured:
        st.markdown(f"- {context.plain(sentence)}")
    examples = audit.numbers["examples"]
    st.caption(
        f"The numbers rest on {examples['used']:,} of {examples['available']:,} {context.plain(examples['split'])} "
        f"examples; {examples['left_out']:,} measured ones lack a loss somewhere and were left out. More examples, "
        "orders and single tokens:"
    )
    st.code(command_for_more(run.folder, audit), language="bash", wrap_lines=True)


def _with_intervals(table: pd.DataFrame, formats: dict[str, str]) -> pd.DataFrame:
    """The table with each of some numbers and its interval in one text column."""
    shown = table.copy()
    for name, form in formats.items():
        rows = zip(*(table[column].astype(float) for column in (name, f"{name}_low", f"{name}_high")), strict=True)
        shown[name] = [
            "-" if pd.isna(value) else f"{value:{form}} ({low:{form}} to {high:{form}})" for value, low, high in rows
        ]
        shown = shown.drop(columns=[f"{name}_low", f"{name}_high"])
    return shown


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2f}"
