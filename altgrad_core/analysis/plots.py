"""The report's figures: curves by group, intervals by row, throughput. Each returns SVG text.

Sides differ in colour and weight (and from the fifth on in dashes), and are named in the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter

from altgrad_core.analysis.contrast import Delta
from altgrad_core.analysis.curves import Line, Panel
from altgrad_core.analysis.numbers import significant, with_spread
from altgrad_core.analysis.plot_style import GREY, KEY_SIZE, colour, pen, place_axes
from altgrad_core.analysis.svg import (
    FONT_SIZE,
    INK,
    SeriesMarks,
    drawing,
    new_figure,
    text_width,
    to_svg,
)

_PANEL = (290.0, 190.0)  # of the axes with their labels; the header comes on top
_MARGIN = {"left": 56.0, "right": 10.0, "bottom": 36.0}
_TITLE, _KEY_LINE, _SWATCH, _GAP = 20.0, 15.0, 18.0, 12.0
_WIDE, _ROW = 420.0, 24.0


@dataclass(frozen=True)
class Interval:
    """A row of :func:`plot_intervals`, in the units of its axis.

    ``values`` are small dots (the seeds), ``centre`` is a large one with a bar from ``low`` to
    ``high`` (NaN: no bar; a NaN ``centre`` leaves the row empty), and ``note`` stands at its end.
    ``hollow`` marks a row that a diverged run is in: it does not set the axis.
    """

    label: str
    note: str
    centre: float
    low: float = math.nan
    high: float = math.nan
    values: tuple[float, ...] = ()
    hollow: bool = False


def key_lines(found: Sequence[Panel]) -> int:
    """How many lines the longest of the panels' keys takes."""
    return 1 + max(row for panel in found for *_, row in _key_places(panel))


def plot_curves(
    found: Sequence[Panel],
    *,
    ylabel: str,
    limits: tuple[float | None, float],
    lines: int,
    columns: int,
    salt: str,
    xlabel: str = "step",
    log_x: bool = False,
) -> str:
    """Panels in a grid, all with the same y limits (None: below the curves).

    ``lines`` is the room for keys, see :func:`key_lines`: panels that stand side by side share it.
    The index of each line's series is its x; ``log_x`` puts it on a logarithmic axis.
    """
    columns = min(columns, len(found))
    rows = math.ceil(len(found) / columns)
    header = _TITLE + _KEY_LINE * lines + 4
    width, height = _PANEL[0] * columns, (_PANEL[1] + header) * rows
    marks = SeriesMarks()
    with drawing(salt):
        figure = new_figure(width, height)
        for place, panel in enumerate(found):
            row, column = divmod(place, columns)
            left, upper = column * _PANEL[0], row * (_PANEL[1] + header)
            axes = place_axes(
                figure,
                left + _MARGIN["left"],
                upper + header,
                _PANEL[0] - _MARGIN["left"] - _MARGIN["right"],
                _PANEL[1] - _MARGIN["bottom"],
            )
            _draw_panel(axes, panel, marks, log_x=log_x)
            axes.set_ylim(*limits)
            axes.set_xlabel(xlabel)
            axes.set_ylabel(ylabel)
            _draw_key(figure, panel, left, upper, marks)
        names = ", ".join(panel.title for panel in found)
        return to_svg(figure, f"{ylabel} by {xlabel}: {names}", marks)


def plot_deltas(found: Sequence[Delta], *, xlabel: str, floor: float | None, salt: str) -> str:
    """A row per group: each seed's difference as a small dot, their mean ± std as a large one."""
    return plot_intervals([_spread_row(d) for d in found], xlabel=xlabel, floor=floor, salt=salt)


def plot_intervals(
    found: Sequence[Interval],
    *,
    xlabel: str,
    floor: float | None = None,
    margin: float | None = None,
    salt: str,
) -> str:
    """A row per interval around a line at 0.

    ``floor`` is drawn as a grey band, ``margin`` (the smallest difference that matters) as a
    dashed line on each side of 0.
    """
    with drawing(salt):
        figure, axes = _rows([row.label for row in found], [row.note for row in found])
        axes.axvline(0, color=INK, linewidth=0.8, gid="zero")
        if floor:
            axes.axvspan(-floor, floor, color=GREY, alpha=0.25, linewidth=0)
        for side in (-margin, margin) if margin else ():
            axes.axvline(side, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        reach = _reach(found, floor or 0.0, margin or 0.0)
        axes.set_xlim(-reach, reach)
        for place, row in enumerate(found):
            _draw_interval(axes, place, row, reach)
        axes.set_xlabel(xlabel)
        axes.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))
        return to_svg(figure, f"{xlabel}: {', '.join(f'{r.label} {r.note}' for r in found)}")


def plot_throughput(table: pd.DataFrame, ranks: Sequence[int], *, salt: str) -> str:
    """A bar per condition of the condition table; ``ranks`` gives the colours."""
    labels = table["condition"].astype(str).tolist()
    speeds = table["samples_per_second"].tolist()
    relative = table["relative_throughput"].tolist()
    notes = [
        f"{significant(speed)}{f' ({significant(r)}×)' if not math.isnan(r) else ''}"
        for speed, r in zip(speeds, relative, strict=True)
    ]
    with drawing(salt):
        figure, axes = _rows(labels, notes)
        known = [0.0 if math.isnan(speed) else speed for speed in speeds]
        axes.barh(range(len(known)), known, height=0.62, color=[colour(rank) for rank in ranks])
        axes.set_xlim(0, None)
        axes.set_xlabel("training throughput (samples/s)")
        return to_svg(figure, f"samples per second: {', '.join(labels)}")


def _draw_panel(axes: Axes, panel: Panel, marks: SeriesMarks, *, log_x: bool) -> None:
    for line in panel.lines:
        ink = pen(line.rank)
        shared: dict[str, Any] = {
            "color": ink.colour,
            "linestyle": ink.dash,
            "gid": marks.mark("series", line.label, ink),
        }
        if len(line.seeds) > 1:
            for series in line.seeds:
                axes.plot(series.index, series.to_numpy(), alpha=0.35, linewidth=0.8, **shared)
        axes.plot(line.mean.index, line.mean.to_numpy(), linewidth=_weight(line), **shared)
        for step, value in line.ends:
            axes.plot([step], [value], marker="x", markersize=7, markeredgewidth=2, **shared)
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _weight(line: Line) -> float:
    return 1.2 if line.rank is None else 1.8


def _entries(panel: Panel) -> list[tuple[Line, str, float]]:
    """The key's entries: line, text, and width with its swatch."""
    texts = [f"{line.label}, diverged" if line.ends else line.label for line in panel.lines]
    return [
        (line, text, _SWATCH + 4 + text_width(text, KEY_SIZE))
        for line, text in zip(panel.lines, texts, strict=True)
    ]


def _key_places(panel: Panel) -> list[tuple[Line, str, float, int]]:
    """Each entry with its x (from the panel's left) and its line in the key, filled like text."""
    x, row, places = 8.0, 0, []
    for line, text, width in _entries(panel):
        if x > 8.0 and x + width > _PANEL[0]:
            x, row = 8.0, row + 1
        places.append((line, text, x, row))
        x += width + _GAP
    return places


def _draw_key(figure: Figure, panel: Panel, left: float, top: float, marks: SeriesMarks) -> None:
    """Title and key above the axes, where no curve can run through them."""
    width, height = (inches * 72 for inches in figure.get_size_inches())

    def place(x: float, y: float) -> tuple[float, float]:
        return (left + x) / width, 1 - (top + y) / height

    x, y = place(8, 14)
    figure.text(x, y, panel.title, fontsize=FONT_SIZE + 1, fontweight="bold")
    for line, text, offset, row in _key_places(panel):
        baseline = _TITLE + _KEY_LINE * row + 11
        start, end = place(offset, baseline - 3.5), place(offset + _SWATCH, baseline - 3.5)
        ink = pen(line.rank)
        key = marks.mark("key", line.label, ink)
        figure.add_artist(
            Line2D(
                (start[0], end[0]),
                (start[1], end[1]),
                color=ink.colour,
                linestyle=ink.dash,
                linewidth=_weight(line) + 0.6,
                gid=key,
            )
        )
        x, y = place(offset + _SWATCH + 4, baseline)
        figure.text(x, y, text, fontsize=KEY_SIZE, gid=key)


def _rows(labels: Sequence[str], notes: Sequence[str]) -> tuple[Figure, Axes]:
    """A figure with a labelled row for each entry, top to bottom, and a note at the end of each."""
    left = 12 + max(text_width(label, KEY_SIZE) for label in labels)
    right = 12 + max(text_width(note, KEY_SIZE) for note in notes)
    width = max(_WIDE, left + right + 140)
    height = _ROW * len(labels)
    figure = new_figure(width, height + 46)
    axes = place_axes(figure, left, 6, width - left - right, height)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    for row, note in enumerate(notes):
        axes.annotate(
            note,
            (1, row),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=KEY_SIZE,
        )
    return figure, axes


def _spread_row(delta: Delta) -> Interval:
    """A group's differences as a row: mean ± standard deviation."""
    values = delta.delta
    if not values.n:
        return Interval(delta.group, "no pair yet", math.nan)
    return Interval(
        delta.group,
        with_spread(values, signed=True),
        values.mean,
        values.mean - values.std,
        values.mean + values.std,
        tuple(pair.delta for pair in delta.pairs) if values.n > 1 else (),
        any(pair.diverged for pair in delta.pairs),
    )


def _reach(found: Sequence[Interval], *others: float) -> float:
    """How far the axis goes to each side. A diverged run's difference would flatten all others."""
    calm = [row for row in found if not row.hollow and not math.isnan(row.centre)]
    ends = [
        abs(end)
        for row in calm or found
        for end in (*row.values, row.centre, row.low, row.high)
        if math.isfinite(end)
    ]
    return 1.15 * max([*ends, *others]) or 0.01


def _draw_interval(axes: Axes, place: int, row: Interval, reach: float) -> None:
    ink = colour(1)
    if math.isnan(row.centre):
        return
    if abs(row.centre) > reach:
        edge, marker = math.copysign(0.97 * reach, row.centre), ">" if row.centre > 0 else "<"
        axes.plot([edge], [place], marker, color=ink, markersize=8, markerfacecolor="none")
        return
    if row.values:
        xs = list(row.values)
        axes.plot(xs, [place + 0.24] * len(xs), "o", color=ink, alpha=0.6, markersize=3.5)
    if not math.isnan(row.low):
        axes.plot([row.low, row.high], [place, place], color=ink, linewidth=1.4)
    filled = "none" if row.hollow else ink
    axes.plot([row.centre], [place], "o", color=ink, markersize=8, markerfacecolor=filled)
