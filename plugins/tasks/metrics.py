"""Scores of multi-label predictions, exact, from sorted scores and counts.

A label is predicted where its probability is at least the threshold. Undefined precision, recall
and F1 (nothing predicted, nothing there) are 0, as with scikit-learn's ``zero_division=0``; macro
averages are over all labels. Ranking scores treat equal probabilities as one threshold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Targets = npt.NDArray[np.uint8]
_Wide = npt.NDArray[np.float64]

_WORST = {
    "f1_micro": 0.0,
    "f1_macro": 0.0,
    "precision_micro": 0.0,
    "precision_macro": 0.0,
    "recall_micro": 0.0,
    "recall_macro": 0.0,
    "subset_accuracy": 0.0,
    "hamming_loss": 1.0,
}


def all_scores(probabilities: Floats, targets: Targets, threshold: float) -> dict[str, float]:
    """Every metric: at 0.5, at ``threshold`` (suffix ``_tuned``), and the ranking scores.

    Both arrays have the shape (examples, labels). If any probability is NaN the model is broken,
    and every score is the worst there is.
    """
    if np.isnan(probabilities).any():
        at_half, tuned, ranking = _WORST, _WORST, {"roc_auc_micro": 0.0, "pr_auc_micro": 0.0}
    else:
        at_half = scores_at(probabilities, targets, 0.5)
        tuned = scores_at(probabilities, targets, threshold)
        ranking = ranking_scores(probabilities, targets)
    return {
        **at_half,
        **{f"{name}_tuned": value for name, value in tuned.items()},
        **ranking,
    }


def scores_at(probabilities: Floats, targets: Targets, threshold: float) -> dict[str, float]:
    """Scores of the decisions ``probability >= threshold``, compared in float64."""
    decided = probabilities >= np.float64(threshold)
    truth = targets.astype(bool)
    hits = (decided & truth).sum(axis=0)
    predicted, positives = decided.sum(axis=0), truth.sum(axis=0)
    wrong = decided != truth
    scores = {
        "subset_accuracy": float(1.0 - wrong.any(axis=1).mean()),
        "hamming_loss": float(wrong.mean()),
    }
    for name, top, bottom in (
        ("f1", 2 * hits, predicted + positives),
        ("precision", hits, predicted),
        ("recall", hits, positives),
    ):
        scores[f"{name}_micro"] = float(_ratio(top.sum(), bottom.sum()))
        scores[f"{name}_macro"] = float(_ratio(top, bottom).mean())
    return scores


def best_threshold(probabilities: Floats, targets: Targets) -> float:
    """The threshold with the largest micro-F1 among all; the highest such, 0.5 if there is none.

    Lowering the threshold past a negative only lowers F1, so the best lies at the score of a
    positive. It is put half-way to the next lower score, so that it separates the same entries in
    float64. With ``h`` hits among ``n`` predicted and ``P`` positives, F1 is ``2 h / (n + P)``.
    """
    if np.isnan(probabilities).any() or not targets.any():
        return 0.5
    positive, negative = _sorted_scores(probabilities, targets)
    scores, below = np.unique(positive, return_index=True)
    hits = len(positive) - below
    false_alarms = len(negative) - np.searchsorted(negative, scores, side="left")
    f1 = 2.0 * hits / (hits + false_alarms + len(positive))
    best = len(scores) - 1 - int(np.argmax(f1[::-1]))
    lower = [scores[best - 1]] if best else []
    negatives_below = int(np.searchsorted(negative, scores[best], side="left"))
    if negatives_below:
        lower.append(negative[negatives_below - 1])
    score = float(scores[best])
    return (score + float(max(lower))) / 2 if lower else score


def ranking_scores(probabilities: Floats, targets: Targets) -> dict[str, float]:
    """Micro-averaged area under the ROC curve, and average precision.

    Without positives or without negatives the former is undefined (NaN); without positives the
    latter is 0.
    """
    positive, negative = _sorted_scores(probabilities, targets)
    if not len(positive):
        return {"roc_auc_micro": float("nan"), "pr_auc_micro": 0.0}
    scores, below, multiplicity = np.unique(positive, return_index=True, return_counts=True)
    hits = len(positive) - below
    lower = np.searchsorted(negative, scores, side="left")
    not_higher = np.searchsorted(negative, scores, side="right")
    precision = hits / (hits + len(negative) - lower)
    # A positive outranks the negatives below it and half of those that tie with it.
    outranked = float((multiplicity * (lower + not_higher)).sum()) / 2
    pairs = len(positive) * len(negative)
    return {
        "roc_auc_micro": outranked / pairs if pairs else float("nan"),
        "pr_auc_micro": float((multiplicity * precision).sum() / len(positive)),
    }


def _sorted_scores(probabilities: Floats, targets: Targets) -> tuple[Floats, Floats]:
    truth = targets.astype(bool)
    return np.sort(probabilities[truth]), np.sort(probabilities[~truth])


def _ratio(top: Any, bottom: Any) -> _Wide:
    """``top / bottom``, 0 where ``bottom`` is 0."""
    return np.asarray(top / np.maximum(bottom, 1), dtype=np.float64)
