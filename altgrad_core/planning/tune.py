"""The learning-rate protocol of a suite: ``training.learning_rate: auto`` and the ``tune`` section.

Every condition is trained at every rate of one grid, with seeds that serve nothing else, and judged
on validation data. Where the best mean lies on an edge of the grid, the grid is extended on that
side, for every condition alike, so that all have the same budget. Free of torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from altgrad_core.interfaces.metric import Metric
from altgrad_core.interfaces.plugin import Settings

AUTO = "auto"
"""The value of ``training.learning_rate`` that asks for the protocol."""

COARSE = 2.0
"""Rates further apart than this can make a difference by themselves: the best lies between them."""


class TuneSettings(Settings):
    """The ``tune`` section."""

    learning_rates: tuple[PositiveFloat, ...] = Field(
        (2.5e-4, 5e-4, 1e-3, 2e-3),
        description="the grid to begin with, rising; steps of more than 2 are called coarse",
    )
    seeds: tuple[NonNegativeInt, ...] = Field(
        (1000, 1001), min_length=1, description="seeds of the tuning runs, other than the suite's"
    )
    metric: str | None = Field(
        None,
        description="what decides: a final metric of validation; null: the task's primary one",
    )
    max_extensions: NonNegativeInt = Field(
        4, description="rates that may be added, on both sides together"
    )
    max_steps: PositiveInt | None = Field(
        None, description="steps of the tuning runs; null: as many as the others"
    )

    @field_validator("learning_rates")
    @classmethod
    def _rising(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if len(rates) < 3 or any(a >= b for a, b in pairwise(rates)):
            raise ValueError("at least three rates are needed, each larger than the one before")
        return rates

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("the seeds must differ")
        return seeds

    @field_validator("metric")
    @classmethod
    def _on_validation(cls, metric: str | None) -> str | None:
        if metric is not None and "/" in metric and not metric.startswith("final/validation/"):
            raise ValueError(
                "learning rates are chosen on validation data: name a metric that begins with "
                "final/validation/, since the test split must not decide"
            )
        return metric


def widest_step(rates: Sequence[float]) -> float:
    """The largest factor between neighbouring rates."""
    return max(b / a for a, b in pairwise(rates))


def extended(rates: Sequence[float], *, below: bool, above: bool) -> tuple[float, ...]:
    """The grid with one more rate on each side that is asked for, in the steps of that side."""
    first, last = rates[0] * rates[0] / rates[1], rates[-1] * rates[-1] / rates[-2]
    # Three digits: 3e-4 -> 1e-4 -> 3.33e-5, the same on every machine.
    lower = (float(f"{first:.2e}"),) if below else ()
    upper = (float(f"{last:.2e}"),) if above else ()
    return (*lower, *rates, *upper)


def best_rate(means: Mapping[float, float], metric: Metric) -> float | None:
    """The rate with the best mean, the smallest of equals; None where no mean is a finite number."""
    known = {rate: mean for rate, mean in means.items() if math.isfinite(mean)}
    return max(known, key=lambda rate: (metric.sign * known[rate], -rate), default=None)
