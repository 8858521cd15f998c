"""Writes ``docs/structure.md``, what each file is for, from the files: ``python -m docs.write_structure``."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "structure.md"
ROOMS = {
    "apt_core": "The method, training, run folders, jobs. Never imports `analysis`.",
    "analysis": "What pages and commands compute, without torch. Streamlit only in `pages`, Plotly in `figures`.",
    "benchmarks": "Measurements, each one command; their results are in `benchmarks/results`.",
    "docs": "The pages that are written by a command.",
}


def structure() -> str:
    """The page: a table for every room, a row for every file with the first sentence of its docstring."""
    lines = [
        "# What each file is for",
        "",
        "Written by `python -m docs.write_structure` from the first lines of the files. Imports go one way: `app.py`, "
        "`analysis/pages`, `analysis`, `apt_core`. A new task, figure, page, budget method or command is one file "
        "and one registration, in `apt_core/tasks/__init__.py`, `app.py`, `analysis/budgets/methods.py` or "
        "`__main__.py`.",
    ]
    for room, about in ROOMS.items():
        lines += ["", f"## {room}", "", about, "", "| file | |", "|---|---|"]
        for path in sorted((ROOT / room).rglob("*.py"), key=lambda path: (path.parent != ROOT / room, path)):
            if path.name != "__init__.py":
                lines.append(f"| `{path.relative_to(ROOT).as_posix()}` | {_first_sentence(path)} |")
    return "\n".join(lines) + "\n"


def _first_sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = " ".join(text.partition("\n\n")[0].split())
    return first.replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(structure(), encoding="utf-8")
