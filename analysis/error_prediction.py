"""How well something known of an example tells, on examples not fitted to, whether the prediction will be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import RepeatedStratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from analysis.entities import spans
from analysis.errors import CONFIDENCE, lacking, varying
from analysis.examples import Examples, Kind

FOLDS, REPEATS = 5, 10
MAX_EXAMPLES = 10_000
"""examples that are used; more are drawn from, the same for everyone who looks"""
MAX_ANSWERS = 50
"""the most frequent predicted answers that are told apart"""
WORDS = ((0.6, "barely"), (0.7, "weakly"), (0.8, "fairly well"), (1.01, "well"))
"""upper end of an ROC AUC -> word; 0.7 and 0.8 are Hosmer and Lemeshow's limits of acceptable and excellent"""


class Prediction(NamedTuple):
    """Area under the ROC curve: how often a wrong example gets a higher score than a right one; 0.5 is guessing."""

    auc: float  # mean over folds
    low: float
    high: float
    examples: int
    wrong: int  # of these

    @property
    def says_something(self) -> bool:
        """Whether the whole interval is above guessing."""
        return self.low > 0.5


def predict_errors(features: np.ndarray, error: np.ndarray, seed: int = 0) -> Prediction | str:
    """Logistic regression on standardised features, ``FOLDS``-fold cross-validation repeated ``REPEATS`` times.

    The interval is Nadeau and Bengio's (2003): Student's t over the J folds of all repetitions, whose variance is
    multiplied by 1 / J + 1 / (FOLDS - 1), because training sets overlap. Everything is fitted inside the folds.

    Args:
        features: [N, F]; examples with a NaN in a feature that varies are left out.
        error: [N] 1 wrong, 0 right; NaN is left out.
        seed: of the folds, and of the draw where there are more than ``MAX_EXAMPLES``.

    Returns:
        The score, or why there is none, as a sentence.
    """
    features = features[:, varying(features)]
    if not features.shape[1]:
        return "They are the same for every example, so they cannot tell right from wrong."
    known = np.flatnonzero(np.isin(error, (0, 1)) & np.isfinite(features).all(axis=1))
    if len(known) > MAX_EXAMPLES:
        known = np.sort(np.random.default_rng(seed).choice(known, MAX_EXAMPLES, replace=False))
    features, error = features[known], error[known]
    if (missing := lacking(error)) is not None:
        return missing
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    scores = []
    for train, test in RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=seed).split(
        features, error
    ):
        model.fit(features[train], error[train])
        scores.append(roc_auc_score(error[test], model.decision_function(features[test])))
    count = len(scores)
    spread = np.sqrt((1 / count + 1 / (FOLDS - 1)) * np.var(scores, ddof=1))
    half = stdtrit(count - 1, 0.5 + CONFIDENCE / 2) * spread
    auc = float(np.mean(scores))
    return Prediction(auc, max(0.0, auc - half), min(1.0, auc + half), len(error), int(error.sum()))


def answer_features(examples: Examples) -> np.ndarray:
    """What is known at inference without gates, [N, F]: the predicted answer; for tags how many entities of each type
    are predicted, and the number of words."""
    if examples.kind == "tags":
        types = [[name for name, _, _ in spans(tags)] for tags in examples.predicted]
        names = _most_frequent([name for found in types for name in found])
        counts = [
            [found.count(name) for name in names] + [len(tags)]
            for found, tags in zip(types, examples.predicted, strict=True)
        ]
        return np.array(counts, dtype=np.float64).reshape(len(types), len(names) + 1)
    names = _most_frequent(examples.predicted)
    return (np.array(examples.predicted, dtype=object)[:, None] == np.array(names, dtype=object)).astype(np.float64)


def verdict(gates: Prediction | str) -> str:
    """Whether gates alone tell errors, in one sentence."""
    if isinstance(gates, str):
        return f"Whether gates tell errors cannot be said. {gates}"
    said = f"ROC AUC {gates.auc:.2f}, {CONFIDENCE:.0%} interval {gates.low:.2f} to {gates.high:.2f}; guessing has 0.50"
    if not gates.says_something:
        return f"Gates tell errors: not at all ({said})."
    word = next(word for end, word in WORDS if gates.auc < end)
    return f"Gates tell errors: {word} ({said})."


def comparison(gates: Prediction | str, answer: Prediction | str, kind: Kind) -> str:
    """How the gates' score stands beside that of ``answer_features``; empty where one of them is missing."""
    if isinstance(gates, str) or isinstance(answer, str):
        return ""
    known = "how many entities of each type are predicted, in how many words" if kind == "tags" else "the answer given"
    said = f"What is known without gates, {known}, has {answer.auc:.2f} ({answer.low:.2f} to {answer.high:.2f})"
    if gates.says_something and answer.high >= gates.low:
        return f"{said}: what gates tell may be no more than that."
    return f"{said}."


def _most_frequent(names: Sequence[str]) -> list[str]:
    found, counts = np.unique(np.array(names, dtype=str), return_counts=True)
    return found[np.argsort(-counts, kind="stable")][:MAX_ANSWERS].tolist()
