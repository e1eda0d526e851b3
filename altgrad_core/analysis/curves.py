"""What the curve plots show: one panel per group, a line per side, the reference in each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from altgrad_core.analysis.contrast import group_labels
from altgrad_core.analysis.summary import reference_condition
from altgrad_core.results.stored import Contrast

_SMOOTHED_OVER = 20
"""A smoothed curve is a running mean over this part (one twentieth) of its points."""


@dataclass(frozen=True)
class Line:
    """The curves of one condition, by step: each seed, and their mean.

    ``rank`` is the place of the line among the sides of the contrast (0: baseline, 1: treatment);
    None for the reference, which is drawn in grey. ``ends`` are the last points of diverged runs.
    """

    label: str
    rank: int | None
    seeds: tuple[pd.Series[float], ...]
    mean: pd.Series[float]
    ends: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Panel:
    """The lines of one group."""

    title: str
    lines: tuple[Line, ...]


def side_ranks(results: pd.DataFrame, contrast: Contrast | None) -> dict[str, int]:
    """The values of the contrast's axis -> colour: baseline 0, treatment 1, others as they come."""
    if contrast is None or contrast.axis not in results:
        return {}
    sides = [contrast.baseline, contrast.treatment, *results[contrast.axis].dropna().astype(str)]
    return {side: rank for rank, side in enumerate(dict.fromkeys(sides))}


def panels(
    results: pd.DataFrame,
    curves: pd.DataFrame,
    name: str,
    contrast: Contrast | None,
    *,
    smooth: bool = False,
) -> list[Panel]:
    """The panels of metric ``name``, in the suite's order; a group without a point has none.

    Without a contrast there is a panel per format, with its conditions as lines.
    """
    runs = results[results["planned"]]
    points = {str(i): one for i, one in curves[curves["name"] == name].groupby("id", sort=False)}
    runs = runs[runs["id"].isin(list(points))]
    if runs.empty:
        return []
    series = {run_id: _series(points[run_id], smooth=smooth) for run_id in runs["id"]}
    ranks = side_ranks(results, contrast)
    groups = _groups(results, contrast).loc[runs.index]
    reference = reference_condition(results, contrast)
    found = []
    for title in dict.fromkeys(groups):
        inside = runs[groups == title]
        names = list(dict.fromkeys(inside["condition"]))
        lines = [
            _line(inside, condition, series, _side(inside, condition, contrast, ranks, place))
            for place, condition in enumerate(names)
        ]
        if (
            reference is not None
            and reference not in names
            and (runs["condition"] == reference).any()
        ):
            lines.insert(0, _line(runs, reference, series, (reference, None)))
        found.append(Panel(title, tuple(lines)))
    return found


def upper_limit(
    found: list[Panel], results: pd.DataFrame, curves: pd.DataFrame, name: str
) -> float:
    """The largest value of runs that did not diverge: a diverging loss would flatten all others."""
    calm = results.loc[results["status"] != "diverged", "id"]
    values = curves.loc[(curves["name"] == name) & curves["id"].isin(list(calm)), "value"]
    finite = values[values.abs() < math.inf]
    if len(finite):
        return float(finite.max())
    every = [v for panel in found for line in panel.lines for v in line.mean if math.isfinite(v)]
    return max(every, default=1.0)


def _groups(results: pd.DataFrame, contrast: Contrast | None) -> pd.Series[str]:
    return results["format"].astype(str) if contrast is None else group_labels(results, contrast)


def _side(
    runs: pd.DataFrame,
    condition: str,
    contrast: Contrast | None,
    ranks: dict[str, int],
    place: int,
) -> tuple[str, int | None]:
    """Label and colour of a condition's line."""
    if not ranks or contrast is None:
        return condition, place
    side = str(runs.loc[runs["condition"] == condition, contrast.axis].iloc[0])
    return side, ranks.get(side, len(ranks))


def _line(
    runs: pd.DataFrame,
    condition: str,
    series: dict[str, pd.Series[float]],
    side: tuple[str, int | None],
) -> Line:
    inside = runs[runs["condition"] == condition]
    seeds = tuple(series[run_id] for run_id in inside["id"])
    ends = []
    for run_id, status in zip(inside["id"], inside["status"], strict=True):
        finite = series[run_id][series[run_id].abs() < math.inf]
        if status == "diverged" and len(finite):
            ends.append((float(finite.index[-1]), float(finite.iloc[-1])))
    mean = pd.concat(seeds, axis=1).mean(axis=1)
    return Line(side[0], side[1], seeds, mean, tuple(ends))


def _series(points: pd.DataFrame, *, smooth: bool) -> pd.Series[float]:
    """Value by step; infinities become gaps, since no line leads there."""
    series = points.set_index("step")["value"].sort_index()
    series = series.where(series.abs() < math.inf)
    window = len(series) // _SMOOTHED_OVER
    if smooth and window > 1:
        series = series.rolling(window, center=True, min_periods=1).mean()
    return series
