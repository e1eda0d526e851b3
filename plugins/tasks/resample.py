"""The scores of multi-label decisions when each example counts as often as a weight says. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Draws = NDArray[np.float64]


def weighted_scores(predictions: Mapping[str, NDArray[Any]], weights: Draws) -> dict[str, Draws]:
    """Scores of decisions, at 0.5 and (suffix ``_tuned``) at the threshold that was tuned.

    ``predictions`` holds ``probabilities`` and ``targets``, both (examples, labels), and may hold
    ``threshold`` (examples,); ``weights`` are (draws, examples) and the scores (draws,). Scores that
    rank, and the loss, are not among them. Probabilities that are no numbers give no scores.
    """
    probabilities = predictions["probabilities"]
    truth = predictions["targets"].astype(bool)
    if np.isnan(probabilities).any():
        return {}
    thresholds = {"": np.full(len(truth), 0.5)}
    if "threshold" in predictions:
        thresholds["_tuned"] = predictions["threshold"]
    return {
        f"{name}{suffix}": values
        for suffix, threshold in thresholds.items()
        for name, values in _scores(probabilities >= threshold[:, None], truth, weights)
    }


def _scores(
    decided: NDArray[np.bool_], truth: NDArray[np.bool_], weights: Draws
) -> Iterator[tuple[str, Draws]]:
    """Name and values of each score."""
    wrong = decided != truth
    total = weights.sum(axis=1)
    yield "subset_accuracy", weights @ ~wrong.any(axis=1) / total
    yield "hamming_loss", weights @ wrong.mean(axis=1) / total
    hits, predicted, positives = (
        weights @ sparse.csr_array(part, dtype=np.float64)
        for part in (decided & truth, decided, truth)
    )
    for name, top, bottom in (
        ("f1", 2 * hits, predicted + positives),
        ("precision", hits, predicted),
        ("recall", hits, positives),
    ):
        yield f"{name}_micro", _ratio(top.sum(axis=1), bottom.sum(axis=1))
        yield f"{name}_macro", _ratio(top, bottom).mean(axis=1)


def _ratio(top: Draws, bottom: Draws) -> Draws:
    """``top / bottom``, 0 where ``bottom`` is 0."""
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
