"""From what the Retrain form holds to trainings, one for each seed: their folders and command lines; pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from analysis.job_book import Standing
from apt_core.errors import AptValueError, bad_value

MAX_SEEDS = 20
LARGEST_SEED = 2**32 - 1
_PART = re.compile(r"\s*([0-9]{1,10})\s*(?:-\s*([0-9]{1,10})\s*)?")


class Planned(NamedTuple):
    """A training that can be submitted."""

    seed: int
    arguments: list[str]
    """after ``python -m apt_core``"""
    out: Path

    @property
    def command(self) -> str:
        """What to type to do the same."""
        return shlex.join(["python", "-m", "apt_core", *self.arguments])


def parse_seeds(text: str) -> tuple[int, ...]:
    """Reads ``"1,2,3"`` or ``"1-3"`` into ``(1, 2, 3)``.

    Raises:
        AptValueError: if a part is no seed, one comes twice, or there are none or more than ``MAX_SEEDS``.
    """
    accepted = f"up to {MAX_SEEDS} different whole numbers from 0 to {LARGEST_SEED}, such as 1,2,3 or 1-3"
    seeds: list[int] = []
    for part in text.split(","):
        found = _PART.fullmatch(part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last <= LARGEST_SEED or len(seeds) + last - first >= MAX_SEEDS:
            raise bad_value("seeds", text, accepted)
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise bad_value("seeds", text, accepted)
    return tuple(seeds)


def plan(
    run: Path,
    kind: str,
    lengths: Sequence[int],
    seeds: Sequence[int],
    options: Sequence[str],
    root: Path,
    taken: Collection[Path] = (),
) -> list[Planned]:
    """One training for each seed.

    Args:
        run: folder of the run that is retrained.
        kind: goes into the names of the new folders: pruned or uniform.
        lengths: virtual tokens per layer [L].
        seeds: see ``parse_seeds``.
        options: all others, for the command line.
        root: where the folders will be.
        taken: absolute folders that jobs will write.
    """
    stem = f"{run.name}-{kind}{sum(lengths)}"
    planned = []
    for seed in seeds:
        out = _free_folder(root, stem if len(seeds) == 1 else f"{stem}-s{seed}", taken, plain=len(seeds) > 1)
        given = ["--prefix-lengths", ",".join(map(str, lengths)), "--seed", str(seed), *options]
        planned.append(Planned(seed, ["retrain", str(run), *given, "--out", str(out)], out))
    return planned


def check_new(planned: Sequence[Planned], standings: Sequence[Standing]) -> None:
    """Refuses to train the same twice at once: with the same seed it would be the same run.

    Raises:
        AptValueError: naming the job.
    """
    at_work = {_without_out(each.job.arguments): each.job.id for each in standings if each.waits}
    for each in planned:
        job = at_work.get(_without_out(each.arguments))
        if job is not None:
            raise AptValueError(
                f"seeds: got {each.seed}, which job {job} trains just so; accepted: another seed or other settings. "
                "Nothing was queued."
            )


def _free_folder(root: Path, name: str, taken: Collection[Path], *, plain: bool) -> Path:
    """``root/name`` if ``plain``, or else with the first number that neither a folder nor a job has."""
    number = 1
    folder = root / (name if plain else f"{name}-1")
    while folder.exists() or folder.absolute() in taken:
        number += 1
        folder = root / f"{name}-{number}"
    return folder


def _without_out(arguments: Sequence[str]) -> tuple[str, ...]:
    words = list(arguments)
    if "--out" in words:
        place = words.index("--out")
        del words[place : place + 2]
    return tuple(words)
