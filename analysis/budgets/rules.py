"""Which lengths a person allows: bounds, multiples, layers locked by hand; and which totals that leaves.

Axes: L layers, F layers that are not locked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from apt_core.config import MAX_TOKENS_PER_LAYER
from apt_core.errors import AptValueError, bad_value

PerLayer = int | Sequence[int]
"""one number for every layer, or L of them"""
NO_LOCKS: Mapping[int, int] = MappingProxyType({})


class Rules(NamedTuple):
    """What a budget must keep to."""

    min_per_layer: PerLayer = 0
    max_per_layer: PerLayer | None = None
    """None: what the run has where single tokens are chosen, and ``MAX_TOKENS_PER_LAYER`` otherwise"""
    multiple_of: int = 1
    """every length is a multiple of it, but for locked layers"""
    locks: Mapping[int, int] = NO_LOCKS
    """layer, counted from 0 -> its length, whatever the bounds are"""


class Room(NamedTuple):
    """The lengths that rules leave for a run. What is not locked is shared out in groups of ``group`` tokens."""

    locked: np.ndarray  # [L] length; -1 where the layer is free
    lower: np.ndarray  # [F] groups
    upper: np.ndarray  # [F] groups
    group: int
    why: str
    """what bounds the total from above, for messages"""

    @property
    def free(self) -> np.ndarray:
        """Which layers are not locked: bool [L]."""
        return self.locked < 0

    @property
    def locked_total(self) -> int:
        """Virtual tokens of the locked layers."""
        return int(self.locked[~self.free].sum())

    @property
    def totals(self) -> range:
        """Every total that can be met exactly."""
        first = self.locked_total + int(self.lower.sum()) * self.group
        return range(first, self.locked_total + int(self.upper.sum()) * self.group + 1, self.group)

    def lengths(self, groups: np.ndarray) -> np.ndarray:
        """Lengths [L] from groups [F]."""
        lengths = self.locked.copy()
        lengths[self.free] = groups * self.group
        return lengths

    def groups_of(self, total: int) -> int:
        """How many groups ``total`` leaves for the free layers.

        Raises:
            AptValueError: if the total cannot be met exactly, with the nearest that can.
        """
        totals = self.totals
        if total in totals:
            return (total - self.locked_total) // self.group
        if not totals[0] <= total <= totals[-1]:
            accepted = f"{totals[0]} to {totals[-1]} for {len(self.locked)} layers"
            hints = [f"({self.why}.)"] if total > totals[-1] else []
            if total < totals[0] and self.lower.any():
                hints.append("(--min-per-layer bounds it.)")
            if self.locked_total:
                hints.append(f"The locked layers take {self.locked_total} of it.")
            raise bad_value("total", total, accepted, " ".join(hints))
        below = totals[(total - totals[0]) // self.group]
        plus = f" plus the {self.locked_total} of the locked layers" if self.locked_total else ""
        near = f"a multiple of {self.group}{plus}; the nearest are {below} and {below + self.group}"
        raise bad_value("total", total, near)

    def at_least(self, total: int) -> int:
        """The smallest total that can be met and is no smaller than ``total``.

        Raises:
            AptValueError: if all are smaller.
        """
        totals = self.totals
        if total > totals[-1]:
            self.groups_of(total)
        return totals[max(0, -(-(total - totals[0]) // self.group))]


def room(rules: Rules, own: np.ndarray, single: bool) -> Room:
    """Applies rules to a run.

    Args:
        rules: as a person gave them.
        own: virtual tokens that each layer has [L].
        single: whether a layer can get at most those, because single tokens are chosen.

    Raises:
        AptValueError: if a rule is no number in range, does not fit the number of layers, or contradicts another.
    """
    num_layers = len(own)
    lower = _per_layer("min-per-layer", rules.min_per_layer, num_layers)
    given = MAX_TOKENS_PER_LAYER if rules.max_per_layer is None else rules.max_per_layer
    ceiling = _per_layer("max-per-layer", given, num_layers)
    if ceiling.max(initial=0) > MAX_TOKENS_PER_LAYER:
        raise bad_value("max-per-layer", int(ceiling.max()), f"at most {MAX_TOKENS_PER_LAYER:,} virtual tokens")
    group = _whole("multiple-of", rules.multiple_of)
    if not 1 <= group <= MAX_TOKENS_PER_LAYER:
        raise bad_value("multiple-of", group, f"1 to {MAX_TOKENS_PER_LAYER} virtual tokens")
    locked = np.full(num_layers, -1)
    for layer, length in rules.locks.items():
        if not 0 <= layer < num_layers:
            raise bad_value("lock", f"{layer + 1}={length}", f"a layer from 1 to {num_layers}")
        if not 0 <= _whole("lock", length) <= MAX_TOKENS_PER_LAYER:
            raise bad_value("lock", f"{layer + 1}={length}", f"a length from 0 to {MAX_TOKENS_PER_LAYER}")
        locked[layer] = length
    free = np.flatnonzero(locked < 0)
    upper = np.minimum(own, ceiling) if single else ceiling
    if single and (ceiling >= own)[free].all():
        why = "single tokens are chosen among those the run has"
    elif (ceiling == MAX_TOKENS_PER_LAYER)[free].all():
        why = f"a layer gets at most {MAX_TOKENS_PER_LAYER:,} virtual tokens"
    else:
        why = "--max-per-layer bounds it"
    groups = Room(
        locked,
        -(-lower[free] // group),
        upper[free] // group,
        group,
        why,
    )
    if (groups.lower > groups.upper).any():
        layer = int(free[np.argmax(groups.lower > groups.upper)])
        in_groups = f" in multiples of {group}" if group > 1 else ""
        accepted = f"at most {upper[layer] // group * group}, the maximum of layer {layer + 1}{in_groups}"
        raise bad_value("min-per-layer", int(lower[layer]), accepted)
    return groups


def parse_per_layer(field: str, text: str) -> PerLayer:
    """Reads ``"2"`` into 2 and ``"0,2,4"`` into (0, 2, 4).

    Raises:
        AptValueError: if a part is no integer.
    """
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise bad_value(field, text, "an integer, or one per layer separated by commas, such as 0,2,4") from None
    return numbers[0] if len(numbers) == 1 else numbers


def parse_locks(text: str) -> dict[int, int]:
    """Reads ``"3=8,5=0"``, layers counted from 1, into ``{2: 8, 4: 0}``.

    Raises:
        AptValueError: if a part is not LAYER=LENGTH, or names a layer twice.
    """
    accepted = "LAYER=LENGTH separated by commas, layers counted from 1, each once, such as 3=8,5=0"
    locks: dict[int, int] = {}
    for part in text.split(","):
        layer, _, length = part.partition("=")
        try:
            place, tokens = int(layer) - 1, int(length)
        except ValueError:
            raise bad_value("lock", text, accepted) from None
        if place in locks:
            raise bad_value("lock", text, accepted)
        locks[place] = tokens
    return locks


def _per_layer(field: str, given: PerLayer, num_layers: int) -> np.ndarray:
    """One number per layer [L]."""
    if not isinstance(given, Sequence | np.ndarray) or isinstance(given, str):
        return np.full(num_layers, _whole(field, given))
    if len(given) != num_layers:
        raise bad_value(field, list(given), f"one integer, or {num_layers} of them, one per layer (got {len(given)})")
    return np.array([_whole(field, number) for number in given], dtype=int)


def _whole(field: str, number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 0:
        raise bad_value(field, number, "an integer, 0 or larger")
    if number > np.iinfo(np.int64).max:
        raise AptValueError(f"{field}: larger than any budget.")
    return int(number)
