"""The dashboard: ``streamlit run app.py [-- --runs DIR ...]``. Page set-up and navigation, nothing else."""

from __future__ import annotations

import gc
from collections.abc import Callable
from importlib import import_module

import streamlit as st

from analysis.pages import access, context, notices


def page(name: str) -> Callable[[], None]:
    """What draws a page; its file, with the libraries it needs, is loaded when it is first looked at."""

    def show() -> None:
        import_module(f"analysis.pages.{name}").show()

    return show


# a named icon would be fetched by every browser from a server of Google's
ICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 3 3">
<path fill="#00224e" d="M0 0h3v3H0z"/><path fill="#7c7b78" d="M1 0h1v2H1zM2 2h1v1H2z"/>
<path fill="#fee838" d="M2 0h1v2H2z"/></svg>"""
st.set_page_config(page_title="APT gate studio", page_icon=ICON, layout="wide")
sections = {
    "Look": {
        "runs": st.Page(page("runs"), title="Runs", icon=":material/list:", url_path="runs", default=True),
        "gates": st.Page(page("gates"), title="Gates", icon=":material/grid_on:", url_path="gates"),
        "compare": st.Page(page("compare"), title="Compare", icon=":material/balance:", url_path="compare"),
        "errors": st.Page(page("errors"), title="Errors", icon=":material/rule:", url_path="errors"),
        "tasks": st.Page(page("tasks"), title="Tasks", icon=":material/hub:", url_path="tasks"),
    },
    "Decide": {
        "evidence": st.Page(page("evidence"), title="Evidence", icon=":material/fact_check:", url_path="evidence"),
        "budget": st.Page(page("budget"), title="Budget", icon=":material/content_cut:", url_path="budget"),
        "investment": st.Page(
            page("investment"), title="Investment", icon=":material/trending_up:", url_path="investment"
        ),
        "pilot": st.Page(page("pilot"), title="Pilot", icon=":material/route:", url_path="pilot"),
    },
    "Train": {
        "jobs": st.Page(page("jobs"), title="Jobs", icon=":material/pending_actions:", url_path="jobs"),
        "sweeps": st.Page(page("sweeps"), title="Sweeps", icon=":material/apps:", url_path="sweeps"),
    },
}
st.session_state["pages"] = {name: each for section in sections.values() for name, each in section.items()}
context.choose_roots()
access.show()
notices.show()
st.navigation({name: list(section.values()) for name, section in sections.items()}).run()


@st.cache_resource(show_spinner=False)
def freeze_imports() -> None:
    """Once, after the first page: Streamlit collects garbage after every run, and need not look at libraries again."""
    gc.collect()
    gc.freeze()


freeze_imports()
# Where a run ends that a click has overtaken meanwhile: at its very end it would make Streamlit forget the parts of the
# next page that are drawn anew by themselves, and that page would be deaf to clicks
st.session_state.get("pages")
