"""The error of the test set itself: how far a gain moves if other examples had been drawn.

A paired bootstrap over the examples whose predictions each run stored. The same weights (how often an
example is drawn) serve both sides and all seeds, which were tested on the same examples; the standard
deviation of the mean gain over the draws stands beside its spread over seeds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from altgrad_core.errors import UserError
from altgrad_core.interfaces.metric import Metric
from altgrad_core.registry.catalog import catalog
from altgrad_core.results.stored import StoredRun, StoredSuite

Resample = Callable[
    [Mapping[str, NDArray[Any]], NDArray[np.float64]], Mapping[str, NDArray[np.float64]]
]
"""``(predictions, weights (draws, examples))`` -> metric -> (draws,), see ``Offer.resample``."""
DRAWS = 200


def sampling_errors(
    pairs: pd.DataFrame, metric: Metric, draws: Callable[[str], NDArray[Any] | None]
) -> dict[str, float]:
    """Group -> standard deviation of its mean gain over the draws; NaN where it cannot be known.

    ``draws`` gives the metric of a run in each draw, by its id; None where it is not known. A pair with a
    diverged run, whose score is no mean over examples, is left out.
    """
    drawn_once = functools.cache(draws)
    found = {}
    for group, rows in pairs[pairs["diverged"] == ""].groupby("group", sort=False):
        gains = []
        for left, right in zip(rows["baseline_id"], rows["treatment_id"], strict=True):
            a, b = drawn_once(left), drawn_once(right)
            if a is not None and b is not None and a.shape == b.shape:
                gains.append(metric.sign * (b - a))
        found[str(group)] = float(np.mean(gains, axis=0).std(ddof=1)) if gains else math.nan
    return found


@functools.lru_cache(maxsize=4)
def weights(examples: int) -> NDArray[np.float64]:
    """How often each example is drawn (draws, examples): rows sum to the number of examples. Not to be written to."""
    generator = np.random.default_rng(0)
    share = np.full(examples, 1 / examples)
    found = generator.multinomial(examples, share, size=DRAWS).astype(np.float64)
    found.flags.writeable = False  # all runs of a report share it
    return found


def drawn(run: StoredRun, metric: str, resample: Resample | None) -> NDArray[Any] | None:
    """The metric ``final/<split>/<name>`` of a run in each draw of the examples; None if not known.

    An archive may keep the draws in the place of the predictions that they were made from.
    """
    _, split, name = metric.split("/")
    if (kept := run.resampled.get(metric)) is not None:
        return kept
    predictions = run.predictions(split)
    if not predictions or resample is None:
        return None
    examples = len(next(iter(predictions.values())))
    return resample(predictions, weights(examples)).get(name)


def resample_of(task: str) -> Resample | None:
    """How the metrics of a task change with its examples, where it is installed and says so."""
    with suppress(UserError):  # results can be read where the task is not installed
        return catalog().resample(task)
    return None


def draws_of(suite: StoredSuite) -> Callable[[StoredRun], dict[str, NDArray[Any]]]:
    """What an archive without predictions keeps of a run: the metrics that decide, in each draw.

    They are those of the question that was declared and of the one that the plan asks now; of runs that the
    plan has dropped since, too, which the declared question may be about.
    """
    plan = suite.plan
    asked = () if plan is None else (plan.contrast, plan.declared and plan.declared.contrast)
    metrics = {one.metric for one in asked if one and one.metric.startswith("final/")}
    tuning = {cell.id for cell in (plan.cells if plan is not None else ()) if cell.stage == "tune"}

    def draws(run: StoredRun) -> dict[str, NDArray[Any]]:
        if run.spec.id in tuning:
            return {}
        resample = resample_of(run.spec.task.name)
        found = {metric: drawn(run, metric, resample) for metric in sorted(metrics)}
        return {metric: draw for metric, draw in found.items() if draw is not None}

    return draws
