"""How well gates predict errors: planted effects are found, null data gives 'not at all', the rest is said."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from analysis import error_prediction
from analysis.error_prediction import Prediction, answer_features, comparison, predict_errors, verdict
from analysis.examples import Examples


def draw(seed: int, examples: int, effect: float, share: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """Gates whose first layer is ``effect`` standard deviations larger where the example is wrong."""
    random = np.random.default_rng(seed)
    error = (random.random(examples) < share).astype(float)
    gates = random.normal(0.6, 0.001, (examples, 4))
    gates[:, 0] += 0.001 * effect * error
    return gates, error


def test_planted_effect_is_found_with_the_area_that_theory_gives():
    found = predict_errors(*draw(0, 1500, 1.5))
    assert found.auc == pytest.approx(0.856, abs=0.02)  # Phi(1.5 / sqrt(2))
    assert found.low < 0.856 < found.high
    assert verdict(found).startswith("Gates tell errors: well (ROC AUC 0.8")


def test_null_data_is_not_at_all_nearly_always(monkeypatch):
    monkeypatch.setattr(error_prediction, "REPEATS", 2)
    says = [predict_errors(*draw(seed, 120, 0.0)) for seed in range(40)]
    false = sum(found.says_something for found in says)
    assert false <= 5  # 1 expected of a one-sided 2.5 %
    assert sum("not at all" in verdict(found) for found in says) == 40 - false


def test_score_is_the_mean_over_folds_fitted_by_scikit_learn(monkeypatch):
    monkeypatch.setattr(error_prediction, "REPEATS", 1)
    gates, error = draw(1, 100, 1.0)
    found = predict_errors(gates, error, seed=3)
    scores = []
    generator = np.random.RandomState(3)  # as RepeatedStratifiedKFold seeds its repetitions
    for train, test in StratifiedKFold(5, shuffle=True, random_state=generator).split(gates, error):
        scale = StandardScaler().fit(gates[train])
        fitted = LogisticRegression(max_iter=1000).fit(scale.transform(gates[train]), error[train])
        scores.append(roc_auc_score(error[test], fitted.predict_proba(scale.transform(gates[test]))[:, 1]))
    assert found.auc == pytest.approx(np.mean(scores))
    half = 2.776445 * np.sqrt((1 / 5 + 1 / 4) * np.var(scores, ddof=1))  # t(4) at 97.5 %
    assert found.high == pytest.approx(min(1, found.auc + half), rel=1e-5)


def test_same_seed_same_numbers():
    assert predict_errors(*draw(2, 80, 0.5), seed=1) == predict_errors(*draw(2, 80, 0.5), seed=1)


def test_gates_that_never_change_are_said_to_tell_nothing():
    gates = np.full((100, 3), 0.7)
    gates[:, 2] = np.nan
    found = predict_errors(gates, np.arange(100) % 2.0)
    assert "the same for every example" in found
    assert verdict(found).startswith("Whether gates tell errors cannot be said. They are the same")


@pytest.mark.parametrize("error", [np.zeros(50), np.ones(50), np.r_[np.ones(9), np.zeros(41)]])
def test_too_few_wrong_or_right_examples_give_a_reason_and_no_number(error):
    assert "needs at least 10 right and 10 wrong ones" in predict_errors(draw(3, 50, 0)[0], error)


def test_examples_with_missing_gates_are_left_out_and_many_are_drawn_from(monkeypatch):
    monkeypatch.setattr(error_prediction, "MAX_EXAMPLES", 60)
    gates, error = draw(4, 100, 1.0)
    gates[:10] = np.nan
    assert predict_errors(gates, error).examples == 60
    monkeypatch.setattr(error_prediction, "MAX_EXAMPLES", 10_000)
    assert predict_errors(gates, error).examples == 90


@pytest.mark.parametrize(
    ("auc", "low", "word"),
    [
        (0.56, 0.49, "not at all"),
        (0.4, 0.3, "not at all"),
        (0.56, 0.51, "barely"),
        (0.65, 0.6, "weakly"),
        (0.75, 0.7, "fairly well"),
        (0.9, 0.85, "well"),
        (1.0, 1.0, "well"),
    ],
)
def test_words_follow_the_interval_first_and_the_area_second(auc, low, word):
    assert verdict(Prediction(auc, low, 2 * auc - low, 100, 40)).startswith(f"Gates tell errors: {word} (")


def test_what_is_known_without_gates_is_put_beside_it():
    gates, same = Prediction(0.7, 0.6, 0.8, 100, 40), Prediction(0.68, 0.58, 0.78, 100, 40)
    worse = Prediction(0.5, 0.45, 0.55, 100, 40)
    assert "no more than that" in comparison(gates, same, "class")
    assert "no more than that" not in comparison(gates, worse, "class")
    assert comparison("no", worse, "tags") == ""


def examples_of(kind: str, predicted: list) -> Examples:
    nothing = np.zeros(len(predicted))
    return Examples(
        kind, [str(place) for place in range(len(predicted))], predicted, predicted, nothing, nothing, nothing
    )


def test_answers_become_one_column_per_class_or_counts_of_entities():
    found = answer_features(examples_of("class", ["a", "b", "b"]))
    assert found.tolist() == [[0, 1], [1, 0], [1, 0]]
    found = answer_features(examples_of("tags", [["B-x", "I-x", "B-y"], ["O"]]))
    assert found.tolist() == [[1, 1, 3], [0, 0, 1]]
    assert answer_features(examples_of("tags", [["O"], ["O", "O"]])).tolist() == [[1], [2]]
