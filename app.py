"""The dashboard: ``streamlit run app.py [-- --runs DIR ...]``. Page set-up and navigation, nothing else."""

from __future__ import annotations

import gc

import streamlit as st

from analysis.pages import budget, compare, context, errors, evidence, gates, investment, pilot, runs, tasks

st.set_page_config(page_title="APT gate studio", page_icon=":material/tune:", layout="wide")
sections = {
    "Look": {
        "runs": st.Page(runs.show, title="Runs", icon=":material/list:", url_path="runs", default=True),
        "gates": st.Page(gates.show, title="Gates", icon=":material/grid_on:", url_path="gates"),
        "compare": st.Page(compare.show, title="Compare", icon=":material/balance:", url_path="compare"),
        "errors": st.Page(errors.show, title="Errors", icon=":material/rule:", url_path="errors"),
        "tasks": st.Page(tasks.show, title="Tasks", icon=":material/hub:", url_path="tasks"),
    },
    "Decide": {
        "evidence": st.Page(evidence.show, title="Evidence", icon=":material/fact_check:", url_path="evidence"),
        "budget": st.Page(budget.show, title="Budget", icon=":material/content_cut:", url_path="budget"),
        "investment": st.Page(
            investment.show, title="Investment", icon=":material/trending_up:", url_path="investment"
        ),
        "pilot": st.Page(pilot.show, title="Pilot", icon=":material/route:", url_path="pilot"),
    },
}
st.session_state["pages"] = {name: page for section in sections.values() for name, page in section.items()}
context.choose_roots()
st.navigation({name: list(section.values()) for name, section in sections.items()}).run()


@st.cache_resource(show_spinner=False)
def freeze_imports() -> None:
    """Once, after the first page: Streamlit collects garbage after every run, and need not look at libraries again."""
    gc.collect()
    gc.freeze()


freeze_imports()
