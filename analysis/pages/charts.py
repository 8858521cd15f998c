"""A figure or a table with its downloads: the picture through the browser, the numbers as CSV and Parquet."""

from __future__ import annotations

import io
from collections.abc import Callable

import pandas as pd
import streamlit as st

from analysis.figures.theme import Figure, image_config

IMAGE_FORMAT = "image_format"
FIRST_FIGURE = "first_figure"
"""session state: "asked" while the browser draws the first figure of its first page, "drawn" from then on"""
PATIENCE_SECONDS = 10
"""at the latest then a page goes on: its first figure may be missing, as its data cannot be read"""
_watch_first_figure = st.components.v2.component(
    "first_figure",
    js="""
export default function ({ setTriggerValue }) {
  const look = () => {
    if (document.querySelector(".js-plotly-plot .main-svg")) setTriggerValue("drawn", true)
    else timer = setTimeout(look, 30)
  }
  let timer = setTimeout(look, 0)
  return () => clearTimeout(timer)
}
""",
)


def choose_image_format() -> None:
    """The sidebar's choice of what the camera button of a figure saves."""
    with st.sidebar:
        st.segmented_control(
            "Save figures as",
            ["PNG", "SVG"],
            default="PNG",
            required=True,
            key=IMAGE_FORMAT,
            persist_state="session",
            help="What the camera button at the top right of a figure saves. PNG: pixels, twice the size on screen. "
            "SVG: lines and text that can be edited and enlarged.",
        )


def first_figure_is_drawn() -> bool:
    """Whether a page may go on below its first figure.

    A browser shows nothing of a figure before it has made all that it was sent with it. Where the first page that it
    opens ends there at first, a person sees the figure much sooner.
    """
    return st.session_state.get(FIRST_FIGURE) == "drawn"


def wait_for_first_figure() -> None:
    """In place of the rest of a page: once the browser has drawn the first figure, the page is run again."""
    st.fragment(_wait_for_first_figure, run_every=PATIENCE_SECONDS)()


def _wait_for_first_figure() -> None:
    watch = _watch_first_figure(key="first figure", on_drawn_change=lambda: None, height=1)
    if watch.drawn or st.session_state.get(FIRST_FIGURE) == "asked":
        st.session_state[FIRST_FIGURE] = "drawn"
        st.rerun()
    st.session_state[FIRST_FIGURE] = "asked"


def show_figure(figure: Figure, key: str, name: str, numbers: Callable[[], pd.DataFrame], about: str = "") -> None:
    """A figure, words about it, and its downloads.

    Args:
        figure: with a title, which a screen reader reads, too.
        key: unique on the page.
        name: of the files, without ending.
        numbers: makes the table of what is drawn; called when it is downloaded.
        about: below the figure.
    """
    draw(figure, key, name)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(about or "The camera at the top right of the figure saves it as a picture.")
        show_downloads(key, name, numbers)


def draw(figure: Figure, key: str, name: str) -> None:
    """A figure alone; its camera button saves it as ``name`` in the format of the sidebar."""
    image_format = "svg" if st.session_state.get(IMAGE_FORMAT) == "SVG" else "png"
    st.plotly_chart(
        figure,
        width="stretch",
        key=f"figure {key}",
        config=image_config(name, image_format),
        alt=f"{figure.layout.title.text}. The numbers can be downloaded below.",
    )


def show_downloads(key: str, name: str, numbers: Callable[[], pd.DataFrame]) -> None:
    """A menu with the numbers as CSV and Parquet; they are made when asked for."""
    with st.popover("Data", icon=":material/download:", help="Download the numbers shown here.", key=f"data {key}"):
        st.download_button(
            "CSV",
            lambda: numbers().to_csv(index=False).encode(),
            f"{name}.csv",
            "text/csv",
            key=f"csv {key}",
            on_click="ignore",
            width="stretch",
        )
        st.download_button(
            "Parquet",
            lambda: _parquet(numbers()),
            f"{name}.parquet",
            "application/vnd.apache.parquet",
            key=f"parquet {key}",
            on_click="ignore",
            width="stretch",
        )


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()
