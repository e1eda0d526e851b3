"""The scores of multi-label decisions when each example counts as often as a weight says. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Draws = NDArray[np.float64]
Counts = tuple[Draws, ...]
Ratio = Callable[[Draws, Draws, Draws], Counts]
_RATIOS: Mapping[str, Ratio] = {
    "f1": lambda hits, predicted, positives: (2 * hits, predicted + positives),
    "precision": lambda hits, predicted, positives: (hits, predicted),
    "recall": lambda hits, predicted, positives: (hits, positives),
}
"""Numerator and denominator of hits, predicted and true labels."""


def weighted_scores(predictions: Mapping[str, NDArray[Any]], weights: Draws) -> Mapping[str, Draws]:
    """Scores of decisions, at 0.5 and (suffix ``_tuned``) at the threshold that was tuned.

    ``predictions`` holds ``probabilities`` and ``targets``, both (examples, labels), and may hold
    ``threshold`` (examples,); ``weights`` are (draws, examples) and the scores (draws,), each computed when it
    is asked for. Scores that rank, and the loss, are not among them. Probabilities that are no numbers give no
    scores.
    """
    probabilities = predictions["probabilities"]
    if np.isnan(probabilities).any():
        return {}
    thresholds = {"": np.full(len(probabilities), 0.5)}
    if "threshold" in predictions:
        thresholds["_tuned"] = predictions["threshold"]
    truth = predictions["targets"].astype(bool)
    return _Asked(
        {
            f"{name}{suffix}": score
            for suffix, threshold in thresholds.items()
            for name, score in _scores(probabilities >= threshold[:, None], truth, weights)
        }
    )


class _Asked(Mapping[str, Draws]):
    """Values that are computed when they are asked for: a report wants one of many, of a thousand runs."""

    def __init__(self, makers: Mapping[str, Callable[[], Draws]]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> Draws:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def _scores(
    decided: NDArray[np.bool_], truth: NDArray[np.bool_], weights: Draws
) -> Iterator[tuple[str, Callable[[], Draws]]]:
    """Name of each score, and what computes it."""
    parts = decided & truth, decided, truth  # hits, predicted and true labels

    def mean(values: NDArray[Any]) -> Draws:
        found: Draws = weights @ values / weights.sum(axis=1)
        return found

    @cache
    def counts() -> Counts:
        """Of all labels (draws,): whole numbers, so that their order of addition plays no part."""
        return tuple(weights @ part.sum(axis=1) for part in parts)

    @cache
    def counts_by_label() -> Counts:
        """The same (draws, labels)."""
        return tuple(weights @ sparse.csr_array(part, dtype=np.float64) for part in parts)

    def micro(ratio: Ratio) -> Draws:
        return _ratio(*ratio(*counts()))

    def macro(ratio: Ratio) -> Draws:
        means: Draws = _ratio(*ratio(*counts_by_label())).mean(axis=1)
        return means

    yield "subset_accuracy", lambda: mean((decided == truth).all(axis=1))
    yield "hamming_loss", lambda: mean((decided != truth).mean(axis=1))
    for name, ratio in _RATIOS.items():
        yield f"{name}_micro", partial(micro, ratio)
        yield f"{name}_macro", partial(macro, ratio)


def _ratio(top: Draws, bottom: Draws) -> Draws:
    """``top / bottom``, 0 where ``bottom`` is 0."""
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
