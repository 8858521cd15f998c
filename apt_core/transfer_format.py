"""``transfer.json``: which runs of a transfer belong to which arm, and what each achieved. No torch.

Written by ``python -m apt_core transfer`` beside the runs it trained, read by the dashboard.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from apt_core.config import PrefixLength
from apt_core.errors import AptFileNotFoundError, bad_value
from apt_core.files import write_atomic
from apt_core.json_files import read_model

TRANSFER_FILE = "transfer.json"
TRANSFER_VERSION = 1
MAX_TRANSFER_BYTES = 2**20

Arm = Literal["source", "own", "uniform", "random", "warm"]
ARMS: dict[Arm, str] = {
    "source": "the source's lengths, scaled to the total",
    "own": "the target's own lengths, from its gates",
    "uniform": "the same length in every layer",
    "random": "random lengths, drawn anew for every seed",
    "warm": "the source's lengths, starting from the source's prefix",
}
Basis = Literal["lengths", "gates"]
"""where a run's share of each layer is from: its lengths where they differ between layers, else its gate mass"""

Text = Annotated[str, Field(max_length=1000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class TransferRun(BaseModel):
    """One training of an arm."""

    model_config = ConfigDict(extra="ignore")

    arm: Arm
    seed: Seed
    folder: Text
    """name of the run's folder beside this file; arms with the same lengths share it"""
    prefix_lengths: list[PrefixLength]
    """[L]"""
    metric: Number | None
    """on validation; None where it is not finite"""


class Transfer(BaseModel):
    """What was asked, and what is there so far."""

    model_config = ConfigDict(extra="ignore")

    schema_version: int = TRANSFER_VERSION
    updated_at: Text = ""
    """UTC, ISO 8601"""
    command: Annotated[str, Field(max_length=20_000)] = ""
    source: Text
    """folder name of the run whose lengths are tried"""
    source_task: Text
    source_basis: Basis
    own: Text
    """folder name of the target's run that gave its own lengths"""
    own_basis: Basis | None
    """None while that run is not finished"""
    task: Text
    model: Text
    num_layers: int = Field(ge=1, le=10_000)
    total: int = Field(ge=1)
    """virtual tokens over all layers, in every run"""
    seeds: list[Seed]
    """that were asked for"""
    arms: list[Arm]
    """that were asked for"""
    metric_name: Text
    greater_is_better: bool
    runs: list[TransferRun] = Field(default_factory=list, max_length=5000)
    """those that are finished"""

    @property
    def finished(self) -> bool:
        """Whether every run that was asked for is there."""
        return {(run.arm, run.seed) for run in self.runs} >= {(arm, seed) for arm in self.arms for seed in self.seeds}

    def check(self) -> None:
        """Refuses runs that do not belong together.

        Raises:
            AptValueError: naming the field.
        """
        places = [(run.arm, run.seed) for run in self.runs]
        if len(set(places)) != len(places):
            raise bad_value("runs", "a seed twice in an arm", "one run per arm and seed")
        for run in self.runs:
            if len(run.prefix_lengths) != self.num_layers or sum(run.prefix_lengths) != self.total:
                accepted = f"{self.num_layers} numbers that sum to {self.total}"
                raise bad_value("prefix_lengths", run.prefix_lengths, accepted)


def write_transfer(folder: Path, transfer: Transfer) -> None:
    """Writes ``transfer.json`` in one go, over an earlier one."""
    write_atomic(folder / TRANSFER_FILE, (json.dumps(transfer.model_dump(mode="json"), indent=1) + "\n").encode())


def read_transfer(folder: Path) -> Transfer:
    """Reads ``transfer.json``.

    Raises:
        AptFileNotFoundError: if there is none.
        AptValueError: if it is a link, damaged, too large, of a newer version or contradicts itself.
    """
    try:
        transfer = read_model(folder / TRANSFER_FILE, Transfer, MAX_TRANSFER_BYTES, TRANSFER_VERSION)
    except FileNotFoundError as problem:
        raise AptFileNotFoundError(f"{folder}: holds no {TRANSFER_FILE}.") from problem
    transfer.check()
    return transfer
