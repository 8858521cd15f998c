"""``causal-lm`` and ``seq2seq-lm``: one's own texts to write, after a prompt or from nothing."""

from __future__ import annotations

from functools import partial

from apt_core.tasks.base import Example, TaskData
from apt_core.tasks.holdout import with_validation
from apt_core.tasks.source import DataSource
from apt_core.tasks.splits import HIDDEN_TEST, hides_test, read_splits
from apt_core.tasks.table import Table
from apt_core.tasks.tables import TABLE_ENDINGS, read_table


def load(source: DataSource, name: str) -> TaskData:
    """Reads ``prompt_column`` and ``target_column``; for ``causal-lm``, unless one of them is given, ``text_column``.

    Raises:
        AptError: naming file and line, or row, if something is missing or cannot be used.
    """
    plain = name == "causal-lm" and not (source.prompt_column or source.target_column)
    prompt = None if plain else source.prompt_column or "prompt"
    target, option = source.target_column or "target", "target_column"
    if plain:
        target, option = source.text_column or "text", "text_column"
    wanted = {prompt, target} - {None}
    tables, notes = read_splits(source, partial(read_table, wanted=wanted), TABLE_ENDINGS, wanted)
    test = tables.get("test")
    if test is not None and hides_test(test.column(target, option) if test.has(target) else []):
        del tables["test"]
        notes.append(HIDDEN_TEST)
    splits = {
        split: _examples(split, table, prompt, target, option, may_be_empty=name == "causal-lm")
        for split, table in tables.items()
    }
    splits, made = with_validation(splits, source.validation_fraction, lambda example: ())
    description = "how a text goes on" if name == "causal-lm" else "a text written from another"
    return TaskData(name, name, (), splits, description, notes=(*notes, *made))


def _examples(
    split: str, table: Table, prompt: str | None, target: str, option: str, *, may_be_empty: bool
) -> list[Example]:
    targets = table.texts(target, option)
    prompts = [""] * len(targets)
    if prompt is not None:
        prompts = table.texts(prompt, "prompt_column", may_be_empty=may_be_empty)
    return [
        {"id": f"{split}-{number}", "prompt": given, "target": written}
        for number, given, written in zip(table.numbers, prompts, targets, strict=True)
    ]
