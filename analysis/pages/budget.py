"""Budget: from gates and measures to a number of virtual tokens per layer, and to a retraining with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import streamlit as st

from analysis.audit import Audit, not_retrainable
from analysis.budgets import METHODS, uniform
from analysis.budgets.known import budget_file, costs_of
from analysis.budgets.suggest import Evidence, suggest
from analysis.budgets.weighing import Weighed, weigh
from analysis.pages import budget_controls, budget_table, context, cost_panel, retrain
from analysis.pages.audit_data import audited
from analysis.pages.gate_data import Gates, open_gates, weights_of
from analysis.runs import Run, shown
from analysis.verdict import CARE, FOLLOW
from apt_core.budget_file import MAX_BUDGET_BYTES, BudgetFile, budget_text, parse_budget
from apt_core.errors import AptError


class Offer(NamedTuple):
    """Lengths to start from."""

    lengths: list[int]  # [L]
    weighed: Weighed
    file: Callable[[list[int]], BudgetFile]
    """lengths as edited -> what is downloaded"""


def show() -> None:
    st.title("Budget")
    run = context.choose_run("Run")
    if run is not None:
        gates = open_gates(run)
        if gates is not None:
            _show_budget(run, gates)
        retrain.show_jobs(run)


def _show_budget(run: Run, gates: Gates) -> None:
    if not run.info.total_tokens:
        st.info("This run has no virtual tokens, so there is nothing to share out.")
        return
    try:
        weights = weights_of(gates)
    except AptError as problem:
        st.error(f"The gates of {context.plain(run.key)} cannot be read: {context.plain(problem)}")
        return
    found = audited(run)
    if found is not None:
        _verdict(found.audit)
    evidence = Evidence(weights, found.measures if found else None, costs_of(run), run.folder)
    uploaded = _upload(run)
    if uploaded is not None:
        offer = _from_file(run, uploaded, evidence)
    else:
        offer = _suggested(run, evidence, found.audit if found else None)
    if offer is not None:
        _decide(run, offer, evidence)


def _verdict(audit: Audit) -> None:
    say = {FOLLOW: st.success, CARE: st.warning}.get(audit.verdict, st.error)
    say(f"**{context.plain(audit.headline)}** The reasons, with numbers, are on the Evidence page.")


def _upload(run: Run) -> BudgetFile | None:
    """A budget from a file, if there is one that fits the run."""
    with st.expander("Use a budget from a file", icon=":material/upload:"):
        given = st.file_uploader(
            "Budget (JSON)",
            type="json",
            max_upload_size=max(1, MAX_BUDGET_BYTES // 2**20),
            help="As this page downloads it, or 'python -m analysis budget RUN --out FILE' writes it. Remove it to go "
            "back to suggestions.",
        )
    if given is None:
        return None
    try:
        found = parse_budget(given.getvalue(), given.name)
        found.check_fits(run.info, run.key)
    except AptError as problem:
        st.error(context.plain(shown(problem)))
        return None
    for difference in found.differences(run.info, run.name):
        st.warning(context.plain(difference))
    return found


def _from_file(run: Run, found: BudgetFile, evidence: Evidence) -> Offer:
    made = f" from {found.source.name}" if found.source.name else ""
    verdict = (found.evidence or {}).get("headline")
    words = [f"{found.total} virtual tokens by {found.method or 'an unknown method'}{made}, as in the file."]
    words += [f"The audit said then: {shown(verdict)}"] if isinstance(verdict, str) else []
    st.info(context.plain(" ".join(words)))

    def file(lengths: list[int]) -> BudgetFile:
        edited = found.edited or lengths != found.prefix_lengths
        return found.model_copy(update={"prefix_lengths": lengths, "total": sum(lengths), "edited": edited})

    return Offer(list(found.prefix_lengths), weigh("gate", evidence.log_weights, evidence.measures), file)


def _suggested(run: Run, evidence: Evidence, audit: Audit | None) -> Offer | None:
    locks = budget_table.locks_of(run)
    ask = budget_controls.ask(run, evidence.measures, evidence.costs, locks, audit.use if audit else "gate")
    try:
        found = suggest(ask, evidence)
    except AptError as problem:
        st.error(context.plain(problem))
        budget_table.offer_unlocking(run)
        return None
    st.caption(
        context.plain(
            f"{found.budget.total} virtual tokens. {found.budget.method}: {METHODS[found.budget.method].description}; "
            f"weights: {found.weighed.name}, {found.weighed.source}."
        )
    )
    for note in found.notes:
        st.caption(context.plain(note))
    return Offer(
        list(found.budget.prefix_lengths),
        found.weighed,
        lambda lengths: budget_file(run, ask, found, lengths, evidence.measures, audit),
    )


def _decide(run: Run, offer: Offer, evidence: Evidence) -> None:
    lengths = budget_table.edit(run, offer.lengths, offer.weighed, evidence)
    total = sum(lengths)
    if total != sum(offer.lengths):
        st.warning(f"The lengths sum to {total}, not to the {sum(offer.lengths)} of the suggestion.")
    if not total:
        st.error("Every layer has length 0: nothing but the task head would be trained.")
        return
    problem = not_retrainable(run.info, lengths)
    if problem:
        st.warning(context.plain(problem))
    even = list(uniform(total, len(lengths)).prefix_lengths)
    cost_panel.show_costs(run, lengths)
    st.download_button(
        "Download budget (JSON)",
        lambda: budget_text(offer.file(lengths)),
        f"{run.name}-budget{total}.json",
        "application/json",
        icon=":material/download:",
        on_click="ignore",
        help="Lengths, and how they were found: method, weights, limit, rules, the run, and the audit's verdict. "
        "'python -m apt_core retrain RUN --budget FILE' takes it.",
    )
    retrain.show_form(run, lengths, even)
