"""What is checked about a task's data before any training starts."""

from __future__ import annotations

from apt_core.errors import AptValueError
from apt_core.tasks.base import Example, TaskData


def check_task(task: TaskData) -> list[str]:
    """Refuses data nothing can be learned from; returns what else a person should know, a sentence each.

    Raises:
        AptValueError: if train or validation is missing or empty, train has fewer than two classes, or another
            split has labels that train does not have.
    """
    for split in ("train", "validation"):
        if not task.splits.get(split):
            raise AptValueError(f"data: the {split} split of task {task.name} holds no example.")
    in_train = set().union(*(_labels(example) for example in task.splits["train"]))
    if len(in_train) < 2:
        raise AptValueError(
            f"data: the train split of task {task.name} holds one class only ({_name(task, in_train.pop())}); "
            "accepted: two or more."
        )
    notes = []
    texts = {split: {_text(example) for example in examples} for split, examples in task.splits.items()}
    for split in task.splits:
        if split == "train":
            continue
        unseen = set().union(*(_labels(example) for example in task.splits[split])) - in_train
        if unseen:
            names = ", ".join(sorted(_name(task, label) for label in unseen))
            raise AptValueError(f"data: the {split} split of task {task.name} has labels that train lacks: {names}.")
        shared = len(texts[split] & texts["train"])
        if shared:
            notes.append(f"{shared} of {len(task.splits[split])} {split} examples have a text that is in train too")
    return notes


def _labels(example: Example) -> set:
    """Class indices, or for tags the entity types."""
    return {tag[2:] or tag for tag in example["tags"]} if "tags" in example else {example["label"]}


def _name(task: TaskData, label: int | str) -> str:
    return task.labels[label] if isinstance(label, int) and task.labels else str(label)


def _text(example: Example) -> str:
    if "tokens" in example:
        return " ".join(example["tokens"])
    if "choices" in example:
        return "\n".join([example["context"], *example["choices"]])
    return f"{example['text']}\n{example.get('text_pair', '')}"
