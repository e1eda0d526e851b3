"""What the curve plots show: one panel per group, a line per side, the reference in each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from altgrad_core.analysis.groups import design, keys, own_label, panel_labels, texts
from altgrad_core.analysis.summary import reference_condition
from altgrad_core.results.stored import Contrast

_SMOOTHED_OVER = 20
"""A smoothed curve is a running mean over this part (one twentieth) of its points."""


@dataclass(frozen=True)
class Line:
    """The curves of one condition, by step: each seed, and their mean.

    ``rank`` is the place of the line among the sides of the contrast, see :func:`side_ranks`;
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


def panels(
    results: pd.DataFrame,
    curves: pd.DataFrame,
    name: str,
    contrast: Contrast | None,
    *,
    smooth: bool = False,
) -> list[Panel]:
    """The panels of metric ``name``, in the suite's order; a group without a point has none.

    A panel has the baseline, every variant of the treatment, and other values of the contrast's axis.
    Without a contrast there is a panel per format, with its conditions as lines.
    """
    runs = results[results["planned"]]
    points = {str(i): one for i, one in curves[curves["name"] == name].groupby("id", sort=False)}
    runs = runs[runs["id"].isin(list(points))]
    if runs.empty:
        return []
    series = {run_id: _series(points[run_id], smooth=smooth) for run_id in runs["id"]}
    reference = reference_condition(results, contrast)
    shown = set(runs["condition"])
    found = []
    for title, sides in _layout(results, contrast).items():
        lines = [_line(runs, c, series, side) for c, side in sides.items() if c in shown]
        if not lines:
            continue
        if reference is not None and reference in shown and reference not in sides:
            lines.insert(0, _line(runs, reference, series, (reference, None)))
        found.append(Panel(title, tuple(lines)))
    return found


def _layout(
    results: pd.DataFrame, contrast: Contrast | None
) -> dict[str, dict[str, tuple[str, int]]]:
    """Panel -> condition -> label and colour of its line."""
    planned = results[results["planned"]].drop_duplicates("condition")
    conditions = planned["condition"].astype(str).tolist()
    found: dict[str, dict[str, tuple[str, int]]] = {}
    if contrast is None or contrast.axis not in results:
        for condition, fmt in zip(conditions, planned["format"], strict=True):
            sides = found.setdefault(str(fmt), {})
            sides[condition] = (condition, len(sides))
        return found
    laid = design(results, contrast)
    titles, places = panel_labels(planned, laid), keys(planned, laid.shared)
    labels, ranks = line_labels(results, contrast), side_ranks(results, contrast)
    for condition, place in zip(conditions, places, strict=True):
        sides = found.setdefault(titles[place], {})
        sides[condition] = (labels[condition], ranks[labels[condition]])
    return found


def line_labels(results: pd.DataFrame, contrast: Contrast) -> dict[str, str]:
    """Condition -> which line of its panel it is: ``manifold_adamw, site both``."""
    planned = results[results["planned"]].drop_duplicates("condition")
    own = design(results, contrast).own
    rows = zip(planned["condition"], texts(planned, contrast.axis), keys(planned, own), strict=True)
    return {
        str(condition): ", ".join(
            filter(None, [side, own_label(dict(zip(own, key, strict=True)), own)])
        )
        for condition, side, key in rows
    }


def side_ranks(results: pd.DataFrame, contrast: Contrast) -> dict[str, int]:
    """Line -> colour: those of the baseline first, then the treatment's variants, then others."""
    labels = dict.fromkeys(line_labels(results, contrast).values())
    sides = (contrast.baseline, contrast.treatment)

    def place(label: str) -> int:
        owners = (n for n, side in enumerate(sides) if f"{label}, ".startswith(f"{side}, "))
        return next(owners, len(sides))

    return {label: rank for rank, label in enumerate(sorted(labels, key=place))}


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
