"""Likeness of gate profiles: matrix, tree and permutation test against scipy and against all permutations."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cosine
from scipy.stats import spearmanr

from analysis.figures.profile_similarity import profile_similarity, profile_similarity_figure
from analysis.runs import Run
from analysis.similarity import (
    Alikeness,
    alikeness,
    by_task,
    cluster,
    comparable,
    layer_counts,
    profile_of,
    reading,
    similarity_matrix,
    try_profile,
)
from apt_core.errors import AptError


def shares(count: int, num_layers: int, seed: int = 0) -> np.ndarray:
    """Profiles that have nothing to do with each other."""
    return np.random.default_rng(seed).dirichlet(np.ones(num_layers), count)


def test_matrix_is_that_of_scipy():
    profiles = np.vstack([shares(4, 6), [[0.3, 0.3, 0.1, 0.1, 0.1, 0.1]]])  # one with ties
    for kind, oracle in (
        ("Spearman", lambda one, other: spearmanr(one, other).statistic),
        ("cosine", lambda one, other: 1 - cosine(one, other)),
    ):
        matrix = similarity_matrix(profiles, kind)
        expected = [[oracle(one, other) for other in profiles] for one in profiles]
        np.testing.assert_allclose(matrix, expected, atol=1e-12)


@given(st.integers(1, 6), st.integers(1, 12), st.sampled_from(["Spearman", "cosine"]), st.integers(0, 99))
def test_matrix_does_not_depend_on_the_order_of_layers(count, num_layers, kind, seed):
    draw = np.random.default_rng(seed)
    profiles = draw.dirichlet(np.ones(num_layers), count)
    matrix = similarity_matrix(profiles, kind)
    np.testing.assert_allclose(matrix, similarity_matrix(profiles[:, draw.permutation(num_layers)], kind), atol=1e-12)
    np.testing.assert_array_equal(np.diag(matrix), 1)


def test_even_profile_has_no_ranks_and_no_crash():
    matrix = similarity_matrix(np.array([[0.25] * 4, [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]]), "Spearman")
    assert np.isnan(matrix[0, 1])
    assert matrix[1, 2] == -1
    assert sorted(cluster(matrix).order) == [0, 1, 2]
    assert alikeness(matrix, ["a", "a", "b"]) is None  # the only pair within a task is not known


def test_tree_puts_alike_runs_beside_each_other():
    base = [[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]]
    profiles = np.array([base[0], base[1], base[0], base[1], base[0]]) + 0.01 * np.random.default_rng(0).random((5, 4))
    tree = cluster(similarity_matrix(profiles, "cosine"))
    assert {frozenset(tree.order[:2]), frozenset(tree.order[:3])} & {frozenset({1, 3}), frozenset({0, 2, 4})}
    assert len(tree.x) == len(tree.y) == 4
    assert max(max(joint) for joint in tree.y) == pytest.approx(
        1 - np.mean([1 - cosine(profiles[one], profiles[other]) for one in (0, 2, 4) for other in (1, 3)])
    )
    assert cluster(np.ones((1, 1))).order == [0]
    assert cluster(np.ones((0, 0))).order == []


def test_permutation_test_agrees_with_all_permutations():
    profiles, tasks = shares(6, 8), ["a", "a", "b", "b", "b", "c"]
    profiles[1] = 0.6 * profiles[0] + 0.4 * profiles[1]
    matrix = similarity_matrix(profiles, "cosine")

    def difference(labels) -> float:
        pairs = [(one, other) for one in range(6) for other in range(one)]
        within = [matrix[pair] for pair in pairs if labels[pair[0]] == labels[pair[1]]]
        between = [matrix[pair] for pair in pairs if labels[pair[0]] != labels[pair[1]]]
        return np.mean(within) - np.mean(between)

    observed = difference(tasks)
    every = [difference(labels) for labels in permutations(tasks)]
    exact = np.mean([each >= observed - 1e-12 for each in every])
    found = alikeness(matrix, tasks)
    assert found.within - found.between == pytest.approx(observed)
    assert (found.within_pairs, found.between_pairs) == (4, 11)
    assert found.p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 9999) + 2e-4)
    assert found.smallest_p == pytest.approx(1 / 60)  # 6! / (2! 3! 1!) dealings


def test_groups_are_found_where_tasks_follow_them_and_not_where_they_cut_across():
    draw = np.random.default_rng(0)
    profiles = np.vstack([draw.dirichlet(300 * np.array(base), 4) for base in ([0.5, 0.3, 0.2], [0.2, 0.3, 0.5])])
    matrix = similarity_matrix(profiles, "cosine")
    tasks = ["a"] * 4 + ["b"] * 4
    found = alikeness(matrix, tasks)
    assert found.p < 0.05
    assert reading(found, "cosine", tasks).startswith("Profiles of the same task are more alike than those of")
    across = ["a", "b"] * 4  # two runs of either kind in each task
    found = alikeness(matrix, across)
    assert found.within < found.between
    assert found.p > 0.5
    assert reading(found, "cosine", across).startswith(
        "Profiles of the same task are not more alike than those of different tasks"
    )


def test_higher_mean_that_chance_explains_is_not_called_shown_nor_absent():
    found = Alikeness(within=0.88, between=0.69, within_pairs=137, between_pairs=53, p=0.066, smallest_p=0.0001)
    assert reading(found, "Spearman", ["a", "b"]).startswith("It is not shown that profiles of the same task are more")


def test_p_is_right_in_the_long_run_when_nothing_is_there(monkeypatch):
    monkeypatch.setattr("analysis.similarity.PERMUTATIONS", 199)
    tasks = ["a", "a", "a", "b", "b", "b", "c", "c"]
    values = [
        alikeness(similarity_matrix(shares(8, 6, number), "Spearman"), tasks, seed=number).p for number in range(200)
    ]
    assert np.mean(np.array(values) <= 0.1) < 0.1 + 4 * np.sqrt(0.09 / 200)
    assert np.mean(np.array(values) <= 0.5) == pytest.approx(0.5, abs=0.15)


def test_too_few_runs_and_missing_pairs_are_said():
    few = alikeness(similarity_matrix(shares(4, 6), "cosine"), ["a", "a", "b", "b"])
    assert few.smallest_p == pytest.approx(1 / 3)
    assert "p could not have been below 0.33" in reading(few, "cosine", ["a", "a", "b", "b"])
    matrix = similarity_matrix(shares(3, 6), "cosine")
    assert alikeness(matrix, ["a", "a", "a"]) is None
    assert "of one task" in reading(None, "cosine", ["a", "a"])
    assert alikeness(matrix, ["a", "b", "c"]) is None
    assert "No task has two runs" in reading(None, "cosine", ["a", "b"])


@pytest.fixture
def run(tmp_path, record_run):
    def make(name: str, **fields) -> Run:
        return Run(record_run(tmp_path / "runs" / name, **{"steps": 2, "lengths": (4, 4, 4), **fields}))

    return make


def test_runs_that_do_not_compare_are_listed_with_the_reason(run):
    runs = [
        run("a"),
        run("deep", lengths=(4,) * 6),
        run("bare", apt_config={"token_gate": "none", "layer_scale": False}),
        run("pruned", lengths=(1, 2, 3)),
    ]
    kept, excluded = comparable(runs, 3)
    assert [each.name for each in kept] == ["a"]
    assert [(each.run.name, each.reason) for each in excluded] == [
        ("deep", "it has 6 layers, not 3"),
        ("bare", "it has neither token gates nor layer scales"),
        ("pruned", "its layers have different lengths, which its profile would repeat"),
    ]
    assert [each.name for each in comparable(runs, 3, with_lengths=True)[0]] == ["a", "pruned"]
    assert layer_counts(runs) == [3, 6]


def test_profile_is_the_share_of_gate_mass(run):
    found = run("a", steps=40)
    rows = found.gates.read()
    mass = (rows["token_gate"] * rows["layer_scale"][..., None]).sum(axis=2)[-4:].mean(axis=0)
    np.testing.assert_allclose(profile_of(found), mass / mass.sum(), rtol=1e-6)


def test_profile_that_cannot_be_read_is_a_reason(run):
    found = run("a")
    next((found.folder / "gates").iterdir()).write_bytes(b"damaged")
    assert "its gates cannot be read" in try_profile(found)
    empty = run("b", steps=0)
    with pytest.raises(AptError, match="no recorded gates"):
        profile_of(empty)


def test_figure_follows_the_order_and_names_its_axes():
    matrix = np.array([[1, 0.2, 0.9], [0.2, 1, 0.1], [0.9, 0.1, 1]])
    names, tasks = ["x", "<b>y", "z"], ["rte", "copa", "rte"]
    assert by_task(tasks, names) == [1, 0, 2]
    tree = cluster(matrix)
    data = profile_similarity(matrix, names, tasks, "Spearman", tree.order, tree)
    np.testing.assert_array_equal(data.values, matrix[np.ix_(tree.order, tree.order)])
    cells, branches = profile_similarity_figure(data).data
    assert list(cells.x) == [5, 15, 25]
    assert (cells.zmin, cells.zmax) == (-1, 1)
    assert branches.yaxis == "y2"
    figure = profile_similarity_figure(profile_similarity(matrix, names, tasks, "cosine", [1, 0, 2], None))
    assert list(figure.layout.xaxis.ticktext) == ["copa: &lt;b&gt;y", "rte: x", "rte: z"]
    assert figure.layout.xaxis.title.text == "run"
    assert len(figure.data) == 1
    assert "at least two" in profile_similarity_figure(data._replace(names=["x"])).layout.annotations[0].text
