"""Scores against scikit-learn and brute force, with the cases where definitions bite."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from altgrad_plugins.tasks.metrics import (
    Floats,
    Targets,
    all_scores,
    best_threshold,
    ranking_scores,
    scores_at,
)

sklearn = pytest.importorskip("sklearn.metrics")


def _witness(probabilities: Floats, targets: Targets, threshold: float) -> dict[str, float]:
    decided = (probabilities.astype(np.float64) >= threshold).astype(int)
    scores = {
        "subset_accuracy": sklearn.accuracy_score(targets, decided),
        "hamming_loss": sklearn.hamming_loss(targets, decided),
    }
    for average in ("micro", "macro"):
        for name in ("f1", "precision", "recall"):
            score = getattr(sklearn, f"{name}_score")
            value = score(targets, decided, average=average, zero_division=0)
            scores[f"{name}_{average}"] = value
    return scores


@st.composite
def predictions(draw: st.DrawFn) -> tuple[Floats, Targets]:
    """Few distinct scores, so that ties abound; labels without positives and examples without labels."""
    shape = draw(st.tuples(st.integers(1, 7), st.integers(2, 5)))
    values = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.75, 1.0])
    probabilities = draw(arrays.arrays(np.float32, shape, elements=values.map(np.float32)))
    targets = draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 1)))
    return probabilities, targets


@settings(max_examples=40, deadline=None)
@given(predictions(), st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 1.0]))
def test_decisions_score_as_in_sklearn(drawn: tuple[Floats, Targets], threshold: float) -> None:
    threshold = float(np.float32(threshold))
    assert scores_at(*drawn, threshold) == pytest.approx(_witness(*drawn, threshold))


@settings(max_examples=40, deadline=None)
@given(predictions())
def test_ranking_scores_as_in_sklearn(drawn: tuple[Floats, Targets]) -> None:
    probabilities, targets = drawn
    scores = ranking_scores(probabilities, targets)
    flat = targets.ravel(), probabilities.ravel()
    if targets.any():
        assert scores["pr_auc_micro"] == pytest.approx(sklearn.average_precision_score(*flat))
    else:
        assert scores["pr_auc_micro"] == 0.0
    if targets.any() and not targets.all():
        assert scores["roc_auc_micro"] == pytest.approx(sklearn.roc_auc_score(*flat))
    else:
        assert math.isnan(scores["roc_auc_micro"])


@settings(max_examples=40, deadline=None)
@given(predictions())
def test_no_threshold_beats_the_tuned_one(drawn: tuple[Floats, Targets]) -> None:
    probabilities, targets = drawn
    if not targets.any():
        assert best_threshold(probabilities, targets) == 0.5
        return
    candidates = np.unique(probabilities)
    reached = {}
    for candidate in candidates:
        decided = probabilities >= candidate
        reached[float(candidate)] = sklearn.f1_score(targets.ravel(), decided.ravel())
    threshold = best_threshold(probabilities, targets)
    assert scores_at(probabilities, targets, threshold)["f1_micro"] == pytest.approx(
        max(reached.values())
    )
    highest = max(t for t, f1 in reached.items() if f1 >= max(reached.values()) - 1e-12)
    assert threshold <= highest
    assert not ((probabilities > threshold) & (probabilities < np.float32(highest))).any()


def test_many_predictions_score_as_in_sklearn() -> None:
    random = np.random.default_rng(0)
    targets = (random.random((300, 20)) < 0.1).astype(np.uint8)
    targets[:, 3] = 0
    noise = random.normal(size=targets.shape)
    probabilities = (1 / (1 + np.exp(-(2 * targets + noise - 2)))).astype(np.float32)
    threshold = best_threshold(probabilities, targets)
    scores = all_scores(probabilities, targets, threshold)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        at_half = _witness(probabilities, targets, 0.5)
        tuned = _witness(probabilities, targets, threshold)
    assert {name: scores[name] for name in at_half} == pytest.approx(at_half)
    assert {name: scores[f"{name}_tuned"] for name in tuned} == pytest.approx(tuned)
    precision, recall, thresholds = sklearn.precision_recall_curve(
        targets.ravel(), probabilities.ravel()
    )
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(f1))
    assert scores["f1_micro_tuned"] == pytest.approx(f1[best])
    below = probabilities[probabilities < thresholds[best]].max()
    assert float(below) < threshold < float(thresholds[best])


def test_neighbouring_scores_are_separated() -> None:
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    probabilities = np.array([[low, high]], dtype=np.float32)
    targets = np.array([[0, 1]], dtype=np.uint8)
    threshold = best_threshold(probabilities, targets)
    assert float(low) < threshold < float(high)
    assert scores_at(probabilities, targets, threshold)["f1_micro"] == 1.0


def test_nothing_predicted_scores_zero() -> None:
    targets = np.array([[1, 0], [0, 1]], dtype=np.uint8)
    scores = scores_at(np.zeros((2, 2), dtype=np.float32), targets, 0.5)
    assert scores["precision_micro"] == scores["f1_macro"] == scores["recall_micro"] == 0.0
    assert scores["hamming_loss"] == 0.5


def test_nan_gives_the_worst_scores() -> None:
    targets = np.array([[1, 0], [0, 1]], dtype=np.uint8)
    probabilities = np.array([[0.9, 0.1], [np.nan, 0.9]], dtype=np.float32)
    assert best_threshold(probabilities, targets) == 0.5
    scores = all_scores(probabilities, targets, 0.5)
    assert scores["hamming_loss"] == scores["hamming_loss_tuned"] == 1.0
    best = {"hamming_loss", "hamming_loss_tuned", "threshold"}
    assert all(value == 0.0 for name, value in scores.items() if name not in best)
    assert scores.keys() == all_scores(np.zeros((2, 2), np.float32), targets, 0.5).keys()
