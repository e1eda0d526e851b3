"""The paired comparison: treatment − baseline within each group, seed by seed.

Runs with the same seed share initial weights, data order and dropout, so the difference is taken
within each seed. What a group is, and which axes make one, stands in
:mod:`~altgrad_core.analysis.groups`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from altgrad_core.analysis.groups import Group, grouped
from altgrad_core.analysis.numbers import Spread, spread
from altgrad_core.analysis.summary import finished, scores
from altgrad_core.interfaces.metric import Metric
from altgrad_core.results.scores import declaration
from altgrad_core.results.stored import Contrast


@dataclass(frozen=True)
class Pair:
    """The two scores of one seed, and whether either comes from a diverged run."""

    seed: int
    baseline: float
    treatment: float
    diverged: bool

    @property
    def delta(self) -> float:
        """Treatment − baseline."""
        return self.treatment - self.baseline


@dataclass(frozen=True)
class Delta:
    """One group's comparison under one metric. ``missing`` are the planned seeds without a pair.

    ``declared`` is what the task says of the metric; None for what no task declares.
    """

    group: str
    metric: str
    pairs: tuple[Pair, ...]
    missing: tuple[int, ...]
    place: Group = field(default_factory=lambda: Group(""))
    declared: Metric | None = None

    @property
    def baseline(self) -> Spread:
        """Scores of the baseline side of the pairs."""
        return spread(pair.baseline for pair in self.pairs)

    @property
    def treatment(self) -> Spread:
        """Scores of the treatment side of the pairs."""
        return spread(pair.treatment for pair in self.pairs)

    @property
    def delta(self) -> Spread:
        """The differences: their mean, and their standard deviation over seeds."""
        return spread(pair.delta for pair in self.pairs)

    @property
    def sign(self) -> int:
        """1 where a larger score is better, −1 where a smaller one is; 1 for a plain difference."""
        return self.declared.sign if self.declared is not None else 1

    @property
    def gains(self) -> tuple[float, ...]:
        """The differences, positive where the treatment is better."""
        return tuple(self.sign * pair.delta for pair in self.pairs)

    @property
    def gain(self) -> float:
        """The mean difference, positive where the treatment is better; NaN without a pair."""
        return self.sign * self.delta.mean

    @property
    def improved(self) -> int:
        """Seeds whose treatment is better than their baseline."""
        return sum(gain > 0 for gain in self.gains)

    @property
    def diverged(self) -> int:
        """Pairs with a diverged run."""
        return sum(pair.diverged for pair in self.pairs)


def deltas(results: pd.DataFrame, contrast: Contrast, metric: str | None = None) -> list[Delta]:
    """One :class:`Delta` per group that has both sides in the plan, in the suite's order.

    ``metric`` is the contrast's unless given. Results that are not there (a run that failed, a
    metric that was not recorded) leave their seed unpaired, in ``missing``.
    """
    return [
        paired(baseline, treatment, metric or contrast.metric, group)
        for group, baseline, treatment in grouped(results, contrast)
    ]


def paired(baseline: pd.DataFrame, treatment: pd.DataFrame, metric: str, place: Group) -> Delta:
    """The comparison of two sets of runs with one run per seed each."""
    planned = sorted(set(baseline["seed"]) | set(treatment["seed"]))
    left, right = _by_seed(baseline, metric), _by_seed(treatment, metric)
    pairs = tuple(
        Pair(seed, left[seed][0], right[seed][0], left[seed][1] or right[seed][1])
        for seed in planned
        if seed in left and seed in right
    )
    found = {pair.seed for pair in pairs}
    missing = tuple(seed for seed in planned if seed not in found)
    return Delta(place.label, metric, pairs, missing, place, declaration(baseline, metric))


def between(first: Delta, second: Delta, place: Group) -> Delta:
    """How much more the first treatment gains than the second: the treatments' scores, paired."""
    one = {pair.seed: pair for pair in first.pairs}
    two = {pair.seed: pair for pair in second.pairs}
    pairs = tuple(
        Pair(
            seed,
            two[seed].treatment,
            one[seed].treatment,
            one[seed].diverged or two[seed].diverged,
        )
        for seed in sorted(set(one) & set(two))
    )
    planned = _seeds(first) | _seeds(second)
    missing = tuple(sorted(planned - {pair.seed for pair in pairs}))
    return Delta(place.label, first.metric, pairs, missing, place, first.declared)


def _seeds(delta: Delta) -> set[int]:
    return {pair.seed for pair in delta.pairs} | set(delta.missing)


def _by_seed(runs: pd.DataFrame, metric: str) -> dict[int, tuple[float, bool]]:
    done = finished(runs)
    rows: Iterable[tuple[int, float, str]] = zip(
        done["seed"], scores(done, metric), done["status"], strict=True
    )
    return {
        int(seed): (float(value), status == "diverged")
        for seed, value, status in rows
        if math.isfinite(value)
    }
