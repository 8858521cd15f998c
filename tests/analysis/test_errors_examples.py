"""Reading predictions of any origin, entities, texts from the user's data, and what the page lists and draws."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2

from analysis.entities import MAX_NAMES, confusion_outcomes, entity_errors, spans, type_outcomes
from analysis.error_views import (
    VIEWS,
    classes_sentence,
    entities_table,
    groups_table,
    groups_with_numbers,
    sentence,
    summary_table,
    tokens_sentence,
    untested_note,
)
from analysis.errors import MAX_GROUPS, group_differences, over_classes
from analysis.example_list import Wanted, answers, choose, list_table, orders
from analysis.examples import Examples, read_examples, with_token_gates
from analysis.figures.example_profile import example_profile, example_profile_figure
from analysis.figures.layer_contrast import LayerContrast, layer_contrast_figure
from apt_core.errors import AptFileNotFoundError, AptValueError
from apt_core.run_format import RunInfo

PROJECT = Path(__file__).parents[2]
INFO = RunInfo(task="pydoc-topic", labels=["a", "b"], num_layers=2, prefix_lengths=[4, 0])
CHOICES = INFO.model_copy(update={"labels": []})
TAGS = st.lists(st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y"]), min_size=1, max_size=8)


def row(**fields) -> dict:
    return {"id": "v-1", "gold": 0, "predicted": 1, "loss": 0.5, "layer_gates": [0.4, None], **fields}


def written(folder: Path, *rows: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "predictions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return folder


def test_classes_choices_tags_and_targets_are_told_apart(tmp_path):
    found = read_examples(written(tmp_path, row(), row(predicted=0, loss=None)), INFO)
    assert (found.kind, found.gold, found.predicted, found.error.tolist()) == ("class", ["a", "a"], ["b", "a"], [1, 0])
    assert np.isnan(found.loss[1])
    assert found.gates.shape == (2, 2)
    assert np.isnan(found.gates[:, 1]).all()
    found = read_examples(tmp_path, CHOICES)
    assert (found.kind, found.gold[0], found.predicted[0]) == ("choice", "choice 1", "choice 2")
    tags = row(gold=["B-x", "O", "I-y"], predicted=["B-x", "O", "O"])  # an I that continues nothing is no entity
    found = read_examples(written(tmp_path, tags, row(gold=["O"], predicted=["B-x"])), INFO)
    assert (found.kind, found.error.tolist()) == ("tags", [0, 1])
    found = read_examples(
        written(tmp_path, {"id": "v", "tokens": 4, "right": 3, "loss": 1.0, "layer_gates": [0.1, 0.2]},
                {"id": "w", "tokens": 0, "right": 0, "loss": None, "layer_gates": [0.1, 0.2]}), INFO
    )  # fmt: skip
    assert (found.kind, found.error[0]) == ("target", 0.25)
    assert np.isnan(found.error[1])


def test_run_without_predictions_names_the_command(tmp_path):
    with pytest.raises(AptFileNotFoundError, match=r"python -m apt_core evaluate .* --split validation"):
        read_examples(tmp_path, INFO)
    with pytest.raises(AptFileNotFoundError):
        read_examples(written(tmp_path), INFO)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(layer_gates=[0.4]), "row 2: layer_gates: got 1 numbers; accepted: 2"),
        (row(layer_gates=[0.4, 7.0]), "accepted: numbers from 0 to 1"),
        (row(layer_gates=None), "row 2: layer_gates"),
        (row(gold=2), "row 2: gold and predicted: got .2, 1.; accepted: numbers from 0 to 1"),
        (row(predicted=-1), "accepted: numbers from 0 to 1"),
        (row(gold=["O"], predicted=["O"]), "row 2: gold and predicted"),
        (row(gold=None), "row 2: gold and predicted"),
        (row(id=7), "row 2: id"),
        (row(id="x" * 2000), "row 2: id"),
        (row(loss="low"), "row 2: loss"),
        ({"id": "v", "tokens": 4, "right": 3, "layer_gates": [0.1, 0.2]}, "row 2: gold and predicted"),
        ([1], "holds a list instead of an object"),
    ],
)
def test_damaged_rows_are_named(tmp_path, bad, message):
    with pytest.raises(AptValueError, match=message):
        read_examples(written(tmp_path, row(), bad), INFO)


def test_tags_and_targets_that_contradict_themselves_are_refused(tmp_path):
    with pytest.raises(AptValueError, match="as many tags"):
        read_examples(written(tmp_path, row(gold=["O"], predicted=["O", "O"])), INFO)
    with pytest.raises(AptValueError, match="at most as many as there are"):
        read_examples(written(tmp_path, {"id": "v", "tokens": 1, "right": 3, "layer_gates": [0.1, 0.2]}), INFO)


def test_text_that_is_none_is_refused_before_it_is_drawn(tmp_path):
    tags = INFO.model_copy(update={"labels": ["O"]})
    for broken in (row(id="\ud800"), row(gold=["B-\ud800"], predicted=["O"])):
        with pytest.raises(AptValueError, match=r"row 1: .*[Uu]nicode"):
            read_examples(written(tmp_path / "run", broken), tags)


def test_many_entities_and_many_types_take_little_time_and_memory():
    """Without limits the first would take billions of steps, the second 80 GB."""
    gold, predicted = [["B-x"] * 50_000], [["B-y"] * 50_000]
    (x, y) = entity_errors(gold, predicted)
    assert (x.wrong, y.invented) == (50_000, 0)
    assert list(confusion_outcomes(gold, predicted)) == ["x → y"]
    names = [[f"B-{number}"] for number in range(20_000)]
    assert len(type_outcomes(names, [["O"]] * 20_000)) == MAX_NAMES
    assert len(group_differences(np.zeros((20_000, 1)), [tags[0] for tags in names]).names) == MAX_GROUPS


def test_predictions_that_are_a_link_are_refused(tmp_path):
    real = written(tmp_path / "real", row())
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "predictions.jsonl").symlink_to(real / "predictions.jsonl")
    with pytest.raises(AptValueError, match="link"):
        read_examples(tmp_path / "linked", INFO)


def test_entities_are_counted_as_right_wrong_missed_or_invented():
    gold = ["B-x", "I-x", "O", "B-y", "O", "B-x", "O"]
    predicted = ["B-x", "O", "O", "B-y", "O", "O", "B-x"]
    x, y = entity_errors([gold], [predicted])
    assert x[:7] == ("x", 2, 0, 1, 1, 1, 2)
    assert (y.right, y.gold, y.f1) == (1, 1, 1.0)
    outcomes = type_outcomes([gold, ["O"]], [predicted, ["O"]])
    assert outcomes["x"][0] == 1
    assert outcomes["y"][0] == 0
    assert outcomes["x"][1] == -1


def test_confusions_of_entities_are_pairs_that_overlap_missed_or_invented():
    gold = [["B-x", "I-x", "O", "B-y"], ["B-y", "O", "B-x", "O"], ["O", "O", "O", "O"]]
    predicted = [["B-x", "O", "O", "B-x"], ["B-y", "O", "O", "O"], ["O", "B-y", "O", "O"]]
    outcomes = {name: found.tolist() for name, found in confusion_outcomes(gold, predicted).items()}
    assert outcomes == {
        "x → x (other ends)": [1, 0, 0],
        "y → x": [1, 0, 0],
        "y → y": [0, 1, 0],
        "x → O": [0, 1, 0],
        "O → y": [0, 0, 1],
    }


@given(pairs=st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=6))
def test_confusions_agree_with_the_counts_of_entities(pairs):
    gold, predicted = zip(*[(a[: min(len(a), len(b))], b[: min(len(a), len(b))]) for a, b in pairs], strict=True)
    names = set(confusion_outcomes(gold, predicted))
    for found in entity_errors(gold, predicted):
        assert (f"{found.name} → O" in names) == bool(found.missed)
        assert (f"O → {found.name}" in names) == bool(found.invented)
        assert f"{found.name} → {found.name}" in names or not found.right


@given(pairs=st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=6))
def test_strict_scores_equal_seqevals_and_parts_sum_to_the_whole(pairs):
    cut = [(gold[: min(map(len, pair))], guess[: min(map(len, pair))]) for pair in pairs for gold, guess in [pair]]
    gold, predicted = zip(*cut, strict=True)
    found = {each.name: each for each in entity_errors(gold, predicted)}
    if not found:
        return
    expected = classification_report(
        list(gold), list(predicted), output_dict=True, mode="strict", scheme=IOB2, zero_division=0
    )
    for name, each in found.items():
        assert each.right + each.wrong + each.missed == each.gold
        scores = expected[name]
        assert np.nan_to_num(each.precision) == pytest.approx(scores["precision"])
        assert np.nan_to_num(each.recall) == pytest.approx(scores["recall"])
        assert np.nan_to_num(each.f1) == pytest.approx(scores["f1-score"])
    wrong = [float(spans(one) != spans(other)) for one, other in cut]
    outcomes = type_outcomes(gold, predicted)
    assert wrong == [float(any(each[place] == 1 for each in outcomes.values())) for place in range(len(cut))]


def classes(count: int = 120, names: str = "ab") -> Examples:
    draw = np.random.default_rng(0)
    gold = [names[place % len(names)] for place in range(count)]
    predicted = [names[draw.integers(len(names))] for _ in range(count)]
    error = np.array([float(one != other) for one, other in zip(gold, predicted, strict=True)])
    gates = draw.normal(0.5, 0.01, (count, 3))
    gates[:, 1] += 0.02 * error
    gates[:, 2] = np.nan
    ids = [f"v-{place}" for place in range(count)]
    return Examples("class", ids, gold, predicted, error, draw.exponential(size=count), gates)


def test_list_is_filtered_and_sorted():
    examples = classes()
    texts = {name: {"text": f"Text of {name}"} for name in examples.ids[:50]}
    places = choose(examples, Wanted("wrong", "a", "b", by="loss"), texts)
    assert len(places)
    assert all((examples.gold[place], examples.predicted[place]) == ("a", "b") for place in places)
    assert (np.diff(examples.loss[places]) <= 0).all()
    places = choose(examples, Wanted(by="gate of layer 2", largest_first=False), texts)
    assert (np.diff(examples.gates[places, 1]) >= 0).all()
    assert choose(examples, Wanted(search="TEXT OF V-4"), texts).tolist() == [4, *range(40, 50)]
    assert len(choose(examples, Wanted("right"), {})) == int((examples.error == 0).sum())
    assert orders(examples) == ["order of the data", "loss", "gate of layer 1", "gate of layer 2"]
    assert answers(examples) == ["a", "b"]


def test_unknown_losses_go_last_either_way():
    examples = classes(4)
    examples.loss[1] = np.nan
    for largest_first in (True, False):
        assert choose(examples, Wanted(by="loss", largest_first=largest_first), {})[-1] == 1


def test_list_has_gates_and_texts_where_there_are_any():
    examples = classes(3)
    table = list_table(examples, np.array([2, 0]), {"v-0": {"text": "long " * 200}})
    assert list(table["id"]) == ["v-2", "v-0"]
    assert table["text"][0] == ""
    assert len(table["text"][1]) == 300
    assert "layer 3" not in table
    assert "text" not in list_table(examples, np.array([0]), {})


@pytest.mark.parametrize("name", [name for name, view in VIEWS.items() if "class" in view.kinds])
def test_every_view_of_classes_has_numbers_tables_and_words(name):
    examples, view = classes(names="abc"), VIEWS[name]
    groups = view.tests(examples)
    assert groups_with_numbers(groups)
    assert len(groups_table(groups)) == 3 * len(groups.names)
    tests = groups.tests.of(groups_with_numbers(groups)[0])
    assert sentence(tests, view.unit)
    if view.group:
        assert len(summary_table(view, groups, examples)) == len(groups.names)


def test_words_say_the_layer_that_was_planted_and_nothing_where_there_is_nothing():
    view = VIEWS["wrong or right"]
    said = sentence(view.tests(classes()).tests.of(0), view.unit)
    assert said.startswith("Of 2 layers tested, layer 2 differs. The clearest is layer 2: +0.02, ")
    null = classes()._replace(error=np.random.default_rng(5).permutation(classes().error))
    assert sentence(view.tests(null).tests.of(0), view.unit).startswith(
        "No layer differs: the adjusted p-value is 0.05"
    )
    none = classes()._replace(gates=np.full((120, 3), 0.5))
    assert sentence(view.tests(none).tests.of(0), view.unit) == "No layer could be tested."
    assert "could not be tested" in classes_sentence(over_classes(none.gates, none.gold))


def test_share_wrong_per_class_is_pandas_mean():
    examples = classes()
    table = summary_table(VIEWS["gold"], VIEWS["gold"].tests(examples), examples).set_index("gold class")
    expected = pd.Series(examples.error).groupby(examples.gold).mean()
    assert table["share wrong"].to_dict() == expected.to_dict()


def test_hundreds_of_classes_are_compared_where_large_enough():
    draw = random.Random(0)
    names = [f"class {draw.randrange(400)}" for _ in range(3000)]
    examples = classes(3000)._replace(gold=names)
    groups = VIEWS["gold"].tests(examples)
    assert 0 < len(groups_with_numbers(groups)) < 400
    assert "are not compared" in untested_note(groups)
    assert len(summary_table(VIEWS["gold"], groups, examples)) == len(groups.names)


def test_views_of_tags_go_by_entity_type():
    tags = [(["B-x"], ["B-x"]), (["B-x"], ["O"]), (["O"], ["O"])] * 15
    gold, predicted = (list(part) for part in zip(*tags, strict=True))
    base = classes(45)
    examples = base._replace(kind="tags", gold=gold, predicted=predicted)
    groups = VIEWS["entity type"].tests(examples)
    assert (groups.names, groups.counts.tolist()) == (["x"], [[15, 15]])
    assert summary_table(VIEWS["entity type"], groups, examples)["examples with a mistake"].tolist() == [15]
    assert entities_table(examples)["recall"].tolist() == [0.5]
    assert answers(examples) == ["x"]
    assert list(list_table(examples, np.array([1]), {})["predicted"]) == ["no entity"]


def test_view_of_entity_confusions_is_the_difference_to_the_mean_of_all():
    tags = [(["B-x"], ["B-y"]), (["B-x"], ["B-x"]), (["O"], ["O"])] * 15
    gold, predicted = (list(part) for part in zip(*tags, strict=True))
    examples = classes(45)._replace(kind="tags", gold=gold, predicted=predicted)
    view = VIEWS["entity confusion"]
    groups = view.tests(examples)
    assert (groups.names, groups.counts.tolist()) == (["x → x", "x → y"], [[15, 30], [15, 30]])
    chosen = np.array([place % 3 == 0 for place in range(45)])
    expected = examples.gates[chosen].mean(axis=0) - examples.gates.mean(axis=0)
    np.testing.assert_allclose(groups.tests.of(1).value[:2], expected[:2])
    assert "examples" in summary_table(view, groups, examples)


def test_virtual_token_that_was_planted_is_found_among_many():
    examples = classes()
    draw = np.random.default_rng(7)
    gates = draw.normal(0.5, 0.01, (120, 3, 4))
    gates[:, 2, 3] = np.nan  # a layer with fewer virtual tokens
    gates[examples.error == 1, 1, 2] += 0.03
    examples = examples._replace(gates=np.nanmean(gates, axis=2))
    places = list(range(0, 120, 2)) + list(range(1, 120, 2))
    view = VIEWS["wrong or right"]
    tests = view.tests(with_token_gates(examples, places, gates[places])).tests.of(0)

    def alone(gates: np.ndarray) -> Examples:
        return with_token_gates(examples._replace(gates=gates.mean(axis=2)), list(range(120)), gates)

    value = tests.value.reshape(3, 4)
    wrong = examples.error == 1
    np.testing.assert_allclose(value[1, 2], gates[wrong, 1, 2].mean() - gates[~wrong, 1, 2].mean())
    assert np.isnan(value[2, 3])
    said = tokens_sentence(tests, view.unit, 4)
    assert said.startswith(
        "Of 11 virtual tokens tested, 1 differs (dots), in layer 2. The clearest is virtual token 3 "
    )
    with pytest.raises(AptValueError, match="not of these predictions"):
        with_token_gates(examples, places[::-1], gates[places])
    assert with_token_gates(examples, [], gates[:0]).gates.shape == (0, 12)
    nothing = alone(np.full((120, 3, 4), 0.5))
    assert tokens_sentence(view.tests(nothing).tests.of(0), view.unit, 4) == "No virtual token could be tested."
    null = alone(np.random.default_rng(1).normal(0.5, 0.01, (120, 3, 4)))
    assert tokens_sentence(view.tests(null).tests.of(0), view.unit, 4).startswith("No virtual token differs")


def test_contrast_figure_separates_what_counts_from_what_does_not():
    view = VIEWS["wrong or right"]
    tests = view.tests(classes()).tests.of(0)
    counts, others = layer_contrast_figure(LayerContrast(tests, view.unit, "<b>title</b>")).data
    assert (list(counts.x), list(others.x)) == ([2], [1])
    assert counts.error_y.array[0] == pytest.approx(tests.high[1] - tests.value[1])
    nothing = layer_contrast_figure(LayerContrast(tests.__class__(*(part * np.nan for part in tests)), "", "<b>"))
    assert nothing.layout.annotations[0].text == "no layer could be tested"
    assert nothing.layout.title.text == "&lt;b&gt;"


def test_example_profile_is_its_distance_from_the_mean():
    examples = classes()
    found = example_profile(examples.gates, 3, "v-3")
    np.testing.assert_allclose(found.deviation[:2], (examples.gates[3] - examples.gates.mean(0))[:2])
    np.testing.assert_allclose(found.spread[:2], examples.gates.std(0)[:2])
    assert np.isnan(found.deviation[2])
    assert len(example_profile_figure(found).data) == 2
    empty = example_profile_figure(example_profile(np.full((2, 2), np.nan), 0, "x"))
    assert empty.layout.annotations[0].text == "this example has no gates"
