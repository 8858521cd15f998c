"""Setting examples aside: how many, and what must stay."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from apt_core.tasks.holdout import hold_out

FRACTIONS = st.floats(0.01, 0.99)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), FRACTIONS)
def test_every_class_of_two_or_more_is_in_both_parts(labels, fraction):
    held = hold_out([(label,) for label in labels], fraction)
    total, taken = Counter(labels), Counter(labels[index] for index in held)
    assert held == sorted(set(held))
    for label, count in total.items():
        assert taken[label] == (0 if count == 1 else min(max(1, round(fraction * count)), count - 1))


@given(st.lists(st.sets(st.integers(0, 4)), min_size=1, max_size=60), FRACTIONS)
def test_no_class_loses_its_last_example(classes, fraction):
    held = set(hold_out(classes, fraction))
    left = set().union(*(own for index, own in enumerate(classes) if index not in held), set())
    assert left == set().union(*classes)
    assert len(held) < len(classes)


def test_without_classes_the_share_is_exact_and_always_the_same():
    held = hold_out([()] * 100, 0.1)
    assert len(held) == 10
    assert hold_out([()] * 100, 0.1) == held
