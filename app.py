"""The dashboard: ``streamlit run app.py [-- --runs DIR ...]``. Page set-up and navigation, nothing else."""

from __future__ import annotations

import gc

import streamlit as st

from analysis.pages import budget, compare, context, gates, runs

st.set_page_config(page_title="APT gate studio", page_icon=":material/tune:", layout="wide")
pages = {
    "runs": st.Page(runs.show, title="Runs", icon=":material/list:", url_path="runs", default=True),
    "gates": st.Page(gates.show, title="Gates", icon=":material/grid_on:", url_path="gates"),
    "budget": st.Page(budget.show, title="Budget", icon=":material/content_cut:", url_path="budget"),
    "compare": st.Page(compare.show, title="Compare", icon=":material/balance:", url_path="compare"),
}
st.session_state["pages"] = pages
context.choose_roots()
st.navigation(list(pages.values())).run()


@st.cache_resource(show_spinner=False)
def freeze_imports() -> None:
    """Once, after the first page: Streamlit collects garbage after every run, and need not look at libraries again."""
    gc.collect()
    gc.freeze()


freeze_imports()
