"""From weights to lengths: of a total, of the largest total within a limit, or of a coverage. Pure numpy."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from analysis.budgets.coverage import covering
from analysis.budgets.methods import METHODS
from analysis.budgets.ordering import grouped
from analysis.budgets.rules import PerLayer, Room, Rules, room
from apt_core.errors import AptValueError, bad_value


class Budget(NamedTuple):
    """Virtual tokens per layer."""

    prefix_lengths: tuple[int, ...]
    total: int
    method: str


def allocate(
    weights: np.ndarray,
    total: int,
    method: str = "share",
    min_per_layer: PerLayer = 0,
    max_per_layer: PerLayer | None = None,
    rules: Rules | None = None,
) -> Budget:
    """Shares ``total`` virtual tokens out over the layers.

    Args:
        weights: what each virtual token weighs [L, P], such as |layer scale| x mean token gate; NaN where a layer has
            no such token. 0 or larger, but for methods that only rank tokens.
        total: virtual tokens over all layers.
        method: a key of ``METHODS``.
        min_per_layer, max_per_layer: bounds, the same for every layer or one per layer.
        rules: all rules, instead of the two bounds alone.

    Raises:
        AptValueError: if the method is unknown, a rule or number is not usable, or the total cannot be met.
    """
    place = room_for(weights, method, rules or Rules(min_per_layer, max_per_layer))
    if isinstance(total, bool) or not isinstance(total, int | np.integer) or total < 0:
        raise bad_value("total", total, "an integer, 0 or larger")
    return _budget(place, _groups(weights, int(total), method, place), method)


def allocate_within(
    weights: np.ndarray,
    limit: float,
    cost: Callable[[np.ndarray], float],
    method: str = "share",
    rules: Rules | None = None,
    unevenness: float = 0.0,
    name: str = "limit",
) -> Budget:
    """The largest total whose lengths cost at most ``limit``.

    Args:
        weights, method, rules: as in ``allocate``.
        limit: in the unit of ``cost``.
        cost: of lengths [L]; never falls when a layer gets more tokens.
        unevenness: how much more the lengths of a smaller total may cost than those of a larger one, if no length is
            more than one virtual token away from exact proportion; for methods that are not monotone.
        name: what the limit is called in messages.

    Raises:
        AptValueError: as ``allocate``; if not even the smallest possible total costs so little.
    """
    place = room_for(weights, method, rules or Rules())
    totals = place.totals
    slack = 0.0 if METHODS[method].monotone else unevenness * place.group

    def lengths_at(index: int) -> np.ndarray:
        return place.lengths(_groups(weights, totals[index], method, place))

    least = cost(lengths_at(0))
    if not limit >= least:
        raise bad_value(name, limit, f"at least {least:,.10g}, what the smallest possible total of {totals[0]} costs")
    # the first total of which one costs more than limit + slack ends the search: all larger ones cost more than limit
    end = bisect_left(range(len(totals)), True, key=lambda index: cost(lengths_at(index)) > limit + slack)
    index = next(index for index in range(end - 1, -1, -1) if cost(lengths_at(index)) <= limit)
    return _budget(place, _groups(weights, totals[index], method, place), method)


def allocate_covering(weights: np.ndarray, per_cent: float, rules: Rules | None = None) -> Budget:
    """The smallest lengths that keep ``per_cent`` of each layer's weight, as far as the rules allow.

    Raises:
        AptValueError: if it is not from 0 to 100, or a rule is not usable.
    """
    if not 0 <= per_cent <= 100:
        raise bad_value("coverage", per_cent, "0 to 100 per cent of each layer's weight")
    place = room_for(weights, "coverage", rules or Rules())
    groups = covering(grouped(weights[place.free], place.group), per_cent / 100, place.lower, place.upper)
    return _budget(place, groups, "coverage")


def uniform(total: int, num_layers: int) -> Budget:
    """The same number for every layer; what is left over goes to the first layers."""
    return allocate(np.ones((num_layers, 1)), total)._replace(method="uniform")


def room_for(weights: np.ndarray, method: str, rules: Rules) -> Room:
    """The lengths that are possible for a run with a method.

    Raises:
        AptValueError: if the method is unknown, or a rule is not usable.
    """
    if method not in METHODS:
        raise bad_value("method", method, ", ".join(METHODS))
    own = (~np.isnan(weights)).sum(axis=1)
    return room(rules, own, METHODS[method].within_own_tokens)


def _groups(weights: np.ndarray, total: int, method: str, place: Room) -> np.ndarray:
    wanted = place.groups_of(total)
    if not place.free.any():
        return np.zeros(0, dtype=int)
    groups = METHODS[method].allocate(grouped(weights[place.free], place.group), wanted, place.lower, place.upper)
    if groups.sum() != wanted:
        shared = int(place.lengths(groups).sum())
        raise AptValueError(f"method: {method} shared out {shared} instead of {total} virtual tokens.")
    return groups


def _budget(place: Room, groups: np.ndarray, method: str) -> Budget:
    lengths = tuple(int(length) for length in place.lengths(groups))
    return Budget(lengths, sum(lengths), method)
