"""The texts of a run's examples, read from the user's data when they are looked at: a run holds none. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from analysis.entities import spans
from apt_core.errors import AptError, AptValueError
from apt_core.run_format import RunInfo
from apt_core.tasks import TASKS, load_task
from apt_core.tasks.base import Example
from apt_core.tasks.shots import take_shots
from apt_core.tasks.source import FILES, DataSource

SPLIT = "validation"


class Texts(NamedTuple):
    """The validation examples as the data has them."""

    by_id: dict[str, Example]
    same_data: bool
    """whether the data hash is the run's"""


def source_of(info: RunInfo, folder: str = "") -> DataSource:
    """Where a run's data is: as the run says, or the same in another folder.

    Args:
        folder: where the data is now, if it moved: the folder of the run's files, or the one that was given as data
            folder or dataset; empty: as the run says.

    Raises:
        AptValueError: if the run does not say what its data is, or says it in a way that cannot be read.
    """
    if info.task not in TASKS:
        raise AptValueError(f"task: got {info.task!r}; accepted: {', '.join(TASKS)}. Texts are known for these only.")
    source = DataSource(**{**info.data, "data_dir": info.data_dir})
    if not folder or not TASKS[info.task].needs_data:
        return source
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise AptValueError(f"data folder: got {folder!r}, which is no folder on this machine.")
    if source.train_file:
        given = {name: getattr(source, name) for name in FILES}
        return source.moved(**{name: str(place / Path(file).name) for name, file in given.items() if file})
    return source.moved(dataset_name=str(place)) if source.dataset_name else source.moved(data_dir=str(place))


def local_places(source: DataSource) -> list[str]:
    """The files and folders of this machine that reading it opens, as they are named."""
    names = ("data_dir", *FILES) if needs_network(source) else ("data_dir", "dataset_name", *FILES)
    return [place for name in names if (place := getattr(source, name))]


def place_of(source: DataSource) -> str:
    """Where that is, for a person: a folder, a file or a dataset; empty for a built-in task."""
    return str(getattr(source, source.place)) if source.place else ""


def needs_network(source: DataSource) -> bool:
    """Whether reading it asks the Hugging Face Hub."""
    return source.dataset_name is not None and not Path(source.dataset_name).expanduser().is_dir()


def load_texts(info: RunInfo, source: DataSource) -> Texts:
    """Reads the validation split of a run's task.

    Raises:
        AptError: in one line, if the data cannot be had.
    """
    try:
        task = load_task(info.task, source)
    except AptError:
        raise
    except (OSError, ValueError, RecursionError) as problem:  # whatever a file of unknown origin brings
        raise AptValueError(f"data: cannot be read ({problem}).") from problem
    shots, seed = info.training.get("shots"), info.training.get("seed")
    trained_on = take_shots(task, shots, seed) if isinstance(shots, int) and isinstance(seed, int) else task
    by_id: dict[str, Example] = {}
    for example in task.splits.get(SPLIT, ()):
        by_id.setdefault(example["id"], example)
    return Texts(by_id, trained_on.fingerprint() == info.data_hash)


def whole_text(example: Example) -> str:
    """What the model was given and, for a choice or a continuation, what it had to choose or write; several lines."""
    if "tokens" in example:
        return " ".join(example["tokens"])
    if "choices" in example:
        choices = [f"choice {number}: {choice}" for number, choice in enumerate(example["choices"], start=1)]
        return "\n".join([example["context"], *choices])
    if "target" in example:
        return f"prompt: {example['prompt']}\ntarget: {example['target']}" if example["prompt"] else example["target"]
    pair = example.get("text_pair")
    return example["text"] if pair is None else f"{example['text']}\n{pair}"


def entity_rows(tokens: list[str], gold: list[str], predicted: list[str]) -> list[dict[str, Any]]:
    """The entities of a tagged example, in the order of the text: words, gold type, predicted type, first word."""
    true, guessed = spans(gold), spans(predicted)
    rows = []
    for name, start, end in sorted(true | guessed, key=lambda span: (span[1:], span[0])):
        span = (name, start, end)
        outcome = "right" if span in true and span in guessed else "not found" if span in true else "not there"
        rows.append({"words": " ".join(tokens[start:end]), "type": name, "outcome": outcome, "first word": start + 1})
    return rows
