"""Pages of the documentation that are written from something else are what it says now."""

from __future__ import annotations

from docs.write_structure import PAGE, structure


def test_structure_is_what_the_files_say():
    """If this fails: ``python -m docs.write_structure``."""
    assert PAGE.read_text(encoding="utf-8") == structure()
