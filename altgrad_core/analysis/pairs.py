"""The scores of each seed's two runs, and their difference.

A diverged run has no final evaluation, and leaving it out would reward divergence. Where the task
declares a worst value, it counts as that; where there is none, as with a loss, its pair is dropped,
and counted.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd

from altgrad_core.analysis.design import Group
from altgrad_core.interfaces.metric import Metric
from altgrad_core.results.run_directory import FINISHED

COLUMNS = (
    *("group", "seed", "baseline_id", "treatment_id", "baseline", "treatment", "delta", "gain"),
    *("diverged", "dropped"),
)


def pairs_table(
    groups: Sequence[Group], runs: pd.DataFrame, column: str, metric: Metric
) -> pd.DataFrame:
    """One row per group and seed of which both runs have a result; ``COLUMNS``.

    ``column`` is where the ``runs``, of which the groups are parts, have the metric. ``diverged``
    names the side, ``both`` or nothing;
    ``dropped`` says why a pair does not count, and is empty where it does.
    """
    known, broken = scores(runs, column, metric), diverged(runs, column)
    ends = {
        index: (int(seed), (str(run_id), float(value), bool(ended)))
        for index, seed, run_id, value, ended in zip(
            runs.index, runs["seed"], runs["id"], known, broken, strict=True
        )
        if math.isfinite(value) or ended
    }
    rows = [row for group in groups for row in _pairs(group, ends, metric)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = dict.fromkeys(("baseline", "treatment", "delta", "gain"), "float64")
    return table.astype(numbers | {"seed": "int64", "dropped": object, "diverged": object})


def gains_by_seed(pairs: pd.DataFrame, group: str) -> dict[int, float]:
    """Seed -> gain of the pairs of a group that count."""
    used = pairs[(pairs["group"] == group) & (pairs["dropped"] == "")]
    return {int(s): float(g) for s, g in zip(used["seed"], used["gain"], strict=True)}


def scores(runs: pd.DataFrame, column: str, metric: Metric) -> pd.Series[float]:
    """Each run's value of a final metric: the worst where it diverged, NaN where there is none."""
    worst = math.nan if metric.worst is None else metric.worst
    known = _recorded(runs, column).mask(diverged(runs, column), worst)
    return known.where(runs["status"].isin(list(FINISHED)))


def diverged(runs: pd.DataFrame, column: str) -> pd.Series[bool]:
    """The runs that diverged: by their status, or since their score at the end is no finite number."""
    broken = ~np.isfinite(_recorded(runs, column)) & (runs["status"] == "ok") & (column in runs)
    return (runs["status"] == "diverged") | broken


def _recorded(runs: pd.DataFrame, column: str) -> pd.Series[float]:
    if column in runs:
        return runs[column].astype("float64")
    return pd.Series(math.nan, index=runs.index, dtype="float64")


_Run = tuple[str, float, bool]
"""Id, score, and whether it diverged."""


def _pairs(
    group: Group, ends: Mapping[Hashable, tuple[int, _Run]], metric: Metric
) -> list[tuple[object, ...]]:
    left, right = (
        dict(ends[index] for index in side.index if index in ends)
        for side in (group.left, group.right)
    )
    return [
        (group.label, seed, *_pair(left[seed], right[seed], metric))
        for seed in sorted(left.keys() & right.keys())
    ]


def _pair(left: _Run, right: _Run, metric: Metric) -> tuple[object, ...]:
    names = {(True, True): "both", (True, False): "baseline", (False, True): "treatment"}
    diverged = names.get((left[2], right[2]), "")
    delta = right[1] - left[1]
    dropped = "" if math.isfinite(delta) else f"{diverged} diverged"
    return (left[0], right[0], left[1], right[1], delta, metric.sign * delta, diverged, dropped)
