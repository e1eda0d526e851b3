"""The scores of multi-label decisions when each example counts as often as a weight says. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Draws = NDArray[np.float64]
_RATIOS = "f1", "precision", "recall"


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
    found: dict[str, Callable[[], Draws]] = {}
    for suffix, threshold in thresholds.items():
        decisions = _Decisions(probabilities >= threshold[:, None], truth, weights)
        found |= {f"{name}{suffix}": score for name, score in decisions.scores().items()}
    return _Asked(found)


class _Asked(Mapping[str, Draws]):
    """Values that are computed when they are asked for, a thousand reports of runs wanting one of many."""

    def __init__(self, makers: Mapping[str, Callable[[], Draws]]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> Draws:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


class _Decisions:
    """Decisions and the truth, both bool (examples, labels), and how often each example counts."""

    def __init__(
        self, decided: NDArray[np.bool_], truth: NDArray[np.bool_], weights: Draws
    ) -> None:
        self._weights = weights
        self._wrong = decided != truth
        self._parts = decided & truth, decided, truth

    def scores(self) -> dict[str, Callable[[], Draws]]:
        """Name -> what computes it."""
        ratios: dict[str, Callable[[], Draws]] = {}
        for name in _RATIOS:
            ratios[f"{name}_micro"] = partial(self._micro, name)
            ratios[f"{name}_macro"] = partial(self._macro, name)
        return {
            "subset_accuracy": lambda: self._mean(~self._wrong.any(axis=1)),
            "hamming_loss": lambda: self._mean(self._wrong.mean(axis=1)),
            **ratios,
        }

    def _mean(self, values: NDArray[Any]) -> Draws:
        mean: Draws = self._weights @ values / self._weights.sum(axis=1)
        return mean

    def _micro(self, name: str) -> Draws:
        return _ratio(*_parts_of(name, *self._counts))

    def _macro(self, name: str) -> Draws:
        means: Draws = _ratio(*_parts_of(name, *self._counts_by_label)).mean(axis=1)
        return means

    @cached_property
    def _counts(self) -> tuple[Draws, Draws, Draws]:
        """Hits, predicted and true labels (draws,): whole numbers, so that their order of addition plays no part."""
        hits, predicted, positives = (self._weights @ part.sum(axis=1) for part in self._parts)
        return hits, predicted, positives

    @cached_property
    def _counts_by_label(self) -> tuple[Draws, Draws, Draws]:
        """The same (draws, labels)."""
        hits, predicted, positives = (
            self._weights @ sparse.csr_array(part, dtype=np.float64) for part in self._parts
        )
        return hits, predicted, positives


def _parts_of(name: str, hits: Draws, predicted: Draws, positives: Draws) -> tuple[Draws, Draws]:
    """Numerator and denominator."""
    if name == "f1":
        return 2 * hits, predicted + positives
    return hits, predicted if name == "precision" else positives


def _ratio(top: Draws, bottom: Draws) -> Draws:
    """``top / bottom``, 0 where ``bottom`` is 0."""
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
