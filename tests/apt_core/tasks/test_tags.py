"""Tag schemes: the same spans whatever they are written in; seqeval as oracle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from apt_core.tasks.tags import detect_scheme, to_iob2, unknown_tag

SPANS = st.lists(st.tuples(st.sampled_from(["", "x", "y", "E-z"]), st.integers(1, 4)), max_size=8)
"""(type or none, length) of the parts of a sentence, in order"""


def iob2(spans) -> list[str]:
    return [f"{'I' if at else 'B'}-{kind}" if kind else "O" for kind, length in spans for at in range(length)]


def iob1(spans) -> list[str]:
    tags: list[str] = []
    for kind, length in spans:
        touches = bool(tags) and kind and tags[-1][2:] == kind
        tags += [f"{'B' if touches and not at else 'I'}-{kind}" if kind else "O" for at in range(length)]
    return tags


def marked_ends(spans, end: str, single: str) -> list[str]:
    tags = []
    for kind, length in spans:
        if not kind:
            tags += ["O"] * length
        elif length == 1:
            tags.append(f"{single}-{kind}")
        else:
            tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 2), f"{end}-{kind}"]
    return tags


@given(SPANS)
def test_every_scheme_is_read_back_as_the_same_iob2(spans):
    expected = iob2(spans)
    assert to_iob2(expected, "iob2") == expected
    assert to_iob2(iob1(spans), "iob1") == expected
    assert to_iob2(marked_ends(spans, "E", "S"), "bioes") == expected
    assert to_iob2(marked_ends(spans, "L", "U"), "bioes") == expected


@given(st.lists(SPANS, min_size=1, max_size=4))
def test_auto_finds_a_scheme_that_reads_the_same_spans(sentences):
    """Where tags do not show their scheme, any that is found must read them rightly all the same."""
    for write in (iob2, iob1, lambda spans: marked_ends(spans, "E", "S"), lambda spans: marked_ends(spans, "L", "U")):
        tags = [write(spans) for spans in sentences]
        scheme = detect_scheme(tags)
        assert [to_iob2(each, scheme) for each in tags] == [iob2(spans) for spans in sentences]


@given(st.lists(st.sampled_from([f"{prefix}-{kind}" for prefix in "BIES" for kind in "xy"] + ["O"]), max_size=8))
def test_broken_bioes_has_the_entities_that_seqeval_finds(tags):
    assert get_entities(to_iob2(tags, "bioes")) == get_entities(tags)


@given(st.lists(st.sampled_from(["B-x", "I-x", "B-y", "I-y", "O"]), max_size=8))
def test_iob1_has_the_entities_that_seqeval_finds(tags):
    assert get_entities(to_iob2(tags, "iob1")) == get_entities(tags)


def test_iob2_keeps_a_stray_inside_tag():
    assert to_iob2(["O", "I-x", "B-y", "I-x"], "iob2") == ["O", "I-x", "B-y", "I-x"]


@pytest.mark.parametrize(
    ("tags", "scheme", "position"),
    [
        (["O", "B-a b", "I-x"], "iob2", None),
        (["O", "E-x"], "iob2", 1),
        (["O", "E-x", "U-x", "L-x", "S-x"], "bioes", None),
        (["o"], "bioes", 0),
        (["B-"], "iob1", 0),
        (["NOUN"], "bioes", 0),
        (["O", 3], "bioes", 1),
        (["O", None], "iob2", 1),
    ],
)
def test_unknown_tag_is_the_first_that_the_scheme_lacks(tags, scheme, position):
    assert unknown_tag(tags, scheme) == position
