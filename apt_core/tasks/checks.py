"""What is checked about a task's data before any training starts."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from apt_core.errors import AptValueError
from apt_core.tasks.base import Example, TaskData

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MANY_CLASSES = 20
"""classes that may be as many as they like for few examples"""
MEASURED_EXAMPLES = 10_000
"""training examples, at most, whose length is measured"""
_MAJORITY = 0.05
"""how far a class's share must exceed an equal one to be worth a sentence"""


def check_task(task: TaskData, *, few: bool = False) -> list[str]:
    """Refuses data nothing can be learned from; returns what else a person should know, a sentence each.

    Args:
        few: train is a small draw of a split that was checked whole: tags it lacks are said, not refused.

    Raises:
        AptValueError: if train or validation is missing or empty; and where there are classes, if train has fewer than
            two or another split has some that train lacks.
    """
    for split in ("train", "validation"):
        if not task.splits.get(split):
            raise AptValueError(f"data: the {split} split of task {task.name} holds no example.")
    missing = [] if "target" in task.splits["train"][0] else _check_classes(task, few)
    return [
        *task.notes,
        *missing,
        *_class_notes(task),
        *_majority_notes(task),
        *_repetition_notes(task),
        *_shared_notes(task),
    ]


def length_note(task: TaskData, tokenizer: PreTrainedTokenizerBase, max_length: int) -> str | None:
    """How long training examples are in sub-words, and how many of them ``max_length`` cuts; None without examples.

    Prompt and target count as one text, or, where each is cut on its own, the longer; of several choices the longest.
    """
    examples = task.splits["train"][:MEASURED_EXAMPLES]
    if not examples:
        return None
    lengths = _lengths(task, examples, tokenizer)
    cut = sum(length > max_length for length in lengths)
    said = f"{cut} of {len(lengths)} are cut" if cut else "none is cut"
    return (
        f"train texts: {statistics.median_high(lengths)} sub-words in the median, {max(lengths)} in the longest; "
        f"{said} at {max_length}"
    )


def _check_classes(task: TaskData, few: bool) -> list[str]:
    in_train, notes = _classes(task.splits["train"]), []
    if len(in_train) < 2:
        raise AptValueError(
            f"data: the train split of task {task.name} holds one class only ({_name(task, in_train.pop())}); "
            "accepted: two or more."
        )
    for split in task.splits:
        unseen = _classes(task.splits[split]) - in_train
        if unseen:
            names = ", ".join(sorted(_name(task, label) for label in unseen))
            said = f"the {split} split of task {task.name} has labels that train lacks: {names}"
            if not (few and "tags" in task.splits["train"][0]):
                raise AptValueError(f"data: {said}.")
            notes.append(said)
    return notes


def _class_notes(task: TaskData) -> list[str]:
    train = task.splits["train"]
    many = max(_MANY_CLASSES, len(train) // 2)
    if task.family != "sequence-classification" or len(task.labels) <= many:
        return []
    return [f"train: {len(task.labels)} classes for {len(train)} examples; are the labels the right column?"]


def _majority_notes(task: TaskData) -> list[str]:
    """What always answering with the most frequent class would score, where that is more than by chance."""
    notes = []
    for split, examples in task.splits.items():
        if split == "test":  # its labels are for 'evaluate'
            continue
        counts = Counter(example["label"] for example in examples if "label" in example)
        if not counts:
            continue
        (label, most), *_ = counts.most_common(1)
        if most / len(examples) >= 1 / len(counts) + _MAJORITY:
            notes.append(f"{split}: majority class {_name(task, label)!r} is {most / len(examples):.0%}")
    return notes


def _repetition_notes(task: TaskData) -> list[str]:
    """Repeated training texts, and those that contradict each other; texts to write may differ."""
    labels: dict[str, set[Hashable]] = {}
    repeated = 0
    for example in task.splits["train"]:
        known = labels.setdefault(_text(example), set())
        label = _label(example)
        repeated += label in known
        known.add(label)
    contradicting = sum(len(known) > 1 for known in labels.values())
    notes = []
    if repeated:
        notes.append(f"{repeated} of {len(task.splits['train'])} train examples repeat another, label included")
    if contradicting:
        notes.append(f"{contradicting} train texts occur with different labels")
    return notes


def _shared_notes(task: TaskData) -> list[str]:
    in_train = {_text(example) for example in task.splits["train"]}
    notes = []
    for split, examples in task.splits.items():
        shared = 0 if split == "train" else sum(_text(example) in in_train for example in examples)
        if shared:
            notes.append(f"{shared} of {len(examples)} {split} examples have a text that is in train too")
    return notes


def _classes(examples: Iterable[Example]) -> set[Any]:
    """Class indices, or for tags the entity types."""
    found: set[Any] = set()
    for example in examples:
        found |= {tag[2:] or tag for tag in example["tags"]} if "tags" in example else {example["label"]}
    return found


def _name(task: TaskData, label: int | str) -> str:
    if isinstance(label, str):
        return label
    return task.labels[label] if task.labels else f"choice {label + 1}"


def _label(example: Example) -> Hashable:
    return tuple(example["tags"]) if "tags" in example else example.get("label")


def _text(example: Example) -> str:
    if "tokens" in example:
        return " ".join(example["tokens"])
    if "choices" in example:
        return "\n".join([example["context"], *example["choices"]])
    if "target" in example:
        return f"{example['prompt']}\n{example['target']}"
    return f"{example['text']}\n{example.get('text_pair', '')}"


def _lengths(task: TaskData, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    if "choices" in examples[0]:
        texts = [([example["context"]] * len(example["choices"]), example["choices"]) for example in examples]
        return [max(_count(tokenizer, *pair)) for pair in texts]
    if "tokens" in examples[0]:
        return _count(tokenizer, [example["tokens"] for example in examples], is_split_into_words=True)
    if task.family == "seq2seq-lm":  # cut each on its own
        prompt, target = ([example[part] for example in examples] for part in ("prompt", "target"))
        return list(map(max, _count(tokenizer, prompt), _count(tokenizer, target)))
    if "target" in examples[0]:
        return _count(tokenizer, [f"{example['prompt']} {example['target']}".lstrip() for example in examples])
    texts = [example["text"] for example in examples]
    pairs = [example.get("text_pair") for example in examples]
    return _count(tokenizer, texts, pairs) if None not in pairs else _count(tokenizer, texts)


def _count(tokenizer: PreTrainedTokenizerBase, *texts: list, **options: bool) -> list[int]:
    """Sub-words per text, special ones included; ``verbose`` is off because long texts are no surprise here."""
    return [len(ids) for ids in tokenizer(*texts, truncation=False, verbose=False, **options)["input_ids"]]
