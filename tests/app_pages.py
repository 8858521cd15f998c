"""Pages of the app in Streamlit's own test runner, one at a time."""

from __future__ import annotations

from typing import Any

from streamlit.testing.v1 import AppTest

TIMEOUT = 60
"""seconds for one run of a page"""


def page(name: str, **query: str | list[str]) -> AppTest:
    """A page as an address with ``query`` opens it; the browser tests go through the navigation."""
    app = AppTest.from_string(f"from analysis.pages import {name}\n{name}.show()", default_timeout=TIMEOUT)
    for key, value in query.items():
        app.query_params[key] = value
    return rerun(app)


def rerun(changed: Any) -> AppTest:
    """Runs the app again after a widget changed, or the app itself; nothing may go wrong."""
    app = changed.run()
    assert not app.exception, [element.value for element in app.exception]
    return app


def texts(elements: Any) -> str:
    """What elements say, without the backslashes that keep Markdown from being read in it."""
    return "\n".join(str(element.value) for element in elements).replace("\\", "")


def field(elements: Any, label: str) -> Any:
    """The one that is labelled so."""
    return next(element for element in elements if element.label == label)


def button(app: AppTest, label: str) -> Any:
    return field(app.button, label)


def labels(app: AppTest) -> list[str]:
    """Of all buttons."""
    return [each.label for each in app.button]
