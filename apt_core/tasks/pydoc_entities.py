"""``pydoc-entities``: which words of a docstring name parameters, exceptions, types and callables? Built in, real text.

The labels come from the code that the docstring documents, never from the text alone. For a docstring, a name is

1. PARAM if the signature (of the function, or of any method of the class) has a parameter of that name;
2. EXC if it is a builtin exception, an exception class of the module, or raised in the module;
3. TYPE if it is a builtin type whose name is no English word, or a class of the module;
4. CALL if it is a function or method of the module, or a builtin function, and is written as a call, with a dot or
   with an underscore.

The first rule that fits decides. A dotted name is one entity; its last part decides, except that ``self.x`` is none.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable

from apt_core.errors import AptValueError
from apt_core.tasks.base import Example, TaskData
from apt_core.tasks.pydoc_source import (
    Docstring,
    digest,
    docstrings,
    read_modules,
    split_by_module,
    without_repetitions,
)
from apt_core.tasks.pydoc_topic import AREAS
from apt_core.tasks.tags import tag_names

MAX_EXAMPLES = {"train": 1_800, "validation": 240, "test": 360}
MIN_TOTAL = 1_000
MAX_TOKENS = 60
MIN_WORDS = 5

_TOKEN = re.compile(r"\w+|[^\w\s]")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_EXCEPTIONS = {
    name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
}
_TYPES = {"int", "str", "bool", "dict", "tuple", "bytes", "bytearray", "frozenset", "memoryview", "NoneType"}
_FUNCTIONS = {name for name, value in vars(builtins).items() if callable(value) and not isinstance(value, type)}
_CONSTANTS = {"None", "True", "False", "NotImplemented", "Ellipsis"}


def load() -> TaskData:
    """Builds the splits from the sources of the running Python.

    Raises:
        AptValueError: if this Python's standard library comes without enough of its sources.
    """
    roots = {root for area in AREAS.values() for root in area.split()}
    found, examples = [], {}
    for module, tree in read_modules(roots):
        known = _names_of(tree)
        for docstring in docstrings(module, tree, MIN_WORDS):
            example = _example(docstring, known)
            if any(tag != "O" for tag in example["tags"]):
                found.append(docstring)
                examples[docstring.id] = example
    by_split = split_by_module(without_repetitions(found))
    splits = {
        split: [
            examples[docstring.id]
            for docstring in sorted(docstrings_, key=lambda row: digest(row.id))[: MAX_EXAMPLES[split]]
        ]
        for split, docstrings_ in by_split.items()
    }
    total = sum(map(len, splits.values()))
    if total < MIN_TOTAL:
        raise AptValueError(
            f"task: pydoc-entities found only {total} docstrings in this Python's standard library; accepted: at least "
            f"{MIN_TOTAL}. Use a Python that comes with its library's sources (python.org, conda, a full package)."
        )
    labels = tag_names(example["tags"] for example in splits["train"])
    return TaskData("pydoc-entities", "token-classification", labels, splits, "names of code entities in docstrings")


class _Names:
    """What a module defines: sets of plain names."""

    def __init__(self) -> None:
        self.exceptions = set(_EXCEPTIONS)
        self.types = set(_TYPES)
        self.callables = set(_FUNCTIONS)


def _names_of(tree: ast.Module) -> _Names:
    names = _Names()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = {_last_name(base) for base in node.bases}
            raised = node.name.endswith(("Error", "Exception", "Warning")) or bases & names.exceptions
            (names.exceptions if raised else names.types).add(node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.callables.add(node.name)
        elif isinstance(node, ast.Raise) and node.exc is not None:
            raised_name = _last_name(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
            if raised_name[:1].isupper():
                names.exceptions.add(raised_name)
    names.types -= names.exceptions
    return names


def _last_name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _parameters(node: ast.AST) -> set[str]:
    if isinstance(node, ast.ClassDef):
        methods = (child for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))
        return set().union(*map(_parameters, methods))
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return set()
    arguments = node.args
    listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {argument.arg for argument in listed if argument is not None} - {"self", "cls", "a", "an", "i", "s"}


def _example(docstring: Docstring, known: _Names) -> Example:
    text = docstring.text
    parameters = _parameters(docstring.node)
    kinds: dict[int, str] = {}  # offset of every entity's character -> its type
    starts: set[int] = set()
    for match in _NAME.finditer(text):
        kind = _kind(match, text, parameters, known)
        if kind:
            starts.add(match.start())
            kinds.update(dict.fromkeys(range(*match.span()), kind))
    tokens, tags = [], []
    for match in list(_TOKEN.finditer(text))[:MAX_TOKENS]:
        kind = kinds.get(match.start())
        tokens.append(match.group())
        tags.append(f"{'B' if match.start() in starts else 'I'}-{kind}" if kind else "O")
    return {"id": docstring.id, "tokens": tokens, "tags": tags}


def _kind(match: re.Match, text: str, parameters: Iterable[str], known: _Names) -> str | None:
    whole = match.group()
    first, _, _ = whole.partition(".")
    last = whole.rpartition(".")[2]
    if first == "self" or last in _CONSTANTS:
        return None
    if whole in parameters:
        return "PARAM"
    if last in known.exceptions:
        return "EXC"
    if last in known.types and (last in _TYPES or not last.islower()) and not last.isupper():
        return "TYPE"
    called = text[match.end() : match.end() + 1] == "("
    if last in known.callables and (called or "." in whole or "_" in last.strip("_")):
        return "CALL"
    return None
