"""The error of the test set itself: how far a gain moves if other examples had been drawn.

A paired bootstrap over the examples whose predictions each run stored. The same weights (how often an
example is drawn) serve both sides and all seeds, which were tested on the same examples; the standard
deviation of the mean gain over the draws stands beside its spread over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from altgrad_core.interfaces.metric import Metric

Resample = Callable[
    [Mapping[str, NDArray[Any]], NDArray[np.float64]], dict[str, NDArray[np.float64]]
]
"""``(predictions, weights (draws, examples))`` -> metric -> (draws,), see ``Offer.resample``."""
DRAWS = 200


def sampling_errors(
    pairs: pd.DataFrame,
    metric: Metric,
    resample: Resample,
    predictions: Callable[[str], Mapping[str, NDArray[Any]]],
) -> dict[str, float]:
    """Group -> standard deviation of its mean gain over the draws; NaN where it cannot be known.

    ``predictions`` gives those of a run by its id, empty where none are stored. A pair with a diverged
    run, whose score is no mean over examples, is left out.
    """
    known: dict[str, NDArray[np.float64] | None] = {}

    def drawn(run_id: str) -> NDArray[np.float64] | None:
        if run_id not in known:
            known[run_id] = _drawn(predictions(run_id), metric, resample)
        return known[run_id]

    found = {}
    for group, rows in pairs[pairs["diverged"] == ""].groupby("group", sort=False):
        gains = []
        for left, right in zip(rows["baseline_id"], rows["treatment_id"], strict=True):
            a, b = drawn(left), drawn(right)
            if a is not None and b is not None and a.shape == b.shape:
                gains.append(metric.sign * (b - a))
        found[str(group)] = float(np.mean(gains, axis=0).std(ddof=1)) if gains else math.nan
    return found


def weights(examples: int) -> NDArray[np.float64]:
    """How often each example is drawn (draws, examples): rows sum to the number of examples."""
    generator = np.random.default_rng(0)
    share = np.full(examples, 1 / examples)
    return generator.multinomial(examples, share, size=DRAWS).astype(np.float64)


def _drawn(
    predictions: Mapping[str, NDArray[Any]], metric: Metric, resample: Resample
) -> NDArray[np.float64] | None:
    if not predictions:
        return None
    examples = len(next(iter(predictions.values())))
    return resample(predictions, weights(examples)).get(metric.name)
