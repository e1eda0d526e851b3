"""The paired comparison: treatment − baseline within each group, and the noise floor beside it.

A *group* is everything that the two sides share: the values of all matrix axes but the contrast's
(with the usual matrix, the format). Within a group a difference is taken seed by seed, since
runs with the same seed share initial weights, data order and dropout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from altgrad_core.analysis.numbers import Spread, spread
from altgrad_core.analysis.summary import finished, lower_is_better, scores
from altgrad_core.results.collect import FORMAT_AXIS, is_axis
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
    """One group's comparison under one metric. ``missing`` are the planned seeds without a pair."""

    group: str
    metric: str
    pairs: tuple[Pair, ...]
    missing: tuple[int, ...]

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
    def gain(self) -> float:
        """The mean difference, positive where the treatment is better; NaN without a pair."""
        return -self.delta.mean if lower_is_better(self.metric) else self.delta.mean

    @property
    def improved(self) -> int:
        """Seeds whose treatment is better than their baseline."""
        sign = -1 if lower_is_better(self.metric) else 1
        return sum(sign * pair.delta > 0 for pair in self.pairs)


@dataclass(frozen=True)
class NoiseFloor:
    """How far apart two formats with the same grid end, all else equal."""

    formats: tuple[str, str]
    differences: tuple[float, ...]

    @property
    def largest(self) -> float:
        """The largest of the absolute differences."""
        return max(self.differences)


def axes_of(results: pd.DataFrame) -> list[str]:
    """The matrix axes of the table that take more than one value."""
    planned = results[results["planned"]]
    return [c for c in map(str, planned) if is_axis(c) and planned[c].astype(str).nunique() > 1]


def group_labels(results: pd.DataFrame, contrast: Contrast) -> pd.Series[str]:
    """Each run's group: the values of the axes but the contrast's; the format if there are none."""
    axes = [name for name in axes_of(results) if name != contrast.axis]
    rows = results[["format", *axes]].itertuples(index=False, name=None)
    labels = [", ".join(filter(None, map(_axis_label, axes, row))) or fmt for fmt, *row in rows]
    return pd.Series(labels, index=results.index, dtype=object)


def deltas(results: pd.DataFrame, contrast: Contrast, metric: str | None = None) -> list[Delta]:
    """One :class:`Delta` per group that has both sides in the plan, in the suite's order.

    ``metric`` is the contrast's unless given. Results that are not there (a run that failed, a
    metric that was not recorded) leave their seed unpaired, in ``missing``.
    """
    metric = metric or contrast.metric
    if contrast.axis not in results:
        return []
    planned = results[results["planned"]]
    groups = group_labels(planned, contrast)
    found = []
    for label in dict.fromkeys(groups):
        runs = planned[groups == label]
        sides = [runs[runs[contrast.axis].astype(str) == side] for side in _sides(contrast)]
        if all(len(side) for side in sides):
            found.append(_delta(label, metric, *sides))
    return found


def noise_floor(
    results: pd.DataFrame, metric: str, same_grid: Sequence[tuple[str, str]]
) -> list[NoiseFloor]:
    """For each pair of formats with the same grid, how far apart runs equal in all else end.

    Pairs that the table does not have, or has no common result for, are left out. Diverged runs are
    not compared: two worst scores are equal by decree.
    """
    done = results[results["planned"] & (results["status"] == "ok")]
    values = scores(done, metric)
    others = [name for name in axes_of(results) if name != FORMAT_AXIS]
    keys = [tuple(map(str, row)) for row in done[["seed", "optimizer", *others]].to_numpy()]
    table = dict(zip(zip(done["format"], keys, strict=True), values, strict=True))
    floors = []
    for a, b in same_grid:
        apart = (abs(table.get((a, key), math.nan) - table.get((b, key), math.nan)) for key in keys)
        known = dict(zip(keys, apart, strict=True))
        differences = tuple(value for value in known.values() if not math.isnan(value))
        if differences:
            floors.append(NoiseFloor((a, b), differences))
    return floors


def _sides(contrast: Contrast) -> tuple[str, str]:
    return contrast.baseline, contrast.treatment


def _axis_label(name: str, value: object) -> str:
    """``e5m2``, ``num_layers=2``; nothing for a cell that is not on the axis.

    A whole number may have become a float, since such a gap is NaN: it is shown as it was.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if name == FORMAT_AXIS else f"{name.rpartition('.')[2]}={value}"


def _delta(label: str, metric: str, baseline: pd.DataFrame, treatment: pd.DataFrame) -> Delta:
    planned = sorted(set(baseline["seed"]) | set(treatment["seed"]))
    left, right = _by_seed(baseline, metric), _by_seed(treatment, metric)
    pairs = tuple(
        Pair(seed, left[seed][0], right[seed][0], left[seed][1] or right[seed][1])
        for seed in planned
        if seed in left and seed in right
    )
    paired = {pair.seed for pair in pairs}
    return Delta(label, metric, pairs, tuple(seed for seed in planned if seed not in paired))


def _by_seed(runs: pd.DataFrame, metric: str) -> dict[int, tuple[float, bool]]:
    done = finished(runs)
    rows = zip(done["seed"], scores(done, metric), done["status"], strict=True)
    return {
        int(seed): (float(value), status == "diverged")
        for seed, value, status in rows
        if not math.isnan(value)
    }
