"""Docstrings of the running Python's standard library, read from its source files; nothing is imported or run."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

SPLITS = {"train": 0.75, "validation": 0.10, "test": 0.15}
_SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "_vendor"}
"""folders that hold no library code of their own"""


class Docstring(NamedTuple):
    """One docstring and where it stands."""

    module: str
    """dotted name"""
    name: str
    """qualified name inside the module; empty for the module itself"""
    text: str
    """cleaned of indentation, white space folded"""
    node: Definition
    tree: ast.Module

    @property
    def id(self) -> str:
        return f"{self.module}:{self.name}"


def read_modules(roots: Iterable[str]) -> Iterator[tuple[str, ast.Module]]:
    """(dotted name, syntax tree) of every module under the top-level names ``roots``, in order of names.

    Modules this Python does not have, or cannot parse, are passed over.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    for root in sorted(roots):
        package = library / root
        paths = sorted(package.rglob("*.py")) if package.is_dir() else [library / f"{root}.py"]
        for path in paths:
            parts = path.relative_to(library).with_suffix("").parts
            if not path.is_file() or _SKIPPED & set(parts):
                continue
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError):
                continue
            yield ".".join(part for part in parts if part != "__init__"), tree


def docstrings(module: str, tree: ast.Module, min_words: int) -> Iterator[Docstring]:
    """The docstrings of a module with at least ``min_words`` words, in source order."""

    def walk(node: ast.AST, names: tuple[str, ...]) -> Iterator[Docstring]:
        if isinstance(node, Definition):
            text = " ".join(inspect.cleandoc(ast.get_docstring(node, clean=False) or "").split())
            if len(text.split()) >= min_words:
                yield Docstring(module, ".".join(names), text, node, tree)
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            yield from walk(child, (*names, child.name) if named else names)

    yield from walk(tree, ())


def without_repetitions(found: Iterable[Docstring]) -> list[Docstring]:
    """Keeps the first of docstrings with the same text, and of those with the same id."""
    texts, ids, kept = set(), set(), []
    for docstring in found:
        if docstring.text.lower() not in texts and docstring.id not in ids:
            kept.append(docstring)
            texts.add(docstring.text.lower())
            ids.add(docstring.id)
    return kept


def split_by_module(found: list[Docstring]) -> dict[str, list[Docstring]]:
    """Deals whole modules to the splits, about in the proportions of ``SPLITS``; no module is in two.

    The largest module goes to train first; each further one, in an order given by a hash of its name, goes to the
    split that is furthest below its share.
    """
    by_module: dict[str, list[Docstring]] = {}
    for docstring in found:
        by_module.setdefault(docstring.module, []).append(docstring)
    order = sorted(by_module, key=lambda module: (-len(by_module[module]), digest(module)))
    splits: dict[str, list[Docstring]] = {split: [] for split in SPLITS}
    for module in order:
        lacking = max(SPLITS, key=lambda split: SPLITS[split] * len(found) - len(splits[split]))
        splits[lacking].extend(by_module[module])
    return splits


def digest(text: str) -> str:
    """A fixed pseudo-random order: SHA-256 of the text."""
    return hashlib.sha256(text.encode()).hexdigest()
