"""``docs/api.md``, from signatures and docstrings: ``python -m docs.write_api``."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from importlib import import_module
from pathlib import Path

PAGE = Path(__file__).parent / "api.md"
HEAD = """# Python API

Written by `python -m docs.write_api` from docstrings. What is not here is not promised to stay. Axes in shapes:
B batch, T sequence, L layers, P virtual tokens of a layer, d hidden size. Every error of ours is an `AptError`
that says in one line what was received and what is accepted.
"""
PUBLIC = {
    "apt_core": ("get_apt_model", "AptConfig", "AptModel", "GateRecorder", "AptTrainer", "TrainSettings", "AptError"),
    "apt_core.gate_log": ("GateLog", "GateRow"),
    "apt_core.run_format": ("RunInfo", "read_run_info", "status_of"),
    "apt_core.tasks": ("load_task", "TaskEntry"),
    "apt_core.backbones": ("load_tokenizer",),
    "apt_core.measure": ("measure", "measure_run"),
    "apt_core.measure_plan": ("make_plan",),
    "apt_core.measure_format": ("write_measures",),
    "apt_core.jobs": ("place", "LocalJobs", "RayJobs", "Jobs", "Job", "JobReport"),
    "analysis.runs": ("find_runs", "Run"),
    "analysis.budgets": ("allocate", "allocate_within", "allocate_covering", "uniform", "Rules", "Budget"),
}
"""module -> names that a program may rely on"""
ROOMS = ("apt_core", "analysis")
"""methods of base classes from elsewhere, such as transformers' Trainer, are not ours to describe"""


def api() -> str:
    """The whole page. Loads torch."""
    blocks = [HEAD]
    for module, names in PUBLIC.items():
        found = import_module(module)
        blocks.append(f"## {module}\n")
        blocks += [_entry(name, getattr(found, name)) for name in names]
    return "\n".join(blocks)


def _entry(name: str, thing: type | object) -> str:
    lines = [f"### {name}{_signature(thing)}\n", *_text(thing)]
    if inspect.isclass(thing):
        fields = _fields(thing)
        if fields:
            lines += ["| field | | |", "|---|---|---|"]
            lines += [f"| `{field}` | {kind} | {about} |" for field, kind, about in fields] + [""]
        ours = [base for base in thing.__mro__ if base.__module__.partition(".")[0] in ROOMS]
        members = {name: member for base in ours[::-1] for name, member in vars(base).items()}
        for method_name, method in members.items():
            function = getattr(method, "__func__", method)
            if not method_name.startswith("_") and inspect.isfunction(function) and function.__doc__:
                lines += [f"**{method_name}**{_signature(function)}\n", *_text(function)]
    return "\n".join(lines)


def _signature(thing: object) -> str:
    """As a person would type it; nothing where it says nothing."""
    if inspect.isclass(thing) and (issubclass(thing, Exception) or _fields(thing)):
        return ""
    words = re.sub(r"<[^>]*>", "...", str(inspect.signature(thing))).replace(repr(sys.executable), "sys.executable")
    words = re.sub(r"(: |-> )'([^']*)'", r"\1\2", words)  # annotations are kept as text
    return f" `{re.sub(r'self(, )?', '', words, count=1)}`" if words != "()" or inspect.isfunction(thing) else ""


def _text(thing: object) -> list[str]:
    """A docstring as Markdown: sections in bold, their entries as a list."""
    lines = []
    for line in inspect.cleandoc(inspect.getdoc(thing) or "").split("\n"):
        section = re.fullmatch(r"(Args|Returns|Raises|Attributes|Yields):", line)
        entry = re.match(r"    (\w[\w, ]*): (.*)", line)
        if section:
            lines.append(f"*{section[1]}*\n")
        elif entry:
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        else:
            lines.append(line.strip())
    return [line.replace("``", "`") for line in lines] + [""]


def _fields(cls: type) -> list[tuple[str, str, str]]:
    """Fields that a class declares, with type and default, and the text below each."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body
    found = []
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and not node.target.id.startswith("_"):
            default = f" = {ast.unparse(node.value)}" if node.value is not None else ""
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            about = " ".join(str(after.value.value).split()) if is_text else ""
            kind = f"`{ast.unparse(node.annotation)}{default}`".replace("|", "\\|")
            found.append((node.target.id, kind, about.replace("|", "\\|").replace("``", "`")))
    return found


if __name__ == "__main__":
    PAGE.write_text(api(), encoding="utf-8")
