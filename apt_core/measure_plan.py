"""What ``measure`` does for how much: a pure function from an allowance to examples, orders and sizes. No torch.

Costs are counted in forward passes of one example. A training epoch is ``TRAINING_FORWARDS`` of them for every training
example, the importances are ``IMPORTANCE_FORWARDS`` for every example that is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from apt_core.errors import bad_value
from apt_core.measure_format import IMPORTANCES, MAX_MEASURES_BYTES, RANDOM, REVERSED

FEWEST_EXAMPLES = 32
"""or all there are; fewer would say nothing"""
ENOUGH_EXAMPLES = 400
"""from where on further orders and single tokens tell more than further examples"""
TRAINING_FORWARDS = 2
"""forward and backward; frozen weights need no gradient of their own. A little is left over (2.3 were measured with the
offline backbone), so that an allowance of 1 is less than an epoch takes"""
IMPORTANCE_FORWARDS = 2.5
"""forward, backward, and the attention that is written out (2.1 to 2.2 were measured)"""
FRACTIONS = (1, 7 / 8, 3 / 4, 5 / 8, 1 / 2, 3 / 8, 1 / 4, 3 / 16, 1 / 8, 1 / 16, 1 / 32, 0)
"""of all virtual tokens that a curve keeps; closer where few are left, which is where metrics fall"""
FEW_FRACTIONS = (1, 3 / 4, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 0)
"""the same where the allowance is too small for those"""
FIRST_ORDERS = ("gate", "effect", RANDOM + "1", "gate" + REVERSED, RANDOM + "2", RANDOM + "3")
FURTHER_ORDERS = (
    "effect" + REVERSED,
    *(name + suffix for name in IMPORTANCES if name not in ("gate", "effect") for suffix in ("", REVERSED)),
    RANDOM + "4",
    RANDOM + "5",
)
_BYTES_PER_LOSS = 10


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    lengths: tuple[int, ...]
    """virtual tokens per layer [L]"""
    num_examples: int
    layers: bool = False
    """whether each layer is left out once"""
    orders: tuple[str, ...] = ()
    fractions: tuple[float, ...] = FEW_FRACTIONS
    tokens: bool = False
    """whether each virtual token is left out once"""

    @property
    def sizes(self) -> list[int]:
        """Virtual tokens that curves keep: falling, from all to 0."""
        total = sum(self.lengths)
        return sorted({round(fraction * total) for fraction in self.fractions}, reverse=True)

    @property
    def num_points(self) -> int:
        """Models that are looked at, the full and the empty one included."""
        layers = self.layers * sum(length > 0 for length in self.lengths)
        return 2 + layers + len(self.orders) * (len(self.sizes) - 2) + self.tokens * sum(self.lengths)

    @property
    def forwards_per_example(self) -> float:
        """The full model's forward pass is one of those that the importances take."""
        return IMPORTANCE_FORWARDS + self.num_points - 1

    @property
    def forwards(self) -> float:
        """Forward passes of one example, over all examples."""
        return self.num_examples * self.forwards_per_example


def plans(lengths: Sequence[int], available: int) -> Iterator[Plan]:
    """The plans at which something is added, each including the one before it.

    Args:
        lengths: virtual tokens per layer (L integers), at least one in all.
        available: examples there are, at least 1.
    """
    plan = Plan(tuple(lengths), min(FEWEST_EXAMPLES, available))
    yield plan
    yield (plan := replace(plan, layers=True))
    for order in FIRST_ORDERS:
        yield (plan := replace(plan, orders=(*plan.orders, order)))
    yield (plan := replace(plan, fractions=FRACTIONS))
    yield (plan := replace(plan, num_examples=min(ENOUGH_EXAMPLES, available)))
    for order in FURTHER_ORDERS:
        yield (plan := replace(plan, orders=(*plan.orders, order)))
    if plan.num_examples <= _most_examples(replace(plan, tokens=True)):
        yield (plan := replace(plan, tokens=True))
    yield replace(plan, num_examples=max(plan.num_examples, min(available, _most_examples(plan))))


def make_plan(lengths: Sequence[int], available: int, num_train: int, cost: float) -> Plan:
    """The largest plan within an allowance.

    Never over it, unless ``FEWEST_EXAMPLES`` for the importances alone are; a larger allowance never gives less.

    Args:
        lengths: virtual tokens per layer (L integers), at least one in all.
        available: examples there are, at least 1.
        num_train: examples of one training epoch.
        cost: allowance in training epochs; 0: no limit, everything is measured.

    Raises:
        AptValueError: if ``cost`` is negative or no number.
    """
    if not cost >= 0:
        raise bad_value("cost", cost, "training epochs, such as 1.0; 0 for no limit")
    allowance = cost * TRAINING_FORWARDS * num_train
    best, *rest = plans(lengths, available)
    for plan in rest:
        if cost and plan.forwards > allowance:
            affordable = int(allowance // plan.forwards_per_example)
            grows = plan.num_examples > best.num_examples
            return replace(best, num_examples=max(affordable, best.num_examples)) if grows else best
        best = plan
    return best


def epochs(forwards: float, num_train: int) -> float:
    """Forward passes of one example in training epochs."""
    return forwards / (TRAINING_FORWARDS * num_train)


def _most_examples(plan: Plan) -> int:
    """Examples whose losses, at all points of a plan, fit into ``measures.json``."""
    return MAX_MEASURES_BYTES // (_BYTES_PER_LOSS * plan.num_points)


def left_out(plan: Plan, available: int, num_train: int) -> list[str]:
    """What a larger allowance would add, a sentence each.

    Args:
        plan: that was carried out.
        available: examples there are.
        num_train: examples of one training epoch.
    """
    larger = list(plans(plan.lengths, available))

    def sentence(what: str, has: Callable[[Plan], bool]) -> str:
        enough = next(filter(has, larger), None)
        if enough is None:
            return f"{what} not measured; there are too many of them."
        cost = math.ceil(10 * epochs(enough.forwards, num_train)) / 10
        return f"{what} not measured; 'python -m apt_core measure RUN --cost {cost:.1f}' does it."

    sentences = []
    if not plan.layers:
        sentences.append(sentence("The model without each layer in turn was", lambda other: other.layers))
    for orders in (FIRST_ORDERS, FURTHER_ORDERS):
        missing = [order for order in orders if order not in plan.orders]
        if missing:
            sentences.append(
                sentence(f"Curves for {', '.join(missing)} were", lambda other: set(missing) <= set(other.orders))  # noqa: B023
            )
    most_sizes = len(replace(plan, fractions=FRACTIONS).sizes)
    if plan.orders and len(plan.sizes) < most_sizes:
        sentences.append(f"Curves have {len(plan.sizes)} sizes; a larger --cost makes them {most_sizes}.")
    if not plan.tokens:
        sentences.append(sentence("The model without each virtual token in turn was", lambda other: other.tokens))
    if plan.num_examples < available:
        most = larger[-1].num_examples
        more = (
            "--cost 0 leaves nothing out" if most == available else f"--cost 0 draws {most}: there are too many of them"
        )
        sentences.append(f"{plan.num_examples} of {available} examples were drawn; {more}.")
    return sentences
