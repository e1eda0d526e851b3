"""The report's figures: which curves and numbers are drawn, and what is written under them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from altgrad_core.analysis.comparison import Comparison
from altgrad_core.analysis.curves import Panel, panels, upper_limit
from altgrad_core.analysis.document import Figure
from altgrad_core.analysis.findings import CURVES, Findings
from altgrad_core.analysis.numbers import score
from altgrad_core.analysis.plots import (
    Interval,
    key_lines,
    plot_curves,
    plot_intervals,
    plot_throughput,
)
from altgrad_core.analysis.words import LEVEL, interval_text, verdict_word

LOSS, VALIDATION, EFFECTIVE_RANK, STABLE_RANK = CURVES
MOST_PANELS = 12
"""Of more groups than these, only some are drawn as curves; the caption says which."""
_COLUMNS = 3
_MOST_ROWS = 14
"""More rows than these are drawn as a panel per setting."""


def loss_figure(found: Findings) -> Figure | None:
    """Training loss by step, a panel per group; None without a logged loss."""
    caption = (
        "Training loss, a running mean over a twentieth of each curve. All panels share their "
        "axes; the loss of a diverged run (×: its last finite value) may leave them."
    )
    return _curve_figure(found, LOSS, "loss", "training loss", caption, smooth=True)


def validation_figure(found: Findings) -> Figure | None:
    """Validation score by step, a panel per group; None without an evaluation."""
    caption = (
        "Validation F1 micro at the threshold tuned on that evaluation. All panels share axes."
    )
    return _curve_figure(found, VALIDATION, "f1", "validation F1 micro, tuned", caption, bottom=0.0)


def rank_figure(found: Findings) -> Figure | None:
    """Effective rank (else stable rank) by step, a panel per group; None where not measured."""
    for metric, name in ((EFFECTIVE_RANK, "effective rank"), (STABLE_RANK, "stable rank")):
        caption = f"The {name}, mean over the watched layers. All panels share axes."
        figure = _curve_figure(found, metric, "rank", name, caption, bottom=0.0)
        if figure is not None:
            return figure
    return None


def _curve_figure(
    found: Findings,
    metric: str,
    name: str,
    ylabel: str,
    caption: str,
    *,
    bottom: float | None = None,
    smooth: bool = False,
) -> Figure | None:
    every = panels(found.results, found.curves, metric, found.contrast, smooth=smooth)
    if not every:
        return None
    parts, note = _chosen(found, every)
    top = 1.05 * upper_limit(parts, found.results, found.curves, metric) or 1.0
    if any(line.rank is None for panel in parts for line in panel.lines):
        caption += " The reference is in grey."
    if found.seeds > 1:
        caption += " Thin: each seed; thick: their mean."
    return _grid(name, caption + note, parts, ylabel, (bottom, top))


def _grid(
    name: str,
    caption: str,
    parts: Sequence[Panel],
    ylabel: str,
    limits: tuple[float | None, float],
    xlabel: str = "step",
    *,
    log_x: bool = False,
) -> Figure:
    """Panels as a figure: each by itself, and all in a grid."""
    lines = key_lines(parts)

    def draw(shown: Sequence[Panel], columns: int, salt: str) -> str:
        return plot_curves(
            shown,
            ylabel=ylabel,
            limits=limits,
            lines=lines,
            columns=columns,
            salt=salt,
            xlabel=xlabel,
            log_x=log_x,
        )

    each = tuple(draw([panel], 1, f"{name}-{number}") for number, panel in enumerate(parts))
    return Figure(name, caption, each, draw(parts, _COLUMNS, name))


def _chosen(found: Findings, every: list[Panel]) -> tuple[list[Panel], str]:
    """The panels that are drawn: all, or of many those whose groups differ most, in their order."""
    if len(every) <= MOST_PANELS:
        return every, ""
    sizes: dict[str, float] = {}
    for one in found.compared:
        panel = one.delta.place.panel
        sizes[panel] = max(sizes.get(panel, 0.0), abs(one.summary.mean))
    ordered = sorted(every, key=lambda panel: -sizes.get(panel.title, -1.0))[:MOST_PANELS]
    kept = [panel for panel in every if panel in ordered]
    which = "whose sides differ most" if sizes else "that come first"
    return kept, f" Drawn are the {MOST_PANELS} of {len(every)} groups {which}."


def tuning_figure(found: Findings) -> Figure | None:
    """Score by learning rate, a panel per group; None where no rate was tuned."""
    if found.tuning is None or not found.tuning.conditions:
        return None
    runs = found.results.assign(id=found.results["condition"])
    rows = [
        (condition, rate, found.tuning.metric, sum(values) / len(values))
        for condition, tuned in found.tuning.conditions.items()
        for rate, values in tuned.curve().items()
        if values
    ]
    curves = pd.DataFrame(rows, columns=["id", "step", "name", "value"])
    runs = runs.drop_duplicates("condition").assign(status="ok")
    every = panels(runs, curves, found.tuning.metric, found.contrast)
    if not every:
        return None
    parts, note = _chosen(found, every)
    values = [v for panel in parts for line in panel.lines for v in line.mean if math.isfinite(v)]
    label = found.tuning.metric.rpartition("/")[2].replace("_", " ")
    caption = (
        f"Validation score ({label}) by learning rate, mean over the tuning seeds; a diverged run "
        "counts as the worst score. The chosen rate is where a curve is highest."
    )
    limits = (None, 1.05 * max(values, default=1.0) or 1.0)
    return _grid("tuning", caption + note, parts, label, limits, "learning rate", log_x=True)


def forest_figure(
    name: str,
    rows: Sequence[tuple[str, Interval]],
    caption: str,
    xlabel: str,
    *,
    floor: float | None = None,
    margin: float | None = None,
) -> Figure | None:
    """A row per difference around 0; ``rows`` are (heading of its panel, row). None for no rows."""
    if all(math.isnan(row.centre) for _, row in rows):
        return None

    def draw(shown: Sequence[Interval], salt: str) -> str:
        return plot_intervals(shown, xlabel=xlabel, floor=floor, margin=margin, salt=salt)

    if floor:
        caption += " Grey band: the noise floor."
    if margin:
        caption += f" Dashed: the margin of ±{score(margin)}."
    if any(row.hollow for _, row in rows):
        caption += (
            " Hollow: a diverged run is in it; an arrowhead points to a difference off the axis."
        )
    whole = draw([row for _, row in rows], name)
    headings = list(dict.fromkeys(heading for heading, _ in rows))
    if len(rows) <= _MOST_ROWS or len(headings) == 1:
        return Figure(name, caption, (whole,), whole)
    each = tuple(
        draw([row for one, row in rows if one == heading], f"{name}-{number}")
        for number, heading in enumerate(headings)
    )
    caption += " A panel by itself has an axis of its own."
    return Figure(name, caption, each, whole)


def comparison_row(one: Comparison) -> Interval:
    """A group as a row of the forest plot: mean and t interval, or why there is none."""
    delta = one.delta
    if one.censored:
        return Interval(one.group, one.censored, math.nan)
    if not delta.pairs:
        return Interval(one.group, "no pair yet", math.nan)
    low, high = one.interval
    note = score(delta.delta.mean, signed=True)
    if not (math.isnan(low) or one.summary.degenerate):
        note += f"  ({interval_text(low, high)})"
    note += f"  {verdict_word(one)}"
    return Interval(
        label=one.group,
        note=note,
        centre=delta.delta.mean,
        low=low,
        high=high,
        values=tuple(pair.delta for pair in delta.pairs) if len(delta.pairs) > 1 else (),
        hollow=bool(delta.diverged),
    )


INTERVAL_CAPTION = f"Small dots: seeds; large dot and bar: mean and {LEVEL} t interval."
"""What the marks of a forest plot with seeds are."""


def throughput_figure(table: pd.DataFrame, ranks: Sequence[int]) -> Figure | None:
    """Samples per second by condition; None where no run measured them.

    ``table`` has the columns ``condition`` (the label of a bar), ``samples_per_second`` and
    ``relative_throughput``.
    """
    if table["samples_per_second"].isna().all():
        return None
    svg = plot_throughput(table, ranks, salt="throughput")
    caption = (
        "Training throughput without warm-up, evaluation, checkpoints and monitors, mean over "
        "seeds. Runs that shared a machine have slowed each other."
    )
    return Figure("throughput", caption, (svg,), svg)
