"""Pages of the documentation that are written from something else are what it says now."""

from __future__ import annotations

import re

from apt_core.config import TrainSettings
from apt_core.tasks import TASKS
from docs import write_api, write_recorded
from docs.write_structure import PAGE, structure


def test_structure_is_what_the_files_say():
    """If this fails: ``python -m docs.write_structure``."""
    assert PAGE.read_text(encoding="utf-8") == structure()


def test_python_api_is_what_the_docstrings_say():
    """If this fails: ``python -m docs.write_api``."""
    assert write_api.PAGE.read_text(encoding="utf-8") == write_api.api()


def test_tables_of_recorded_runs_are_what_the_runs_say():
    """If this fails: ``python -m docs.write_recorded``."""
    for page, text in write_recorded.pages().items():
        assert page.read_text(encoding="utf-8") == text


def test_every_page_is_in_the_table_of_contents():
    folder = PAGE.parent
    contents = (folder / "README.md").read_text(encoding="utf-8")
    assert {page.name for page in folder.glob("*.md")} - {"README.md"} == set(
        re.findall(r"\]\(([\w-]+\.md)\)", contents)
    )


def test_defaults_of_training_are_those_of_the_tasks_and_settings():
    text = (PAGE.parent / "training.md").read_text(encoding="utf-8")
    own = [name for name, entry in TASKS.items() if entry.training]
    for name in [*own, "your own data"]:
        settings = TrainSettings(**(TASKS[name].training if name in TASKS else {}))
        numbers = (settings.epochs, settings.learning_rate, settings.batch_size, settings.max_length)
        shown = f"`{name}`" if name in TASKS else name
        assert f"| {shown} | {' | '.join(f'{number:g}' for number in numbers)} |" in text


def test_links_between_pages_lead_somewhere():
    for page in [*PAGE.parent.glob("*.md"), PAGE.parents[1] / "README.md"]:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
