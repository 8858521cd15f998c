"""A budget as a JSON file: lengths per layer, how they were found, the run and evidence behind them. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from apt_core.config import PrefixLength, parse_prefix_lengths
from apt_core.errors import AptFileExistsError, AptFileNotFoundError, AptValueError, bad_value
from apt_core.files import read_bounded, write_atomic
from apt_core.json_files import parse_object, validated
from apt_core.run_format import RunInfo, read_run_info

BUDGET_VERSION = 1
MAX_BUDGET_BYTES = 4 * 2**20
MAX_LAYERS = 10_000


def printable(text: str) -> str:
    """``text`` without what moves or colours a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


Text = Annotated[str, Field(max_length=4096), AfterValidator(printable)]
Lengths = Annotated[list[PrefixLength], Field(min_length=1, max_length=MAX_LAYERS)]


class Part(BaseModel):
    """Base of what the file holds: unknown fields are ignored, so that newer writers of a version stay readable."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Constraint(Part):
    """What limited the budget."""

    limit: Literal["total", "parameters", "kv-bytes", "milliseconds", "coverage", "tolerance"]
    amount: float = Field(ge=0, allow_inf_nan=False)
    """in the unit of the limit: coverage in per cent, tolerance in nats, or per cent of the full loss if relative"""
    relative: bool = False


class Source(Part):
    """The run that a budget was made from."""

    name: Text = ""
    model: Text = ""
    data_hash: Text = ""
    prefix_lengths: list[PrefixLength] = Field(default_factory=list, max_length=MAX_LAYERS)
    """what the run has [L]"""
    adapter_sha256: Text = ""
    """of the adapter that was measured; empty: nothing was"""


class BudgetFile(Part):
    """Virtual tokens per layer, and where they came from."""

    version: int = Field(BUDGET_VERSION, ge=1)
    created_at: Text = ""
    """UTC, ISO 8601"""
    prefix_lengths: Lengths
    """[L]"""
    total: int = Field(ge=0, strict=True)
    method: Text = ""
    edited: bool = False
    """whether lengths were changed by hand afterwards"""
    importance: Text | None = None
    """what the method took for the weight of a virtual token"""
    importance_source: Text = ""
    constraint: Constraint | None = None
    min_per_layer: PrefixLength | Lengths = 0
    max_per_layer: PrefixLength | Lengths | None = None
    multiple_of: int = Field(1, ge=1)
    locks: dict[Text, PrefixLength] = Field(default_factory=dict, max_length=MAX_LAYERS)
    """layer, counted from 1 -> its length"""
    source: Source = Source()
    notes: list[Text] = Field(default_factory=list, max_length=1000)
    evidence: dict[str, Any] | None = None
    """the audit of the run: verdict, reasons, numbers; None where there was none"""

    @model_validator(mode="after")
    def _total_is_the_sum(self) -> Self:
        if sum(self.prefix_lengths) != self.total:
            raise ValueError(f"total is {self.total}, but prefix_lengths sum to {sum(self.prefix_lengths)}")
        return self

    def check_fits(self, info: RunInfo, run: str) -> None:
        """Refuses a budget for another number of layers.

        Args:
            info: of the run that is to be retrained.
            run: what messages call it.

        Raises:
            AptValueError: saying how many layers the run's backbone has.
        """
        if len(self.prefix_lengths) != info.num_layers:
            made = f"made from {self.source.name or 'another run'}" + (
                f" on {self.source.model}" if self.source.model else ""
            )
            raise bad_value(
                "budget",
                f"lengths for {len(self.prefix_lengths)} layers, {made}",
                f"lengths for {info.num_layers} layers, those of {info.model or 'the backbone'} in {run}",
            )

    def differences(self, info: RunInfo, run: str) -> list[str]:
        """What a person should know before using it for a run: a sentence for each way in which it came from another.

        Args:
            info: of the run that is to be retrained.
            run: its folder's name.
        """
        found = []
        if self.source.name and self.source.name != run:
            found.append(f"This budget was made from the run {self.source.name}, not from {run}.")
        if self.source.model and self.source.model != info.model:
            found.append(f"It was made on the backbone {self.source.model}, not on {info.model}.")
        if self.source.data_hash and info.data_hash and self.source.data_hash != info.data_hash:
            found.append("It was made on other data than this run was trained on (their hashes differ).")
        return found


def chosen_lengths(
    run: Path, prefix_lengths: str | None, budget: Path | None, say: Callable[[str], None]
) -> tuple[int, ...]:
    """The lengths for retraining a run: as typed, or those of a budget file that fits it.

    Args:
        run: folder of the run.
        prefix_lengths: such as ``"4,0,8"``; None where a file is given instead.
        budget: the file.
        say: receives a note for each way in which the budget came from another run.

    Raises:
        AptError: if not exactly one of them is given, or it is not usable for the run.
    """
    if (prefix_lengths is None) == (budget is None):
        raise AptValueError("give either --prefix-lengths or --budget FILE.")
    if budget is None:
        return parse_prefix_lengths(prefix_lengths)
    info = read_run_info(run)
    found = read_budget(budget)
    found.check_fits(info, str(run))
    for difference in found.differences(info, run.resolve().name):
        say(f"note: {difference}")
    return tuple(found.prefix_lengths)


def write_budget(path: Path, budget: BudgetFile) -> None:
    """Writes a budget to a new file.

    Raises:
        AptFileExistsError: if something is there already.
        AptValueError: if the folder is missing or cannot be written to.
    """
    if path.exists() or path.is_symlink():
        raise AptFileExistsError(f"out: got {str(path)!r}, which exists; accepted: a new file. Choose another --out.")
    try:
        write_atomic(path, budget_text(budget).encode())
    except OSError as problem:
        raise bad_value("out", str(path), f"a file that can be made ({problem.strerror})") from problem


def budget_text(budget: BudgetFile) -> str:
    """What the file holds."""
    return json.dumps(budget.model_dump(mode="json"), indent=1) + "\n"


def read_budget(path: Path) -> BudgetFile:
    """Reads a budget file.

    Raises:
        AptFileNotFoundError: if there is none.
        AptValueError: as ``parse_budget``; if it is a link, no regular file or too large.
    """
    try:
        content = read_bounded(path, MAX_BUDGET_BYTES)
    except FileNotFoundError as problem:
        raise AptFileNotFoundError(
            f"{path}: no such file. 'python -m analysis budget RUN --total N --out {path}' writes one."
        ) from problem
    except AptValueError:
        raise
    except OSError as problem:
        raise AptValueError(f"{path}: cannot be read ({problem.strerror}).") from problem
    return parse_budget(content, str(path))


def parse_budget(content: bytes, name: str) -> BudgetFile:
    """Checks the content of a budget file, from anywhere.

    Args:
        content: JSON.
        name: what messages call it.

    Raises:
        AptValueError: if it is too large, damaged, of a newer version, or does not hold lengths that sum to its total.
    """
    if len(content) > MAX_BUDGET_BYTES:
        raise AptValueError(f"{name}: {len(content):,} bytes, larger than the {MAX_BUDGET_BYTES:,} that are read.")
    return validated(BudgetFile, parse_object(content, name, BUDGET_VERSION, "version"), name)
